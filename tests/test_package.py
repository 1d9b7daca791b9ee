"""The public surface: loaded lazily, and complete."""

from __future__ import annotations

import subprocess
import sys

import pytest

import meloformer

HEAVY = ("numpy", "torch", "symusic", "music21", "pydantic")


def heavy_after(statement: str) -> list[str]:
    """Which heavy packages a fresh interpreter has loaded after ``statement``."""
    code = f"import sys\n{statement}\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert heavy_after("import meloformer") == []
    assert "numpy" in heavy_after("import meloformer; meloformer.Score")


@pytest.mark.parametrize("name", meloformer.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(meloformer, name).__doc__
    assert dir(meloformer).count(name) == 1


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        meloformer.nonsense  # noqa: B018

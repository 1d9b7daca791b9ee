"""The help pages: there for every command, and quick because they import nothing heavy."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from meloformer.cli import COMMANDS
from meloformer.settings import Settings
from tests.cli.conftest import REPOSITORY, Run

TOLD_DEFAULTS = ("seq_len", "batch_size", "epochs", "seed", "device")
HEAVY = ("numpy", "torch", "symusic", "music21", "matplotlib", "mido", "zstandard", "safetensors")


def modules_after(*arguments: str, cwd: Path) -> set[str]:
    code = (
        "import sys\n"
        f"sys.argv = ['meloformer', *{list(arguments)!r}]\n"
        "from meloformer.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print(*sys.modules, sep='\\n', file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60
    )
    assert cwd.exists()
    return set(done.stderr.split())


def test_help_imports_nothing_heavy_and_not_even_pydantic(tmp_path: Path) -> None:
    loaded = modules_after("--help", cwd=tmp_path)
    assert "meloformer.cli.train" in loaded
    assert not loaded & {*HEAVY, "pydantic"}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_imports_nothing_heavy(command: str, tmp_path: Path) -> None:
    """Typer itself loads pydantic once it has parameters to read, so that is not asked here."""
    assert not modules_after(command, "--help", cwd=tmp_path) & set(HEAVY)


def test_help_lists_exactly_the_commands_that_exist(meloformer: Run) -> None:
    page = meloformer("--help").stdout
    listed = [
        line.split()[1] for line in page.split("Commands")[1].splitlines() if line[:3] == "│ " + line[2:3].strip()
    ]
    assert [name for name in listed if name in COMMANDS] == list(COMMANDS)
    assert "evaluate" not in page


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_json_and_quiet(command: str, meloformer: Run) -> None:
    page = meloformer(command, "--help").stdout
    for option in ("--json", "--quiet", "--set", "--config"):
        assert option in page


@pytest.mark.parametrize(
    ("option", "default"),
    [
        ("--size", Settings().model.size),
        *((f"--{name.replace('_', '-')}", getattr(Settings().training, name)) for name in TOLD_DEFAULTS),
    ],
)
def test_a_default_that_the_help_tells_is_that_of_the_settings(option: str, default: object, meloformer: Run) -> None:
    """The help cannot ask the settings: that would load pydantic."""
    page = meloformer("train", "--help").stdout
    told = " ".join(re.findall(r"[^│\s]+", page.partition(f"│ {option} ")[2].partition("│ --")[0]))
    assert f"by default {default}" in told


def test_a_wrong_option_is_wrong_usage(meloformer: Run) -> None:
    assert meloformer("train", "--no-such-option").returncode == 2


def test_the_version_is_the_packages(meloformer: Run) -> None:
    from meloformer import __version__

    assert meloformer("--version").stdout == f"meloformer {__version__}\n"

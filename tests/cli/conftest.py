"""Running the program as a user does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from meloformer.bench.music import practice_piece
from meloformer.cli import app
from meloformer.midi.write import write_midi

REPOSITORY = Path(__file__).parents[2]


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def meloformer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``meloformer ARGUMENTS`` with the test's folder as working folder.

    In this process, since a new one takes seconds to import torch; ``test_process.py`` starts real ones.
    """
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()

    def run(*arguments: str | Path) -> Done:
        result = runner.invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Done(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture(scope="session")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with twelve pieces made by rule."""
    folder = tmp_path_factory.mktemp("songs")
    for seed in range(12):
        write_midi(practice_piece(seed, num_bars=12), folder / f"song{seed:02d}.mid")
    return folder

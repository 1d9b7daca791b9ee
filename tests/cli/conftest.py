"""Running the program as a user does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from typer.testing import CliRunner

from meloformer.bench.music import practice_piece
from meloformer.cli import app
from meloformer.midi.write import write_midi
from meloformer.model.meloformer import MeloFormer
from meloformer.model.weights import save_weights
from meloformer.settings import ModelSettings
from meloformer.tokens.vocabulary import Vocabulary

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
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random weights, small ones."""
    torch.manual_seed(1)
    model = MeloFormer(ModelSettings.of_size("tiny", num_layers=1, dim=16, ffn_dim=16), Vocabulary.default())
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_weights(model, path)
    return path


@pytest.fixture(scope="session")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with twelve pieces made by rule."""
    folder = tmp_path_factory.mktemp("songs")
    for seed in range(12):
        write_midi(practice_piece(seed, num_bars=12), folder / f"song{seed:02d}.mid")
    return folder

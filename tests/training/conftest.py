"""A small folder of shards, and processes that train on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from meloformer.bench.music import practice_piece
from meloformer.midi.write import write_midi
from meloformer.settings import Settings
from meloformer.settings_file import load_settings
from meloformer.shards.pipeline import pack_pieces
from tests.cli.conftest import REPOSITORY

TINY = (
    "model.size=tiny", "model.num_layers=2", "model.dim=32", "model.ffn_dim=48", "training.seq_len=128",
    "training.batch_size=2", "training.steps=6", "training.eval_every=3", "training.eval_rows=2",
    "training.checkpoint_every=3", "training.learning_rate=0.004", "training.device=cpu", "pack.val_share=0.3",
    "pack.test_share=0", "training.transpose=false", "training.tempo_bins=0", "training.velocity_bins=0",
    "training.workers=0",
)  # fmt: skip


@pytest.fixture(scope="session")
def tiny_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of twelve pieces that went through MIDI files."""
    folder = tmp_path_factory.mktemp("midi")
    for seed in range(12):
        write_midi(practice_piece(seed, num_bars=8), folder / f"{seed}.mid")
    out = tmp_path_factory.mktemp("packed") / "shards"
    pack_pieces([folder], out, load_settings(None, list(TINY)))
    return out


@pytest.fixture
def tiny_settings() -> Settings:
    return load_settings(None, list(TINY))


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start_training() -> Iterator[Start]:
    """Starts ``meloformer train`` in processes of their own; however the test ends, neither they nor theirs live on."""
    started: list[subprocess.Popen[str]] = []

    def start(shards: Path, run: Path, *changes: str, **variables: str) -> subprocess.Popen[str]:
        words = [word for text in (*TINY, *changes) for word in ("--set", text)]
        process = subprocess.Popen(
            [sys.executable, "-m", "meloformer", "train", str(shards), "--out", str(run), *words],
            env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"} | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with process:
            process.wait()

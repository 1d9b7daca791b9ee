"""A small folder of shards."""

from __future__ import annotations

from pathlib import Path

import pytest

from meloformer.bench.music import practice_piece
from meloformer.midi.write import write_midi
from meloformer.settings import Settings
from meloformer.settings_file import load_settings
from meloformer.shards.pipeline import pack_pieces

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

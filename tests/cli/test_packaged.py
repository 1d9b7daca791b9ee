"""The model that the package brings along: it writes where nothing was trained, and can be trained on."""

from __future__ import annotations

from pathlib import Path

from meloformer.midi.read import read_midi
from tests.cli.conftest import Run, result_of


def test_it_writes_where_nothing_was_trained(meloformer: Run, untrained: Path, tmp_path: Path) -> None:
    done = meloformer("generate", "--bars", "4", "--seed", "3")
    assert done.returncode == 0, done.stderr
    assert "nothing has been trained in runs/: the model of the package writes" in done.stderr
    piece = tmp_path / "generated" / "seed3-1.mid"
    named = result_of(meloformer, "generate", "--checkpoint", "packaged", "--bars", "4", "--seed", "3", "--out", "same")
    assert named["checkpoint"] == "packaged"
    assert (tmp_path / named["pieces"][0]["file"]).read_bytes() == piece.read_bytes()
    assert read_midi(piece).num_notes > 8
    other = result_of(meloformer, "generate", "--checkpoint", untrained, "--bars", "4", "--seed", "3", "--out", "other")
    assert (tmp_path / other["pieces"][0]["file"]).read_bytes() != piece.read_bytes()


def test_it_is_trained_on_and_measured(meloformer: Run, songs: Path) -> None:
    result_of(meloformer, "pack", songs, "--set", "pack.val_share=0.2")
    before = result_of(meloformer, "evaluate", "packaged", "--num", "0", "--seq-len", "256")
    small = ("--seq-len", "256", "--batch-size", "1", "--steps", "4", "--set", "training.learning_rate=1e-4")
    trained = result_of(meloformer, "train", "--init", "packaged", *small)
    losses = [one["validation"]["nats_per_note"] for one in ({"validation": before["prediction"]["model"]}, trained)]
    assert losses[1] < losses[0] + 1  # it began from what had been learnt
    assert result_of(meloformer, "generate", "--bars", "2")["checkpoint"] == trained["run"]  # a run comes first

    result_of(meloformer, "build-vocab", songs, "--out", "small.json", "--prune")
    result_of(meloformer, "pack", songs, "--out", "pruned", "--vocab", "small.json")
    refused = meloformer("train", "pruned", "--init", "packaged", *small)
    assert refused.returncode == 1
    assert "make shards with `meloformer pack` and no --vocab" in refused.stderr

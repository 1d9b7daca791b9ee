"""The model that the package brings along: it writes where nothing was trained, and can be trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from meloformer.cli import demo
from meloformer.midi.read import read_midi
from tests.cli.conftest import Run, assert_one_line, result_of


def test_it_writes_where_nothing_was_trained(meloformer: Run, untrained: Path, tmp_path: Path) -> None:
    (tmp_path / "packaged").mkdir()  # is not what is meant
    done = meloformer("generate", "--bars", "4", "--seed", "3")
    assert done.returncode == 0, done.stderr
    assert "there is no checkpoint in runs/: the model of the package writes" in done.stderr
    piece = tmp_path / "generated" / "seed3-1.mid"
    assert result_of(meloformer, "generate", "--bars", "1", "--out", "alike")["checkpoint"] == "packaged"
    named = result_of(meloformer, "generate", "--checkpoint", "packaged", "--bars", "4", "--seed", "3", "--out", "same")
    assert named["checkpoint"] == "packaged"
    assert (tmp_path / named["pieces"][0]["file"]).read_bytes() == piece.read_bytes()
    assert read_midi(piece).num_notes > 8
    other = result_of(meloformer, "generate", "--checkpoint", untrained, "--bars", "4", "--seed", "3", "--out", "other")
    assert (tmp_path / other["pieces"][0]["file"]).read_bytes() != piece.read_bytes()


def test_what_changes_nothing_of_a_trained_model_is_refused(meloformer: Run) -> None:
    assert_one_line(meloformer("generate", "--set", "model.summaries=none"), "model.summaries", "as it was trained")


def test_nothing_is_replaced(meloformer: Run, untrained: Path, tmp_path: Path) -> None:
    def names(num: int) -> list[str]:
        done = result_of(meloformer, "generate", "--checkpoint", untrained, "--bars", "1", "--num", str(num))
        return [Path(piece["file"]).stem for piece in done["pieces"]]

    (tmp_path / "generated").mkdir()
    (tmp_path / "generated" / "seed0-2.wav").write_bytes(b"kept")
    assert names(1) == ["seed0-1"]
    assert names(2) == ["seed0-1-take2", "seed0-2-take2"]
    assert names(1) == ["seed0-1-take3"]
    assert (tmp_path / "generated" / "seed0-2.wav").read_bytes() == b"kept"


def test_a_demo_lets_it_write_beside_its_own_model(
    meloformer: Run, songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "CORPORA", (str(songs),))
    quick = ("--steps", "2", "--set", "generation.bars=2", "--set", "generation.max_notes_per_bar=8")
    done = result_of(meloformer, "demo", *quick, "--set", "pack.val_share=0.3")
    assert [(Path(piece["file"]).name, piece["model"]) for piece in done["pieces"]] == [
        ("chorale.mid", "demo/run"), ("quartet.mid", "demo/run"),
        ("chorale-packaged.mid", "packaged"), ("quartet-packaged.mid", "packaged"),
    ]  # fmt: skip
    first = {name: (tmp_path / "demo" / name).read_bytes() for name in ("chorale.mid", "chorale-packaged.mid")}
    assert len(set(first.values())) == 2
    again = result_of(meloformer, "demo", *quick, "--set", "pack.val_share=0.3")  # an earlier demo is replaced
    assert {name: (tmp_path / "demo" / name).read_bytes() for name in first} == first
    assert again["pieces"] == done["pieces"]


def test_it_is_trained_on_and_measured(meloformer: Run, songs: Path) -> None:
    result_of(meloformer, "pack", songs, "--set", "pack.val_share=0.2")
    assert result_of(meloformer, "evaluate", "packaged", "--num", "0")["seq_len"] == 16_384
    before = result_of(meloformer, "evaluate", "packaged", "--num", "0", "--seq-len", "256")["prediction"]["model"]
    small = ("--seq-len", "256", "--batch-size", "1", "--steps", "4", "--set", "training.learning_rate=1e-4")
    plan = meloformer("train", "--init", "packaged", *small, "--dry-run")
    assert (plan.returncode, "have no effect" in plan.stderr) == (0, False)
    for other in (("--size", "small"), ("--set", "model.dim=256")):  # small is the default size, and that is its width
        plan = meloformer("train", "--init", "packaged", *small, "--dry-run", *other)
        assert "the model is that of packaged; --size and model.* beside it have no effect" in plan.stderr
    for resume in ((), ("--resume",)):
        refused = meloformer("train", *small, "--out", "packaged", *resume)
        assert_one_line(refused, "packaged is the name of the model in the package")
    trained = result_of(meloformer, "train", "--init", "packaged", *small)
    assert trained["validation"]["nats_per_note"] < before["nats_per_note"] + 1  # it began from what had been learnt
    assert result_of(meloformer, "generate", "--bars", "2")["checkpoint"] == trained["run"]  # a run comes first
    assert f"new pieces by {trained['run']}" in meloformer("generate", "--bars", "1").stdout

    result_of(meloformer, "build-vocab", songs, "--out", "small.json", "--prune")
    result_of(meloformer, "pack", songs, "--out", "pruned", "--vocab", "small.json")
    refused = meloformer("train", "pruned", "--init", "packaged", *small)
    assert refused.returncode == 1
    assert "make shards with `meloformer pack` and no --vocab" in refused.stderr

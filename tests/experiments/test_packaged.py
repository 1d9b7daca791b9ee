"""The model of the package and its rival: trained for the same time, asked for music, and measured side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments import music, packaged
from meloformer.generation.generate import generate
from meloformer.model.weights import load
from tests.training.conftest import tiny_shards as tiny_shards  # a fixture

WORDS = ["--set", "model.num_layers=1", "--set", "model.dim=32", "--set", "model.ffn_dim=48"]
WORDS += ["--set", "training.seq_len=128", "--set", "training.device=cpu"]


def test_both_are_trained_and_write_music_and_their_figures_stand_side_by_side(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = {name: tmp_path / f"{name}.safetensors" for name in ("ours", "plain")}
    for name, path in models.items():
        rival = ["--plain"] if name == "plain" else []
        packaged.main([str(tiny_shards), "--out", str(path), "--minutes", "0.005", *rival, *WORDS])
        record = json.loads(path.with_suffix(".json").read_text())
        assert record["seconds"] >= 0.3
        assert record["prediction"]["model"]["nats_per_note"] > 0
    assert load(models["plain"]).settings.heads == {"document": 4}
    assert next(load(models["ours"]).parameters()).dtype.is_floating_point
    (piece,) = generate(load(models["plain"]), bars=2, max_notes_per_bar=4, device="cpu")
    assert len(piece) > 4
    capsys.readouterr()

    results = tmp_path / "music.jsonl"
    words = [f"{name}={path}" for name, path in models.items()]
    words += ["--shards", str(tiny_shards), "--results", str(results), "--num", "2", "--bars", "2", "--seeds", "0,1"]
    words += ["--set", "generation.max_notes_per_bar=4", "--set", "evaluation.device=cpu"]
    music.main(words)
    shown = capsys.readouterr().out
    assert shown.startswith("|  | ours | plain | held-out music |\n")
    assert "| similarity error, % |" in shown
    lines = results.read_text().splitlines()
    assert len(lines) == 4
    longest = [json.loads(line)["report"]["generated"]["copies"]["line"]["longest"] for line in lines[:2]]
    assert f"| longest copy, line | {max(longest)} |" in shown
    music.main(words)
    assert results.read_text().splitlines() == lines  # nothing is measured again


def test_wrong_words_are_told(tiny_shards: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"error: .*model\.dim"):
        packaged.main([str(tiny_shards), "--out", str(tmp_path / "a"), "--minutes", "1", "--set", "model.dim=0"])
    with pytest.raises(SystemExit) as caught:
        music.main(["ours", "--shards", str(tiny_shards), "--results", str(tmp_path / "r")])
    assert caught.value.code == 2

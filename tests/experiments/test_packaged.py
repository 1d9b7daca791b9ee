"""The model of the package and its rival: trained for the same time, asked for music, and measured side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from experiments import card, music, packaged
from meloformer.errors import MeloFormerError
from meloformer.generation.generate import generate
from meloformer.model.weights import load
from meloformer.settings import Settings
from meloformer.shards.pipeline import pack_pieces
from tests.cli.conftest import songs as songs  # a fixture
from tests.training.conftest import tiny_shards as tiny_shards  # a fixture

pytestmark = pytest.mark.usefixtures("one_thread")

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
    assert {tensor.dtype for tensor in load_file(models["ours"]).values()} == {torch.float16}
    assert {weight.dtype for weight in load(models["ours"]).parameters()} == {torch.float32}
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
    models["ours"].write_bytes(models["plain"].read_bytes())
    music.main(words)
    assert len(results.read_text().splitlines()) == 6  # other weights are


@pytest.mark.parametrize("rival", [[], ["--plain"]], ids=["ours", "plain"])
def test_training_goes_on_from_what_was_written_on_longer_rows(
    tiny_shards: Path, tmp_path: Path, rival: list[str]
) -> None:
    short, long = tmp_path / "short.safetensors", tmp_path / "long.safetensors"
    packaged.main([str(tiny_shards), "--out", str(short), "--minutes", "0.01", *rival, *WORDS])
    further = [
        "--set",
        f"training.init={short}",
        "--set",
        "training.seq_len=256",
        "--set",
        "training.learning_rate=1e-9",
    ]
    packaged.main([str(tiny_shards), "--out", str(long), "--minutes", "0.005", *rival, *WORDS[:6], *further])
    assert (load(short).seq_len, load(long).seq_len) == (128, 256)
    before, after = (load_file(path) for path in (short, long))
    for name, weight in before.items():
        torch.testing.assert_close(after[name], weight, atol=1e-3, rtol=1e-2)
    told = [json.loads(path.with_suffix(".json").read_text()) for path in (short, long)]
    for name in ("steps", "seconds", "targets"):
        assert told[1][name] > told[0][name]


def test_weights_of_which_nothing_is_told_are_refused_before_the_training(tiny_shards: Path, tmp_path: Path) -> None:
    further = ["--set", "training.init=packaged"]
    with pytest.raises(SystemExit, match=r"there is no packaged\.json, which tells how packaged was trained"):
        packaged.main([str(tiny_shards), "--out", str(tmp_path / "a"), "--minutes", "99", *WORDS, *further])


def test_the_card_tells_what_is_in_the_shards_and_refuses_what_it_does_not_know(songs: Path, tmp_path: Path) -> None:
    music_folder = tmp_path / "music"

    def add(folder: str, some: list[Path]) -> None:
        (music_folder / folder).mkdir(parents=True)
        for song in some:
            (music_folder / folder / song.name).write_bytes(song.read_bytes())

    every = sorted(songs.iterdir())
    add("freedoom", every[:6])
    known = pack_pieces([str(music_folder)], tmp_path / "known", Settings())
    shown = card.data_table(tmp_path / "known")
    assert f"| BSD 3-Clause | {known.kept} |" in shown
    assert shown.splitlines()[-1].startswith(f"| all |  | {known.kept} |")
    add("elsewhere", every[6:])
    pack_pieces([str(music_folder)], tmp_path / "all", Settings())
    with pytest.raises(MeloFormerError, match=r"elsewhere/.* is of no source whose licence is known"):
        card.data_table(tmp_path / "all")


def test_wrong_words_are_told(tiny_shards: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"error: .*model\.dim"):
        packaged.main([str(tiny_shards), "--out", str(tmp_path / "a"), "--minutes", "1", "--set", "model.dim=0"])
    with pytest.raises(SystemExit) as caught:
        music.main(["ours", "--shards", str(tiny_shards), "--results", str(tmp_path / "r")])
    assert caught.value.code == 2

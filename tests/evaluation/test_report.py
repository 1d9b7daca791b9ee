"""The command as a user runs it, on a run of three steps."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from meloformer.bench.music import practice_piece
from meloformer.evaluation.structure import PIECE_METRICS
from meloformer.evaluation.tables import METRIC_NAMES
from meloformer.midi.write import write_midi
from meloformer.model.weights import WEIGHTS_FILE
from meloformer.training.run_folder import shards_of
from tests.cli.conftest import Run
from tests.cli.conftest import meloformer as meloformer  # a fixture
from tests.training.conftest import TINY
from tests.training.conftest import tiny_shards as tiny_shards  # a fixture

SET = tuple(word for text in TINY for word in ("--set", text))


@pytest.fixture
def run(meloformer: Run, tiny_shards: Path) -> str:
    done = meloformer("train", tiny_shards, *SET, "--steps", "3", "--out", "runs/a", "--quiet", "--json")
    assert done.returncode == 0, done.stderr
    return "runs/a"


def test_a_run_is_measured_with_its_own_pieces_and_drawn(
    meloformer: Run, run: str, tiny_shards: Path, tmp_path: Path
) -> None:
    words = ("--shards", tiny_shards, "--num", "2", "--bars", "2", "--html", "report.html", "--quiet")
    done = meloformer("evaluate", run, *words, "--json", "--set", "generation.max_notes_per_bar=8")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["seq_len"] == 128  # as the run was trained
    assert told["generated"]["pieces"] == 2
    assert told["generated"]["bars"] == 4
    assert all(set(told["corpus"][name]) == {"mean", "deviation"} for name in PIECE_METRICS)
    assert told["corpus"]["by_instrument"]
    prediction = told["prediction"]
    assert sum(one["notes"] for one in prediction["by_tokens"]) == prediction["notes"] > 0
    assert prediction["model"]["nats_per_note"] > 0
    assert told["held_out"]["similarity_error"] is not None
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=\"(?!#)", page)  # nothing is fetched
    namespaces = ("http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink")
    assert set(re.findall(r"https?://[^\"<\s]*", page)) <= set(namespaces)
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(pictures) == 8
    for picture in pictures:
        ElementTree.fromstring(picture)
    assert f"{prediction['model']['nats_per_note']:.3f}" in page


def test_pieces_of_a_folder_are_measured_and_copies_of_the_training_set_are_found(
    meloformer: Run, run: str, tiny_shards: Path, tmp_path: Path
) -> None:
    (tmp_path / "pieces").mkdir()
    for seed in range(4):  # of the twelve that the shards hold
        write_midi(practice_piece(seed, num_bars=8), tmp_path / "pieces" / f"{seed}.mid")
    (tmp_path / "pieces" / "broken.mid").write_bytes(b"MThd")
    shown = meloformer("evaluate", run, "--shards", tiny_shards, "--pieces", "pieces")
    assert shown.returncode == 0, shown.stderr
    assert "passed over broken.mid" in shown.stderr
    for name in METRIC_NAMES.values():
        assert name in shown.stdout
    done = meloformer("evaluate", run, "--shards", tiny_shards, "--pieces", "pieces", "--json", "--quiet")
    told = json.loads(done.stdout)
    assert list(told["rejected"]) == ["broken.mid"]
    assert told["generated"]["copies"]["texture"]["longest"] >= 32


def test_wrong_wishes_are_told_in_one_line(meloformer: Run, run: str, tiny_shards: Path) -> None:
    for words, part in (
        (("--html", "report.png"), "no name of a page"),
        (("--split", "train"), "evaluation.split"),
        (("--pieces", "nowhere"), "nowhere"),
        (("--num", "0", "--split", "test"), "no documents in the split test"),
        (("--html", f"{tiny_shards}/manifest.json/x.html"), "cannot write"),
        (("--set", "model.summaries=none"), "the model is as it was trained"),
        (("--set", "training.seq_len=64"), "the model is as it was trained"),
    ):
        done = meloformer("evaluate", run, "--shards", tiny_shards, "--quiet", *words)
        assert done.returncode == 1
        assert part in done.stderr
        assert done.stderr.count("\n") == 1


def test_only_losses_are_measured_where_no_pieces_are_wanted(meloformer: Run, run: str, tiny_shards: Path) -> None:
    done = meloformer("evaluate", run, "--num", "0", "--json", "--quiet", "--seq-len", "64")
    told = json.loads(done.stdout)
    assert told["shards"] == str(tiny_shards)  # the run's own
    assert told["seq_len"] == 64
    assert "generated" not in told
    assert told["corpus"] is None


def test_a_run_its_checkpoint_and_its_weights_tell_their_shards(run: str, tiny_shards: Path, tmp_path: Path) -> None:
    checkpoint = next((tmp_path / run / "checkpoints").iterdir())
    for source in (tmp_path / run, checkpoint, checkpoint / WEIGHTS_FILE):
        assert shards_of(source) == tiny_shards
    (tmp_path / WEIGHTS_FILE).write_bytes((checkpoint / WEIGHTS_FILE).read_bytes())
    for source in (tmp_path / WEIGHTS_FILE, Path("packaged")):
        assert shards_of(source) is None


def test_every_metric_has_a_name_in_the_table() -> None:
    assert set(METRIC_NAMES) == set(PIECE_METRICS)

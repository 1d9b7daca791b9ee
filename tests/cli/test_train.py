"""``train`` on a few bars: its line of progress, its samples, and what it predicts."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from meloformer.bench.prediction import predict_memory
from meloformer.cli.train import ProgressObserver
from meloformer.midi.read import read_midi
from meloformer.settings_file import load_settings
from meloformer.tokens.quantise import quantise
from meloformer.training import loop
from meloformer.training.loss import Evaluation
from tests.cli.conftest import Run, result_of

SMALL = ("--size", "tiny", "--seq-len", "128", "--batch-size", "2", "--device", "cpu")


@pytest.fixture
def shards(meloformer: Run, songs: Path) -> str:
    result_of(meloformer, "pack", songs, "--set", "pack.val_share=0.3")
    return "shards"


def test_a_line_of_progress_tells_losses_speed_and_waiting() -> None:
    shown: list[tuple[int, int, str]] = []
    observer = ProgressObserver(lambda done, total, remark="": shown.append((done, total, remark)))
    metrics = {"loss": 3.2149, "nats_per_note": 12.346, "tokens_per_second": 12_345.6, "data_wait": 0.052}
    observer.on_start(9, 2)
    observer.on_step(3, metrics)
    observer.on_evaluation(3, Evaluation(np.array([10.0, 2.5]), np.array([4, 1])))
    observer.on_step(4, {**metrics, "tokens_per_second": 950.4, "data_wait": 0.5})
    assert shown == [
        (2, 9, ""),
        (3, 9, "loss 3.21 note 12.35 12.3k tok/s wait 5%"),
        (4, 9, "loss 3.21 val 2.50 note 12.35 950 tok/s wait 50%"),
    ]


def test_a_run_shows_its_progress_and_writes_samples_that_can_be_read(
    meloformer: Run, shards: str, tmp_path: Path
) -> None:
    wishes = ("sample_every=1", "sample_bars=2", "eval_every=1")
    often = [word for wish in wishes for word in ("--set", f"training.{wish}")]
    often += ["--set", "generation.max_notes_per_bar=4", "--set", "generation.context=64"]
    done = meloformer("train", shards, *SMALL, "--steps", "2", "--out", "run", *often)
    assert done.returncode == 0, done.stderr
    line = r"train 2/2 \(.*/s\) loss \d+\.\d\d val \d+\.\d\d note \d+\.\d\d [\d.]+k? tok/s wait \d+%"
    assert re.search(line, done.stderr), done.stderr
    samples = sorted(tmp_path.glob("run/samples/*.mid"))
    assert [path.name for path in samples] == ["step-000001.mid", "step-000002.mid"]
    for path in samples:
        chords = quantise(read_midi(path)).chords
        assert chords is not None
        assert len(chords) == 2
        assert path.with_suffix(".png").exists()


def test_a_dry_run_predicts_the_memory_of_a_step_where_it_can(meloformer: Run, shards: str) -> None:
    plan = ("train", shards, "--size", "tiny", "--seq-len", "1024", "--batch-size", "3", "--device", "cpu", "--dry-run")
    told = result_of(meloformer, *plan)["predicted_memory_mib"]
    settings = load_settings(None, ["model.size=tiny", "training.precision=fp32"])
    predicted = predict_memory(settings, seq_len=1024, batch_size=3)
    parts = {name: round(size / 2**20) for name, size in predicted.to_dict().items()}
    assert told == {**parts, "total": round(predicted.total / 2**20)}
    assert told["total"] == pytest.approx(sum(parts.values()), abs=len(parts) / 2)
    narrow = result_of(meloformer, *plan, "--set", "model.dim=32")
    assert narrow["predicted_memory_mib"] == "unknown: its heads are too narrow"


def test_a_run_that_is_interrupted_at_once_says_how_to_go_on(
    meloformer: Run, shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "evaluate", interrupted)  # as a second Ctrl-C does
    words = (*SMALL, "--steps", "3", "--out", "run", "--set", "training.eval_every=1", "--quiet")
    done = meloformer("train", shards, *words)
    assert done.returncode == 130
    assert "without a checkpoint; go on with: meloformer train shards --out run --resume" in done.stderr

"""Training: it learns, and it leaves what a run should leave."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from meloformer.errors import CheckpointError, OutputError
from meloformer.generation.generate import generate
from meloformer.model.meloformer import MeloFormer
from meloformer.model.weights import newest_good_checkpoint
from meloformer.settings import Settings
from meloformer.settings_file import load_settings
from meloformer.shards.store import open_shards
from meloformer.training import loop as loop_module
from meloformer.training.loop import train
from meloformer.training.loss import Evaluation, evaluate
from tests.training.runs import GOLDEN, checkpoints, losses_of, records_of, settings_with, weights_of


def test_losses_and_validation_are_those_of_the_golden_curve(
    tiny_shards: Path, tiny_settings: Settings, tmp_path: Path
) -> None:
    documents = open_shards(tiny_shards).split("train")
    assert hashlib.sha256(np.concatenate(list(documents)).tobytes()).hexdigest() == GOLDEN["ids_sha256"], (
        "the music changed, so the curve says nothing: write it again once the change is meant"
    )
    result = train(tiny_shards, tmp_path / "run", tiny_settings)
    assert losses_of(tmp_path / "run") == pytest.approx(GOLDEN["loss"], abs=1e-4)
    assert result.validation is not None
    assert result.validation.per_note == pytest.approx(GOLDEN["validation_nats_per_note"], abs=1e-3)
    assert result.step == result.total_steps == 6
    assert not result.interrupted


def test_a_run_leaves_its_settings_its_log_its_picture_and_its_checkpoints(
    tiny_shards: Path, tiny_settings: Settings, tmp_path: Path
) -> None:
    run = tmp_path / "runs/deep/run"
    result = train(tiny_shards, run, tiny_settings)
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoints", "loss.png", "metrics.jsonl", "settings.toml", "tensorboard", "vocab.json",
    ]  # fmt: skip
    assert checkpoints(run) == ["step-000003", "step-000006"]
    assert load_settings(run / "settings.toml") == settings_with(f"training.shards={tiny_shards}")
    steps = [record for record in records_of(run) if "loss" in record]
    assert [record["step"] for record in steps] == [1, 2, 3, 4, 5, 6]
    assert all(record["nats_per_note"] > record["loss"] for record in steps)
    validations = [record for record in records_of(run) if "validation" in record]
    assert [record["step"] for record in validations] == [3, 6]
    assert set(validations[0]["validation"]["by_type"]) >= {"chord", "instrument", "onset", "pitch", "duration"}
    said = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert said["validation"] == validations[-1]["validation"]
    assert not said["interrupted"]
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part")]


def test_training_outside_the_main_thread_works_without_signals(
    tiny_shards: Path, tiny_settings: Settings, tmp_path: Path
) -> None:
    results = []
    thread = threading.Thread(target=lambda: results.append(train(tiny_shards, tmp_path / "run", tiny_settings)))
    thread.start()
    thread.join()
    assert results[0].step == 6


def test_only_the_newest_checkpoints_stay(tiny_shards: Path, tmp_path: Path) -> None:
    train(tiny_shards, tmp_path / "run", settings_with("training.checkpoint_every=1", "training.keep_checkpoints=2"))
    assert checkpoints(tmp_path / "run") == ["step-000005", "step-000006"]


def test_accumulation_equals_a_larger_batch(tiny_shards: Path, tmp_path: Path) -> None:
    same = ("training.seq_len=64", "training.steps=3", "training.optimizer=adamw")
    train(tiny_shards, tmp_path / "large", settings_with(*same, "training.batch_size=4"))
    train(tiny_shards, tmp_path / "small", settings_with(*same, "training.batch_size=2", "training.accumulation=2"))
    assert losses_of(tmp_path / "large") == pytest.approx(losses_of(tmp_path / "small"), abs=1e-4)


def test_a_model_learns_what_can_be_learnt(tiny_shards: Path, tmp_path: Path) -> None:
    settings = settings_with("training.steps=25", "training.learning_rate=0.01", "training.eval_every=25")
    result = train(tiny_shards, tmp_path / "run", settings)
    losses = losses_of(tmp_path / "run")
    assert result.baseline is not None
    assert result.validation is not None
    assert losses[-1] < losses[0] - 1
    assert result.validation.per_token < result.baseline.per_token


def test_an_existing_run_is_not_overwritten(tiny_shards: Path, tiny_settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="exists already; go on with --resume"):
        train(tiny_shards, tmp_path, tiny_settings)
    assert (tmp_path / "file").read_text() == "mine"


def test_weights_of_another_run_are_what_a_run_starts_from(tiny_shards: Path, tmp_path: Path) -> None:
    train(tiny_shards, tmp_path / "base", settings_with("training.steps=20"))
    settings = settings_with(f"training.init={tmp_path / 'base'}", "training.steps=1", "training.learning_rate=1e-9")
    train(tiny_shards, tmp_path / "tuned", settings)
    assert losses_of(tmp_path / "tuned")[0] < losses_of(tmp_path / "base")[0] - 0.5
    for name, tensor in weights_of(tmp_path / "tuned").items():
        assert torch.allclose(tensor, weights_of(tmp_path / "base")[name], atol=1e-6), name
    other = settings_with(f"training.init={tmp_path / 'base'}", "model.dim=64")
    with pytest.raises(CheckpointError, match=r"has model\.dim = 32, not 64; leave out --size"):
        train(tiny_shards, tmp_path / "other", other)
    assert not (tmp_path / "other").exists()


def test_the_settings_of_a_run_reproduce_it(tiny_shards: Path, tmp_path: Path) -> None:
    train(tiny_shards, tmp_path / "first", settings_with("training.seed=5", "training.velocity_bins=2"))
    settings = load_settings(tmp_path / "first/settings.toml")
    train(settings.training.shards, tmp_path / "second", settings)
    assert losses_of(tmp_path / "second") == losses_of(tmp_path / "first")
    assert (tmp_path / "second/settings.toml").read_text() == (tmp_path / "first/settings.toml").read_text()


def test_the_best_checkpoint_stays_beside_the_newest(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factors = iter([3, 2, 1, 2, 3, 4, 5])

    def worse_after_the_third(*arguments: Any) -> Evaluation:
        found = evaluate(*arguments)
        return Evaluation(found.loss_sum * next(factors), found.num_targets)

    monkeypatch.setattr(loop_module, "evaluate", worse_after_the_third)
    every = (
        "training.steps=7",
        "training.eval_every=100",
        "training.checkpoint_every=1",
        "training.keep_checkpoints=2",
    )
    result = train(tiny_shards, tmp_path / "run", settings_with(*every))
    assert result.best == tmp_path / "run/checkpoints/step-000003"
    assert checkpoints(tmp_path / "run") == ["step-000003", "step-000006", "step-000007"]
    assert newest_good_checkpoint(tmp_path / "run")[0].name == "step-000007"


def test_samples_are_asked_for_and_change_nothing(tiny_shards: Path, tmp_path: Path) -> None:
    asked: list[str] = []

    def sampler(model: MeloFormer, path: Path) -> None:
        generate(model.eval(), bars=1)
        asked.append(str(path.relative_to(tmp_path)))

    train(tiny_shards, tmp_path / "run", settings_with("training.sample_every=4"), sampler=sampler)
    assert asked == ["run/samples/step-000004.mid"]
    assert losses_of(tmp_path / "run") == pytest.approx(GOLDEN["loss"], abs=1e-4)


def test_what_is_logged_is_there_for_tensorboard_too(
    tiny_shards: Path, tiny_settings: Settings, tmp_path: Path
) -> None:
    train(tiny_shards, tmp_path / "run", tiny_settings)
    (events,) = (tmp_path / "run/tensorboard").iterdir()
    content = events.read_bytes()
    for name in (b"train/loss", b"train/data_wait", b"validation/nats_per_note", b"validation_by_type/pitch"):
        assert name in content
    steps = [record for record in records_of(tmp_path / "run") if "loss" in record]
    assert all(0 <= record["data_wait"] < 1 for record in steps)

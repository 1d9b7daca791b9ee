"""Training: it learns, it resumes bit for bit, and it says what is wrong."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from meloformer.errors import CheckpointError, InputError, MeloFormerError, OutputError, ShardError
from meloformer.model.weights import load
from meloformer.settings import Settings, load_settings
from meloformer.training.loop import train
from meloformer.training.loss import Evaluation
from meloformer.training.plan import describe, make_plan
from tests.training.conftest import TINY

GOLDEN_LOSSES = [6.61357, 6.51446, 6.3842, 6.21831, 6.17126, 6.14264]


def settings_with(*changes: str) -> Settings:
    return load_settings(None, [*TINY, *changes])


def losses_of(run: Path) -> list[float]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load(run).state_dict()


def test_the_golden_loss_curve(tiny_shards: Path, tiny_settings: Settings, tmp_path: Path) -> None:
    result = train(tiny_shards, tmp_path / "run", tiny_settings)
    assert losses_of(tmp_path / "run") == pytest.approx(GOLDEN_LOSSES, abs=2e-4)
    assert result.step == result.total_steps == 6
    assert not result.interrupted
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "checkpoints", "loss.png", "metrics.jsonl", "settings.toml", "vocab.json",
    ]  # fmt: skip
    assert [path.name for path in sorted((tmp_path / "run/checkpoints").iterdir())] == ["step-000003", "step-000006"]


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_resumed_run_equals_an_undisturbed_one_bit_for_bit(tiny_shards: Path, tmp_path: Path, optimizer: str) -> None:
    settings = settings_with(f"training.optimizer={optimizer}", "training.accumulation=2", "training.steps=8")
    train(tiny_shards, tmp_path / "straight", settings)

    class StopAfter:
        def on_start(self, total_steps: int, first_step: int) -> None:
            pass

        def on_step(self, step: int, metrics: dict[str, float]) -> None:  # noqa: ARG002
            if step == 5:
                os.kill(os.getpid(), signal.SIGINT)

        def on_evaluation(self, step: int, validation: Evaluation) -> None:
            pass

    stopped = train(tiny_shards, tmp_path / "stopped", settings, observer=StopAfter())
    assert stopped.interrupted
    assert stopped.step == 5
    assert train(tiny_shards, tmp_path / "stopped", settings, resume=True).step == 8
    assert losses_of(tmp_path / "stopped") == losses_of(tmp_path / "straight")
    straight, resumed = weights_of(tmp_path / "straight"), weights_of(tmp_path / "stopped")
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_a_damaged_newest_checkpoint_is_passed_over(tiny_shards: Path, tiny_settings: Settings, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(tiny_shards, run, tiny_settings)
    before = weights_of(run)
    (run / "checkpoints/step-000006/optimizer.safetensors").write_bytes(b"cut")
    with pytest.warns(UserWarning, match="passed over"):
        train(tiny_shards, run, tiny_settings, resume=True)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights_of(run).items())
    assert len(losses_of(run)) == 6


def test_only_the_newest_checkpoints_stay(tiny_shards: Path, tmp_path: Path) -> None:
    train(tiny_shards, tmp_path / "run", settings_with("training.checkpoint_every=1", "training.keep_checkpoints=2"))
    names = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert names == ["step-000005", "step-000006"]


def test_accumulation_equals_a_larger_batch(tiny_shards: Path, tmp_path: Path) -> None:
    same = ("training.seq_len=64", "training.steps=3", "training.optimizer=adamw")
    train(tiny_shards, tmp_path / "large", settings_with(*same, "training.batch_size=4"))
    train(tiny_shards, tmp_path / "small", settings_with(*same, "training.batch_size=2", "training.accumulation=2"))
    assert losses_of(tmp_path / "large") == pytest.approx(losses_of(tmp_path / "small"), abs=1e-3)


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


def test_what_cannot_be_resumed_is_refused_with_both_values(
    tiny_shards: Path, tiny_settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        train(tiny_shards, tmp_path / "none", tiny_settings, resume=True)
    train(tiny_shards, tmp_path / "run", tiny_settings)
    with pytest.raises(CheckpointError, match=r"model\.dim = 32, not 64"):
        train(tiny_shards, tmp_path / "run", settings_with("model.dim=64", "training.steps=9"), resume=True)


def test_shards_that_cannot_be_trained_on_are_refused(
    tiny_shards: Path, tiny_settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="meloformer pack"):
        train(tmp_path / "none", tmp_path / "run", tiny_settings)
    with pytest.raises(ShardError, match="holds no shards"):
        train(tmp_path, tmp_path / "run", tiny_settings)
    assert not (tmp_path / "run").exists()
    assert tiny_shards.exists()


def test_a_loss_that_is_not_finite_ends_the_run(tiny_shards: Path, tmp_path: Path) -> None:
    with pytest.raises(MeloFormerError, match=r"the loss is (nan|inf)"):
        train(tiny_shards, tmp_path / "run", settings_with("training.learning_rate=1e30", "training.clip_norm=1e30"))


def test_a_plan_counts_what_the_run_will_do(tiny_shards: Path) -> None:
    settings = settings_with("training.epochs=2")
    settings = settings.model_copy(update={"training": settings.training.model_copy(update={"steps": None})})
    plan = make_plan(tiny_shards, settings)
    facts = describe(plan, settings)
    assert facts["tokens_per_epoch"] == sum(len(ids) - 1 for ids in plan.shards.split("train"))
    assert facts["steps"] == 2 * plan.training.num_batches(0)
    assert facts["parameters"]["total"] > 0

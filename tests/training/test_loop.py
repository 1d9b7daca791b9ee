"""Training: it learns, it resumes bit for bit, and it says what is wrong."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import threading
import tomllib
from collections.abc import Sequence
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch

from meloformer.bench.music import practice_piece
from meloformer.errors import CheckpointError, InputError, MeloFormerError, OutputError, ShardError
from meloformer.generation.generate import generate
from meloformer.midi.write import write_midi
from meloformer.model.meloformer import MeloFormer
from meloformer.model.weights import load, newest_good_checkpoint
from meloformer.settings import Settings
from meloformer.settings_file import load_settings
from meloformer.shards.format import Shard
from meloformer.shards.pipeline import pack_pieces
from meloformer.shards.store import open_shards
from meloformer.training import checkpoint as checkpoint_module
from meloformer.training import loop as loop_module
from meloformer.training import step as step_module
from meloformer.training.loop import train
from meloformer.training.loss import Evaluation, evaluate
from tests.training.conftest import TINY

GOLDEN = json.loads(Path(__file__).with_name("golden_loss.json").read_text())


def settings_with(*changes: str) -> Settings:
    return load_settings(None, [*TINY, *changes])


def records_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses_of(run: Path) -> list[float]:
    return [record["loss"] for record in records_of(run) if "loss" in record]


TIMES = ("tokens_per_second", "data_wait")


def without_times(run: Path) -> list[dict[str, Any]]:
    return [{name: record[name] for name in record if name not in TIMES} for record in records_of(run)]


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load(run).state_dict()


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


class SignalAt:
    """Sends a signal to this process when a step, or the validation after it, is done."""

    def __init__(self, step: int, *, after_validation: bool = False, number: int = signal.SIGINT) -> None:
        self.step = step
        self.after_validation = after_validation
        self.number = number

    def on_start(self, total_steps: int, first_step: int) -> None:  # noqa: ARG002
        if self.step == first_step == 0:
            os.kill(os.getpid(), self.number)

    def on_step(self, step: int, metrics: dict[str, float]) -> None:  # noqa: ARG002
        if step == self.step and not self.after_validation:
            os.kill(os.getpid(), self.number)

    def on_evaluation(self, step: int, validation: Evaluation) -> None:  # noqa: ARG002
        if step == self.step and self.after_validation:
            os.kill(os.getpid(), self.number)

    def on_damage(self, message: str) -> None: ...


def test_the_golden_loss_curve(tiny_shards: Path, tiny_settings: Settings, tmp_path: Path) -> None:
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


@pytest.mark.parametrize(("optimizer", "number"), [("muon", signal.SIGINT), ("adamw", signal.SIGTERM)])
def test_a_resumed_run_equals_an_undisturbed_one_bit_for_bit(
    tiny_shards: Path, tmp_path: Path, optimizer: str, number: int
) -> None:
    settings = settings_with(f"training.optimizer={optimizer}", "training.accumulation=2", "training.steps=8")
    train(tiny_shards, tmp_path / "straight", settings)
    stopped = train(tiny_shards, tmp_path / "stopped", settings, observer=SignalAt(5, number=number))
    assert stopped.interrupted
    assert stopped.step == 5
    assert checkpoints(tmp_path / "stopped")[-1] == "step-000005"
    assert train(tiny_shards, tmp_path / "stopped", settings, resume=True).step == 8
    assert without_times(tmp_path / "stopped") == without_times(tmp_path / "straight")
    straight, resumed = weights_of(tmp_path / "straight"), weights_of(tmp_path / "stopped")
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_a_signal_during_validation_loses_no_step(tiny_shards: Path, tmp_path: Path) -> None:
    settings = settings_with("training.eval_every=2", "training.checkpoint_every=100")
    result = train(tiny_shards, tmp_path / "run", settings, observer=SignalAt(4, after_validation=True))
    assert result.step == 4
    assert checkpoints(tmp_path / "run") == ["step-000004"]


def test_a_run_that_was_stopped_before_its_first_step_can_be_resumed(
    tiny_shards: Path, tiny_settings: Settings, tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):  # the loop listens from its first step on; before, nothing is to be saved
        train(tiny_shards, tmp_path / "run", tiny_settings, observer=SignalAt(0))
    assert signal.getsignal(signal.SIGINT) is before
    assert train(tiny_shards, tmp_path / "run", tiny_settings, resume=True).step == 6
    assert losses_of(tmp_path / "run") == pytest.approx(GOLDEN["loss"], abs=1e-4)


def test_training_outside_the_main_thread_works_without_signals(
    tiny_shards: Path, tiny_settings: Settings, tmp_path: Path
) -> None:
    results = []
    thread = threading.Thread(target=lambda: results.append(train(tiny_shards, tmp_path / "run", tiny_settings)))
    thread.start()
    thread.join()
    assert results[0].step == 6


def test_a_run_can_be_made_longer_and_its_settings_say_so(tiny_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(tiny_shards, run, settings_with("training.steps=3"))
    result = train(tiny_shards, run, settings_with("training.steps=5", "training.learning_rate=0.001"), resume=True)
    assert result.step == 5
    assert len(losses_of(run)) == 5
    assert tomllib.loads((run / "settings.toml").read_text())["training"]["steps"] == 5


def test_resuming_a_run_that_has_ended_says_how_it_stands(
    tiny_shards: Path, tiny_settings: Settings, tmp_path: Path
) -> None:
    first = train(tiny_shards, tmp_path / "run", tiny_settings)
    log = (tmp_path / "run/metrics.jsonl").read_text()
    again = train(tiny_shards, tmp_path / "run", tiny_settings, resume=True)
    assert not again.interrupted
    assert again.to_dict()["loss"] is None
    assert first.validation is not None
    assert again.to_dict()["validation"] == first.validation.to_dict()
    assert (tmp_path / "run/metrics.jsonl").read_text() == log


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


def test_what_cannot_be_resumed_is_refused_with_both_values(
    tiny_shards: Path, tiny_settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"no run to resume at .*none"):
        train(tiny_shards, tmp_path / "none", tiny_settings, resume=True)
    train(tiny_shards, tmp_path / "run", tiny_settings)
    with pytest.raises(CheckpointError, match=r"model\.dim = 32, not 64"):
        train(tiny_shards, tmp_path / "run", settings_with("model.dim=64", "training.steps=9"), resume=True)
    with pytest.raises(CheckpointError, match=r"model\.size = tiny, not small"):
        train(tiny_shards, tmp_path / "run", settings_with("model.size=small"), resume=True)
    with pytest.raises(CheckpointError, match=r"training\.seed = 0, not 1"):
        train(tiny_shards, tmp_path / "run", settings_with("training.seed=1"), resume=True)
    assert load_settings(tmp_path / "run/settings.toml") == settings_with(f"training.shards={tiny_shards}")


def test_shards_that_cannot_be_trained_on_are_refused(
    tiny_shards: Path, tiny_settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="meloformer pack"):
        train(tmp_path / "none", tmp_path / "run", tiny_settings)
    with pytest.raises(ShardError, match="holds no shards"):
        train(tmp_path, tmp_path / "run", tiny_settings)
    assert not (tmp_path / "run").exists()
    assert tiny_shards.exists()


def test_ten_steps_in_a_row_that_are_not_finite_end_the_run_and_the_last_good_checkpoint_is_named(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    original = step_module.target_losses

    def bad_from_the_seventh_on(*arguments: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return original(*arguments) * (torch.nan if calls > 6 else 1)

    monkeypatch.setattr(step_module, "target_losses", bad_from_the_seventh_on)
    settings = settings_with("training.steps=30", "training.checkpoint_every=4", "training.eval_every=30")
    with pytest.raises(MeloFormerError, match=r"the loss is nan.*10 steps in a row.*step-000004, with --resume"):
        train(tiny_shards, tmp_path / "run", settings)
    assert checkpoints(tmp_path / "run") == ["step-000004"]
    assert len(losses_of(tmp_path / "run")) == 6


def test_one_bad_step_is_counted_and_the_run_goes_on(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    original = step_module.target_losses

    def once_bad(*arguments: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return original(*arguments) * (torch.inf if calls == 3 else 1)

    monkeypatch.setattr(step_module, "target_losses", once_bad)
    result = train(tiny_shards, tmp_path / "run", settings_with())
    assert (result.step, result.skipped) == (6, 1)
    assert len(losses_of(tmp_path / "run")) == 5


def test_max_hours_ends_a_run_with_a_checkpoint_and_it_can_go_on(tiny_shards: Path, tmp_path: Path) -> None:
    first = train(tiny_shards, tmp_path / "run", settings_with("training.steps=100000", "training.max_hours=0.0002"))
    assert 0 < first.step < 100_000
    assert not first.interrupted
    assert checkpoints(tmp_path / "run")[-1] == f"step-{first.step:06d}"
    again = settings_with(f"training.steps={first.step + 2}", "training.max_hours=1")
    assert train(tiny_shards, tmp_path / "run", again, resume=True).step == first.step + 2


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


def test_how_attention_is_computed_may_change_when_a_run_goes_on(tiny_shards: Path, tmp_path: Path) -> None:
    train(tiny_shards, tmp_path / "run", settings_with("training.steps=3"))
    how = settings_with("training.steps=4", "model.attention=sparse", "model.checkpointing=full")
    assert train(tiny_shards, tmp_path / "run", how, resume=True).step == 4


def test_half_precision_goes_on_with_the_scale_that_it_had(tiny_shards: Path, tmp_path: Path) -> None:
    half = ("training.precision=fp16", "training.steps=6", "training.checkpoint_every=3")
    train(tiny_shards, tmp_path / "whole", settings_with(*half))
    train(tiny_shards, tmp_path / "parts", settings_with(*half), observer=SignalAt(3))
    train(tiny_shards, tmp_path / "parts", settings_with(*half), resume=True)
    for name, tensor in weights_of(tmp_path / "parts").items():
        assert torch.equal(tensor, weights_of(tmp_path / "whole")[name]), name
    state = json.loads((tmp_path / "parts/checkpoints/step-000006/state.json").read_text())
    assert state["position"]["scaler"]["scale"] > 0


def test_a_run_does_not_go_on_with_other_data(tiny_shards: Path, tiny_settings: Settings, tmp_path: Path) -> None:
    train(tiny_shards, tmp_path / "run", tiny_settings)
    write_midi(practice_piece(99, num_bars=8), tmp_path / "other.mid")
    only_training = load_settings(None, [*TINY, "pack.val_share=0"])
    pack_pieces([tmp_path / "other.mid"], tmp_path / "other", only_training)
    with pytest.raises(CheckpointError, match="was made with training data = "):
        train(tmp_path / "other", tmp_path / "run", settings_with("training.steps=9"), resume=True)


def test_a_run_cannot_be_resumed_to_fewer_steps_than_it_has_taken(tiny_shards: Path, tmp_path: Path) -> None:
    train(tiny_shards, tmp_path / "run", settings_with())
    before = (tmp_path / "run/settings.toml").read_text()
    with pytest.raises(CheckpointError, match="has taken 6 steps already, more than 2"):
        train(tiny_shards, tmp_path / "run", settings_with("training.steps=2"), resume=True)
    assert (tmp_path / "run/settings.toml").read_text() == before


def damage(shards: Path, documents: Sequence[int]) -> None:
    """Turn over a byte in the middle of the frames of some training documents."""
    path = shards / "train-00000.hid.zst"
    shard, data = Shard(path), bytearray(path.read_bytes())
    for number in documents:
        data[shard.offsets[number] + (shard.offsets[number + 1] - shard.offsets[number]) // 2] ^= 0xFF
    path.write_bytes(data)


class DamageAt(SignalAt):
    """Damages documents when a step is done, and keeps what is told of them."""

    def __init__(self, step: int, shards: Path, documents: Sequence[int]) -> None:
        super().__init__(-1)
        self.at, self.shards, self.documents = step, shards, documents
        self.told: list[str] = []

    def on_step(self, step: int, metrics: dict[str, float]) -> None:  # noqa: ARG002
        if step == self.at:
            damage(self.shards, self.documents)

    def on_damage(self, message: str) -> None:
        self.told.append(message)


def test_a_document_that_is_damaged_under_a_running_job_is_named_counted_and_left_out(
    tiny_shards: Path, tmp_path: Path
) -> None:
    shards = Path(copytree(tiny_shards, tmp_path / "shards"))
    settings = settings_with("training.steps=12")
    watcher = DamageAt(2, shards, [1, 4])
    result = train(shards, tmp_path / "run", settings, observer=watcher)
    assert (result.step, result.damaged) == (12, 2)
    assert sorted("document 1: " in text for text in watcher.told) == [False, True]
    assert all("train-00000.hid.zst, document" in text for text in watcher.told)
    assert [record["damaged"] for record in records_of(tmp_path / "run") if "damaged" in record] == watcher.told
    again = train(shards, tmp_path / "again", settings)  # the same damage from the start: the same from then on
    assert again.damaged == 2
    longer = settings_with("training.steps=14")
    assert train(shards, tmp_path / "run", longer, resume=True).step == 14


def test_a_shard_that_is_cut_short_under_a_running_job_does_not_end_the_process(
    tiny_shards: Path, tmp_path: Path
) -> None:
    shards = Path(copytree(tiny_shards, tmp_path / "shards"))

    class Cut(DamageAt):
        def on_step(self, step: int, metrics: dict[str, float]) -> None:  # noqa: ARG002
            if step == self.at:
                os.truncate(shards / "train-00000.hid.zst", 100)

    watcher = Cut(3, shards, [])
    settings = settings_with("training.steps=20", "training.max_damaged=3", "training.checkpoint_every=100")
    with pytest.raises(
        ShardError, match=r"4 documents are damaged, more than training.max_damaged = 3; the last: .*cut"
    ):
        train(shards, tmp_path / "run", settings, observer=watcher)
    assert len(watcher.told) <= 3
    (saved,) = checkpoints(tmp_path / "run")
    assert int(saved.removeprefix("step-")) == len(losses_of(tmp_path / "run")) >= 3


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


def test_a_full_disk_in_the_middle_of_a_checkpoint_leaves_the_one_before(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = checkpoint_module.write_tensors

    def fill(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
        if "step-000006" in str(path):
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(path, tensors, metadata)

    monkeypatch.setattr(checkpoint_module, "write_tensors", fill)
    with pytest.raises(OutputError, match=r"cannot write the checkpoint .*step-000006: No space left.*with --resume"):
        train(tiny_shards, tmp_path / "run", settings_with())
    assert checkpoints(tmp_path / "run") == ["step-000003"]
    monkeypatch.undo()
    assert train(tiny_shards, tmp_path / "run", settings_with(), resume=True).step == 6
    assert losses_of(tmp_path / "run") == pytest.approx(GOLDEN["loss"], abs=1e-4)


def test_a_resumed_run_keeps_the_size_of_its_steps(tiny_shards: Path, tmp_path: Path) -> None:
    train(tiny_shards, tmp_path / "run", settings_with())
    other = settings_with("training.steps=8", "training.batch_size=1", "training.accumulation=1")
    with pytest.warns(UserWarning, match="a step stays 2 rows, as the run began, and does not become 1"):
        train(tiny_shards, tmp_path / "run", other, resume=True)
    state = json.loads((tmp_path / "run/checkpoints/step-000008/state.json").read_text())
    assert (state["position"]["row"], state["position"]["rows_per_step"]) == (16, 2)

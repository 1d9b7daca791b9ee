"""A run that was stopped goes on as if it had not been, or says why it cannot."""

from __future__ import annotations

import signal
import tomllib
from pathlib import Path

import pytest
import torch

from meloformer.bench.music import practice_piece
from meloformer.errors import CheckpointError, InputError
from meloformer.midi.write import write_midi
from meloformer.settings import Settings
from meloformer.settings_file import load_settings
from meloformer.shards.pipeline import pack_pieces
from meloformer.training import loop as loop_module
from meloformer.training.loop import train
from tests.training.conftest import TINY
from tests.training.runs import (
    GOLDEN,
    SignalAt,
    checkpoints,
    losses_of,
    position_of,
    settings_with,
    weights_of,
    without_times,
)


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


class HoursPass(SignalAt):
    """A clock on which hours pass when a step is done, and a millisecond whenever somebody looks."""

    def __init__(self, step: int, hours: float) -> None:
        super().__init__(-1)
        self.at, self.hours, self.seconds = step, hours, 0.0

    def monotonic(self) -> float:
        self.seconds += 0.001
        return self.seconds

    def on_step(self, step: int, metrics: dict[str, float]) -> None:  # noqa: ARG002
        self.seconds += 3600 * self.hours if step == self.at else 0


def test_max_hours_ends_a_run_with_a_checkpoint_and_it_can_go_on(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HoursPass(4, 2)
    monkeypatch.setattr(loop_module, "time", clock)
    first = train(tiny_shards, tmp_path / "run", settings_with("training.max_hours=2"), observer=clock)
    assert (first.step, first.interrupted) == (4, False)
    assert checkpoints(tmp_path / "run")[-1] == "step-000004"
    again = train(tiny_shards, tmp_path / "run", settings_with("training.max_hours=2"), resume=True)
    assert (again.step, again.interrupted) == (6, False)


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
    assert position_of(tmp_path / "parts")["scaler"]["scale"] > 0


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


def test_a_resumed_run_keeps_the_size_of_its_steps(tiny_shards: Path, tmp_path: Path) -> None:
    train(tiny_shards, tmp_path / "run", settings_with())
    other = settings_with("training.steps=8", "training.batch_size=1", "training.accumulation=1")
    with pytest.warns(UserWarning, match="a step stays 2 rows, as the run began, and does not become 1"):
        train(tiny_shards, tmp_path / "run", other, resume=True)
    position = position_of(tmp_path / "run")
    assert (position["step"], position["row"], position["rows_per_step"]) == (8, 16, 2)

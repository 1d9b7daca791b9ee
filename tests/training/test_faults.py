"""Bad shards, bad numbers and bad disks: what is lost is told, and what is left is saved."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from shutil import copytree

import pytest
import torch

from meloformer.errors import InputError, MeloFormerError, OutputError, ShardError
from meloformer.settings import Settings
from meloformer.training import checkpoint as checkpoint_module
from meloformer.training import step as step_module
from meloformer.training.loop import train
from tests.training.runs import GOLDEN, DamageAt, checkpoints, losses_of, records_of, settings_with, weights_of


def test_a_damaged_newest_checkpoint_is_passed_over(tiny_shards: Path, tiny_settings: Settings, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(tiny_shards, run, tiny_settings)
    before = weights_of(run)
    (run / "checkpoints/step-000006/optimizer.safetensors").write_bytes(b"cut")
    with pytest.warns(UserWarning, match="passed over"):
        train(tiny_shards, run, tiny_settings, resume=True)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights_of(run).items())
    assert len(losses_of(run)) == 6


def test_shards_that_cannot_be_trained_on_are_refused(
    tiny_shards: Path, tiny_settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="meloformer pack"):
        train(tmp_path / "none", tmp_path / "run", tiny_settings)
    with pytest.raises(ShardError, match="holds no shards"):
        train(tmp_path, tmp_path / "run", tiny_settings)
    assert not (tmp_path / "run").exists()
    assert tiny_shards.exists()


def spoil_losses(monkeypatch: pytest.MonkeyPatch, factor_of: Callable[[int], float]) -> None:
    """Multiply the losses of the first, second, ... pass."""
    calls = count(1)
    original = step_module.target_losses
    monkeypatch.setattr(step_module, "target_losses", lambda *given: original(*given) * factor_of(next(calls)))


def test_ten_steps_in_a_row_that_are_not_finite_end_the_run_and_the_last_good_checkpoint_is_named(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_losses(monkeypatch, lambda call: torch.nan if call > 6 else 1)
    settings = settings_with("training.steps=30", "training.checkpoint_every=4", "training.eval_every=30")
    with pytest.raises(MeloFormerError, match=r"the loss is nan.*10 steps in a row.*step-000004, with --resume"):
        train(tiny_shards, tmp_path / "run", settings)
    assert checkpoints(tmp_path / "run") == ["step-000004"]
    assert len(losses_of(tmp_path / "run")) == 6


def test_one_bad_step_is_counted_and_the_run_goes_on(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_losses(monkeypatch, lambda call: torch.inf if call == 3 else 1)
    result = train(tiny_shards, tmp_path / "run", settings_with())
    assert (result.step, result.skipped) == (6, 1)
    assert len(losses_of(tmp_path / "run")) == 5


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

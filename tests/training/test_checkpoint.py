"""Checkpoints are whole or not there, and go back only where they belong."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from meloformer.errors import CheckpointError, OutputError
from meloformer.model.meloformer import MeloFormer
from meloformer.model.weights import newest_good_checkpoint
from meloformer.settings import ModelSettings, TrainingSettings
from meloformer.tokens.vocabulary import Vocabulary
from meloformer.training.checkpoint import Position, clear_left_overs, load_checkpoint, save_checkpoint
from meloformer.training.optimizer import Optimizers, make_optimizers

FACTS = {"training.seed": 3}


def fresh(vocabulary: Vocabulary | None = None) -> tuple[MeloFormer, Optimizers]:
    model = MeloFormer(ModelSettings.of_size("tiny", num_layers=1, dim=16, ffn_dim=16), vocabulary)
    return model, make_optimizers(model, TrainingSettings(optimizer="muon"))


def stepped() -> tuple[MeloFormer, Optimizers]:
    """A model whose optimisers remember something."""
    model, optimizers = fresh()
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    for optimizer in optimizers.values():
        optimizer.step()
    return model, optimizers


def save(run: Path, step: int, *, keep: int = 3) -> Path:
    return save_checkpoint(run, *stepped(), Position(step, 28, 4), keep=keep, facts=FACTS)


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_a_checkpoint_brings_back_weights_optimizers_position_and_chance(tmp_path: Path) -> None:
    model, optimizers = stepped()
    position = Position(step=7, row=28, rows_per_step=4)
    save_checkpoint(tmp_path, model, optimizers, position, keep=1, facts=FACTS)
    drawn = torch.rand(3)
    other, other_optimizers = fresh()
    assert load_checkpoint(tmp_path, other, other_optimizers, facts=FACTS) == position
    assert torch.equal(torch.rand(3), drawn)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    for name, optimizer in optimizers.items():
        wanted, found = optimizer.state_dict()["state"], other_optimizers[name].state_dict()["state"]
        assert wanted.keys() == found.keys()
        assert all(torch.equal(wanted[n][key], found[n][key]) for n in wanted for key in wanted[n])


def test_a_checkpoint_holds_three_files_and_names_what_the_optimizers_remember(tmp_path: Path) -> None:
    folder = save(tmp_path, 7)
    assert folder == tmp_path / "checkpoints/step-000007"
    assert sorted(path.name for path in folder.iterdir()) == [
        "model.safetensors", "optimizer.safetensors", "state.json",
    ]  # fmt: skip
    tensors = load_file(folder / "optimizer.safetensors")
    assert "muon/layers.0.ffn.up.weight/momentum_buffer" in tensors
    assert "adamw/token_embedding.weight/exp_avg_sq" in tensors
    state = json.loads((folder / "state.json").read_text())
    assert state["position"] == {"step": 7, "row": 28, "rows_per_step": 4, "skipped": 0, "scaler": None}
    assert set(state["sha256"]) == {"model.safetensors", "optimizer.safetensors"}


@pytest.fixture
def file_size_limit() -> Iterator[Callable[[int], None]]:
    """Files cannot grow past a limit: to the writer it is like a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda count: resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_leaves_the_earlier_checkpoint_and_nothing_half_written(
    tmp_path: Path, file_size_limit: Callable[[int], None]
) -> None:
    save(tmp_path, 1)
    file_size_limit(20_000)
    with pytest.raises(OutputError, match=r"cannot write the checkpoint .*step-000002.*--resume"):
        save(tmp_path, 2, keep=1)
    assert names(tmp_path) == ["step-000001"]
    assert newest_good_checkpoint(tmp_path)[0].name == "step-000001"


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "checkpoints/.step-000002.99.part").mkdir()
    clear_left_overs(tmp_path)
    assert names(tmp_path) == ["step-000001"]


def test_the_oldest_go_first_and_the_one_just_written_stays(tmp_path: Path) -> None:
    for step in (999_998, 999_999, 1_000_000):
        save(tmp_path, step, keep=2)
    assert names(tmp_path) == ["step-1000000", "step-999999"]
    assert newest_good_checkpoint(tmp_path)[0].name == "step-1000000"
    save(tmp_path, 5, keep=1)  # a run that went on from an earlier checkpoint than the newest
    assert names(tmp_path) == ["step-000005", "step-1000000", "step-999999"]


def test_a_damaged_checkpoint_is_replaced_when_its_step_comes_again(tmp_path: Path) -> None:
    folder = save(tmp_path, 4)
    (folder / "state.json").write_text("{")
    again = save(tmp_path, 4)
    assert newest_good_checkpoint(tmp_path)[0] == again == folder


def changed(folder: Path, **changes: Any) -> None:
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({**state, **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 99}, r"has version 99, this program reads version 2; resume with the MeloFormer that wrote it"),
        ({"vocabulary_sha256": "abc"}, r"has vocabulary abc, the shards have [0-9a-f]{64}; resume with the shards"),
        ({"facts": {"training.seed": 4}}, r"was made with training\.seed = 4, not 3; resume with the data"),
        ({"position": {"pace": 1}}, r"state\.json is damaged"),
        ({"position": None}, r"state\.json is damaged"),
    ],
)
def test_what_does_not_belong_is_refused_with_both_values(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    changed(save(tmp_path, 1), **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path, *fresh(), facts=FACTS)


def test_where_every_checkpoint_is_damaged_the_run_is_not_begun_anew(tmp_path: Path) -> None:
    (save(tmp_path, 1) / "model.safetensors").write_bytes(b"cut")
    with pytest.warns(UserWarning, match="passed over"), pytest.raises(CheckpointError, match="no whole checkpoint"):
        load_checkpoint(tmp_path, *fresh(), facts=FACTS)

"""Weights on disk: exact, checked, and never a pickle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from meloformer.errors import CheckpointError, InputError, SettingsError
from meloformer.model.batch import Batch
from meloformer.model.device import choose_device
from meloformer.model.meloformer import MeloFormer
from meloformer.model.weights import load, load_weights, save_weights, sha256_of
from meloformer.settings import ModelSettings
from meloformer.tokens.vocabulary import Vocabulary


@pytest.fixture
def model() -> MeloFormer:
    torch.manual_seed(0)
    pruned = Vocabulary.default().pruned(np.arange(744) % 3)
    return MeloFormer(ModelSettings.of_size("tiny", num_layers=1, dim=16, ffn_dim=24, rope="time"), pruned)


def checkpoint(run: Path, step: int, model: MeloFormer) -> Path:
    folder = run / "checkpoints" / f"step-{step:06d}"
    folder.mkdir(parents=True)
    save_weights(model, folder / "model.safetensors")
    state = {"step": step, "sha256": {"model.safetensors": sha256_of(folder / "model.safetensors")}}
    (folder / "state.json").write_text(json.dumps(state))
    return folder


def test_a_model_survives_its_file(model: MeloFormer, tmp_path: Path) -> None:
    save_weights(model, tmp_path / "model.safetensors")
    loaded = load_weights(tmp_path / "model.safetensors")
    assert loaded.settings == model.settings
    assert loaded.vocabulary == model.vocabulary
    assert not loaded.training
    batch = Batch.of([np.array([1, 7, 9])], model.vocabulary)
    assert torch.equal(loaded(batch), model.eval()(batch))
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_of_a_run_the_newest_whole_checkpoint_is_loaded(model: MeloFormer, tmp_path: Path) -> None:
    checkpoint(tmp_path, 5, model)
    with torch.no_grad():
        model.summary_embedding.fill_(3)
    newest = checkpoint(tmp_path, 10, model)
    assert load(tmp_path).summary_embedding[0] == 3
    assert load(newest).summary_embedding[0] == 3
    data = bytearray((newest / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (newest / "model.safetensors").write_bytes(data)
    with pytest.warns(UserWarning, match="it is damaged"):
        assert load(tmp_path).summary_embedding[0] != 3
    with pytest.raises(CheckpointError, match="it is damaged"):
        load(newest)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no weights at"):
        load(tmp_path / "none")
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        load(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"hello")
    with pytest.raises(CheckpointError, match="damaged or no safetensors"):
        load(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="holds no MeloFormer weights"):
        load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors, _: tensors.pop("norm.weight"), "lacks the tensor norm.weight"),
        (lambda tensors, _: tensors.update(extra=torch.zeros(1)), "a tensor extra"),
        (lambda tensors, _: tensors.update({"norm.weight": torch.zeros(3)}), r"has shape \(3,\), not \(16,\)"),
        (lambda _, metadata: metadata.update(version="9"), "has version '9'"),
        (lambda _, metadata: metadata.update(model="{}x"), "cannot read"),
        (lambda _, metadata: metadata.update(vocabulary="{}"), "cannot read"),
    ],
)
def test_weights_that_do_not_fit_are_refused(model: MeloFormer, tmp_path: Path, change, message: str) -> None:
    from safetensors import safe_open

    path = tmp_path / "model.safetensors"
    save_weights(model, path)
    with safe_open(path, framework="pt") as file:
        metadata, tensors = dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(tensors, metadata)
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(CheckpointError, match=message):
        load(path)


def test_a_device_that_is_not_there_is_refused() -> None:
    assert choose_device("cpu").type == "cpu"
    for name in ("cuda:99", "abacus"):
        with pytest.raises(SettingsError, match=name):
            choose_device(name)

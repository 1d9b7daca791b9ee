"""Weights on disk: exact, checked, and never a pickle."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from meloformer.errors import CheckpointError, InputError, SettingsError
from meloformer.model.batch import Batch
from meloformer.model.device import choose_device
from meloformer.model.meloformer import MeloFormer
from meloformer.model.weights import PACKAGED_WEIGHTS, checkpoints_of, load, load_weights, save_weights, sha256_of
from meloformer.settings import ModelSettings
from meloformer.tokens.vocabulary import Vocabulary


@pytest.fixture
def model() -> MeloFormer:
    torch.manual_seed(0)
    pruned = Vocabulary.default().pruned(np.arange(744) % 3)
    return MeloFormer(ModelSettings.of_size("tiny", num_layers=1, dim=16, ffn_dim=24, rope="both"), pruned)


def checkpoint(run: Path, step: int, model: MeloFormer) -> Path:
    folder = run / "checkpoints" / f"step-{step:06d}"
    folder.mkdir(parents=True)
    save_weights(model, folder / "model.safetensors")
    state = {"step": step, "sha256": {"model.safetensors": sha256_of(folder / "model.safetensors")}}
    (folder / "state.json").write_text(json.dumps(state))
    return folder


def test_a_model_survives_its_file(model: MeloFormer, tmp_path: Path) -> None:
    save_weights(model, tmp_path / "model.safetensors")
    assert load_weights(tmp_path / "model.safetensors").seq_len is None
    model.seq_len = 300
    save_weights(model, tmp_path / "model.safetensors")
    loaded = load_weights(tmp_path / "model.safetensors")
    assert loaded.seq_len == 300
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
    with pytest.warns(UserWarning, match=r"model\.safetensors is damaged"):
        assert load(tmp_path).summary_embedding[0] != 3
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        load(newest)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no weights at"):
        load(tmp_path / "none")
    with pytest.raises(InputError, match=r"is not a run of `meloformer train`; name a run such as runs/NAME"):
        load(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.toml").touch()
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        load(tmp_path / "run")
    (tmp_path / "run" / "state.json").write_text('{"sha256": {"model.safetensors": ""}}')
    with pytest.raises(CheckpointError, match=r"lacks model\.safetensors"):
        load(tmp_path / "run")
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"hello")
    with pytest.raises(CheckpointError, match="damaged or no safetensors"):
        load(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="holds no MeloFormer weights"):
        load(path)


def _with_model(metadata: dict[str, str], **changes: int) -> None:
    metadata["model"] = json.dumps(json.loads(metadata["model"]) | changes)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_weights_are_data_and_nothing_in_them_is_run(tmp_path: Path) -> None:
    trap, path = tmp_path / "sprung", tmp_path / "model.safetensors"
    pickle.loads(pickle.dumps(Trap(trap)))
    trap.unlink()
    path.write_bytes(pickle.dumps(Trap(trap)))
    with pytest.raises(CheckpointError, match="damaged or no safetensors"):
        load(path)
    torch.save({"norm.weight": Trap(trap)}, path)
    with pytest.raises(CheckpointError, match="damaged or no safetensors"):
        load(path)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors, _: tensors.pop("norm.weight"), "lacks the tensor norm.weight"),
        (lambda tensors, _: tensors.update(extra=torch.zeros(1)), "a tensor extra"),
        (
            lambda tensors, _: tensors.update({"norm.weight": torch.zeros(3)}),
            r"norm.weight of shape \(3,\), not \(16,\)",
        ),
        (
            lambda tensors, _: tensors.update({"norm.weight": torch.zeros(16, dtype=torch.int32)}),
            r"of torch.int32, not",
        ),
        (lambda tensors, _: tensors["norm.weight"].fill_(torch.nan), "values in norm.weight that are no numbers"),
        (lambda _, metadata: _with_model(metadata, num_layers=10**9), "has 1 layers, not 1000000000"),
        (lambda _, metadata: _with_model(metadata, dim=2**20), r"token_embedding.weight of shape \(\d+, 16\), not"),
        (lambda _, metadata: _with_model(metadata, ffn_dim=2**40), r"ffn.gate.weight of shape \(24, 16\), not"),
        (lambda _, metadata: _with_model(metadata, num_kv_heads=1), r"regular_key.weight of shape \(16, 16\), not"),
        (lambda _, metadata: metadata.update(version="9"), "has version '9'"),
        (lambda _, metadata: metadata.update(seq_len="63"), r"damaged: .* \(rows of 63 tokens\)"),
        (lambda _, metadata: metadata.update(model="{}x"), "damaged: it lacks settings or vocabulary"),
        (lambda _, metadata: metadata.pop("vocabulary"), "damaged: it lacks settings or vocabulary"),
        (lambda _, metadata: metadata.update(model='{"rope":"none"}'), r"model\.rope: .* \(found 'none'\)"),
        (lambda _, metadata: metadata.update(vocabulary="{}"), "its vocabulary is not a MeloFormer vocabulary"),
    ],
)
def test_weights_that_do_not_fit_are_refused(model: MeloFormer, tmp_path: Path, change, message: str) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(model, path)
    with safe_open(path, framework="pt") as file:
        metadata, tensors = dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(tensors, metadata)
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(CheckpointError, match=message):
        load(path)


def test_a_vocabulary_whose_hash_does_not_match_is_refused_with_both_hashes(model: MeloFormer, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(model, path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    metadata["vocabulary"] = metadata["vocabulary"].replace(model.vocabulary.sha256, "0" * 64)
    save_file(dict(model.state_dict()), path, metadata=metadata)
    with pytest.raises(CheckpointError, match=f"{'0' * 64}.*{model.vocabulary.sha256}"):
        load(path)


def test_loading_disturbs_no_seed(model: MeloFormer, tmp_path: Path) -> None:
    save_weights(model, tmp_path / "model.safetensors")
    before = torch.random.get_rng_state()
    load(tmp_path / "model.safetensors")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_weights_of_half_precision_are_loaded_in_full(model: MeloFormer, tmp_path: Path) -> None:
    model.bfloat16()
    save_weights(model, tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors").state_dict()
    assert all(torch.equal(loaded[name], tensor.float()) for name, tensor in model.state_dict().items())


def test_what_cannot_be_written_leaves_nothing_behind(model: MeloFormer, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No such file or directory"):
        save_weights(model, tmp_path / "none" / "model.safetensors")
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(OSError, match=r"directory"):
        save_weights(model, tmp_path / "model.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_who_may_read_the_folder_may_read_the_weights(model: MeloFormer, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    save_weights(model, tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_checkpoints_are_ordered_by_step_and_not_by_name(model: MeloFormer, tmp_path: Path) -> None:
    names = [checkpoint(tmp_path, step, model).name for step in (999_999, 1_000_000, 5)]
    assert [path.name for path in checkpoints_of(tmp_path)] == [names[1], names[0], names[2]]


def test_a_checkpoint_without_a_hash_of_its_weights_is_passed_over(model: MeloFormer, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, 5, model)
    (folder / "state.json").write_text('{"step": 5, "sha256": {}}')
    with pytest.raises(CheckpointError, match=r"no sha256 of model\.safetensors"):
        load(folder)
    with pytest.warns(UserWarning, match="passed over"), pytest.raises(CheckpointError, match="no whole checkpoint"):
        load(tmp_path)


def test_a_device_that_is_not_there_is_refused() -> None:
    assert choose_device("cpu").type == "cpu"
    for name in ("cuda:99", "abacus"):
        with pytest.raises(SettingsError, match=name):
            choose_device(name)


def test_the_package_brings_a_model_along(model: MeloFormer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    packaged = load("packaged")
    assert packaged.vocabulary == Vocabulary.default()
    assert PACKAGED_WEIGHTS.stat().st_size <= 10_000_000
    save_weights(model, tmp_path / "packaged")
    assert load("packaged").settings == packaged.settings  # whatever lies there
    assert load(tmp_path / "packaged").settings == model.settings

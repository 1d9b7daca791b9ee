"""Weights on disk: one safetensors file that also says what model it is and which vocabulary it speaks."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from meloformer.errors import CheckpointError, InputError, VocabularyError
from meloformer.model.meloformer import MeloFormer
from meloformer.settings import ModelSettings
from meloformer.tokens.vocabulary import Vocabulary

FORMAT_VERSION = "1"
WEIGHTS_FILE = "model.safetensors"
STATE_FILE = "state.json"


def save_weights(model: MeloFormer, path: Path) -> None:
    """Write a model's weights, settings and vocabulary into one file, which appears only when it is whole."""
    metadata = {
        "format": "meloformer-weights",
        "version": FORMAT_VERSION,
        "model": model.settings.model_dump_json(exclude_none=True),
        "vocabulary": json.dumps(json.loads(model.vocabulary.to_json()), separators=(",", ":")),
    }
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, beside, metadata=metadata)
    beside.replace(path)


def load_weights(path: Path, *, device: torch.device | str = "cpu") -> MeloFormer:
    """Read what :func:`save_weights` wrote.

    Returns:
        The model, in eval mode.
    Raises:
        InputError: There is no such file.
        CheckpointError: The file is damaged, of another version, or its tensors do not fit its settings.
    """
    if not path.is_file():
        raise InputError(f"there are no weights at {path}", "train a model with `meloformer train`")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file ({error})") from None
    if metadata.get("format") != "meloformer-weights":
        raise CheckpointError(f"{path} holds no MeloFormer weights (format {metadata.get('format')!r})")
    if metadata.get("version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has version {metadata.get('version')!r}, this program reads version {FORMAT_VERSION!r}",
            "train again, or use the MeloFormer that wrote it",
        )
    try:
        settings = ModelSettings.model_validate_json(metadata["model"])
        vocabulary = Vocabulary.from_json(metadata["vocabulary"], where=str(path))
    except (KeyError, ValidationError, VocabularyError) as error:
        raise CheckpointError(f"{path} has settings or a vocabulary that this program cannot read ({error})") from None
    with torch.device(device):
        model = MeloFormer(settings, vocabulary)
    _check_shapes(path, {name: tensor.shape for name, tensor in model.state_dict().items()}, tensors)
    model.load_state_dict(tensors)
    return model.eval()


def _check_shapes(path: Path, wanted: dict[str, torch.Size], found: dict[str, torch.Tensor]) -> None:
    """Raise ``CheckpointError`` at the first tensor that is missing, foreign or of another shape."""
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            raise CheckpointError(f"{path} lacks the tensor {name}")
        if name not in wanted:
            raise CheckpointError(f"{path} has a tensor {name} that its settings do not call for")
        if found[name].shape != wanted[name]:
            shapes = f"{tuple(found[name].shape)}, not {tuple(wanted[name])}"
            raise CheckpointError(f"{path}: the tensor {name} has shape {shapes}")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify_checkpoint(folder: Path) -> dict[str, Any]:
    """Read a checkpoint's ``state.json`` and compare the hashes in it with the files beside it.

    Raises:
        CheckpointError: A file is missing, damaged or not what was written.
    """
    try:
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        hashes = dict(state["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} is no checkpoint ({STATE_FILE}: {error})") from None
    for name, expected in hashes.items():
        try:
            found = sha256_of(folder / name)
        except OSError as error:
            raise CheckpointError(f"checkpoint {folder} lacks {name} ({error.strerror})") from None
        if found != expected:
            raise CheckpointError(f"checkpoint {folder}: {name} has sha256 {found}, not {expected}: it is damaged")
    return state


def checkpoints_of(run: Path) -> list[Path]:
    """The checkpoint folders of a run, the newest first."""
    folders = (run / "checkpoints").glob("step-*")
    return sorted(folders, key=lambda folder: (len(folder.name), folder.name), reverse=True)  # 1000000 after 999999


def newest_good_checkpoint(run: Path) -> Path:
    """The newest checkpoint of a run that is whole; damaged ones are passed over with a warning.

    Raises:
        CheckpointError: The run has no whole checkpoint.
    """
    for folder in checkpoints_of(run):
        try:
            verify_checkpoint(folder)
        except CheckpointError as error:
            warnings.warn(f"passed over: {error}", stacklevel=2)
        else:
            return folder
    raise CheckpointError(f"{run} has no whole checkpoint", "train a model with `meloformer train`")


def load(source: str | Path, *, device: torch.device | str = "cpu") -> MeloFormer:
    """Load a model from a run, a checkpoint folder or a ``model.safetensors``.

    Args:
        source: Of a run the newest good checkpoint is taken.
        device: Where the weights go.
    Returns:
        The model, in eval mode.
    Raises:
        InputError: There is nothing at ``source``.
        CheckpointError: What is there is damaged or not a MeloFormer model.
    """
    path = Path(source)
    if path.is_dir():
        if not (path / WEIGHTS_FILE).is_file():
            path = newest_good_checkpoint(path)
        else:
            verify_checkpoint(path)
        path = path / WEIGHTS_FILE
    return load_weights(path, device=device)

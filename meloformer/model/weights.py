"""Weights on disk: one safetensors file that also says what model it is and which vocabulary it speaks."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from meloformer.errors import CheckpointError, InputError, SettingsError, VocabularyError
from meloformer.model.meloformer import MeloFormer
from meloformer.settings import ModelSettings, checked
from meloformer.tokens.vocabulary import Vocabulary

FORMAT_VERSION = "1"
WEIGHTS_FILE = "model.safetensors"
STATE_FILE = "state.json"
CHECKPOINTS_FOLDER = "checkpoints"
SETTINGS_FILE = "settings.toml"
"""Of a run, as is the folder of checkpoints."""
PACKAGED = "packaged"
"""Names the model that the package brings along, wherever a run may be named; no run may be called so."""
PACKAGED_WEIGHTS = Path(__file__).parents[1] / "data" / WEIGHTS_FILE
_TRAIN_AGAIN = "train again with `meloformer train`, or use the MeloFormer that wrote it"
_TRAIN_ONE = f"train a model with `meloformer train`, or name {PACKAGED}, the model that comes along"
_USE_ANOTHER = "name the run to use its newest whole checkpoint"


def save_weights(model: MeloFormer, path: Path) -> None:
    """Write a model's weights, settings, vocabulary and row length into one file, which appears only when it is whole.

    Raises:
        OSError: The path cannot be written.
    """
    metadata = {
        "format": "meloformer-weights",
        "version": FORMAT_VERSION,
        "model": model.settings.model_dump_json(exclude_none=True),
        "vocabulary": json.dumps(json.loads(model.vocabulary.to_json()), separators=(",", ":")),
    }
    if model.seq_len is not None:
        metadata["seq_len"] = str(model.seq_len)
    write_tensors(path, model.state_dict(), metadata)


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, which appears only when it is whole.

    Raises:
        OSError: The path cannot be written. Of a full disk safetensors tells with an error of its own.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(on_cpu, beside, metadata=metadata)
        beside.chmod(path.parent.stat().st_mode & 0o666)  # safetensors lets nobody but the owner read
        beside.replace(path)
    except SafetensorError as error:
        raise OSError(str(error).rpartition("I/O error: ")[2]) from None
    finally:
        beside.unlink(missing_ok=True)


def load_weights(path: Path, *, device: torch.device | str = "cpu") -> MeloFormer:
    """Read what :func:`save_weights` wrote.

    Returns:
        The model, in eval mode.
    Raises:
        InputError: There is no such file.
        CheckpointError: The file is damaged, of another version, or its tensors do not fit its settings.
    """
    if not path.is_file():
        raise InputError(f"there are no weights at {path}", _TRAIN_ONE)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file ({error})", _USE_ANOTHER) from None
    if metadata.get("format") != "meloformer-weights":
        raise CheckpointError(f"{path} holds no MeloFormer weights (format {metadata.get('format')!r})", _TRAIN_AGAIN)
    if metadata.get("version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has version {metadata.get('version')!r}, this program reads version {FORMAT_VERSION!r}",
            _TRAIN_AGAIN,
        )
    try:
        settings = checked(ModelSettings, "model", json.loads(metadata["model"]))
        vocabulary = Vocabulary.from_json(metadata["vocabulary"], where="its vocabulary")
        seq_len = int(metadata["seq_len"]) if "seq_len" in metadata else None
        if seq_len is not None and seq_len < 64:  # as for all settings of that kind
            raise ValueError(f"rows of {seq_len} tokens")
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: it lacks settings or vocabulary ({error})", _USE_ANOTHER) from None
    except (SettingsError, VocabularyError) as error:
        raise CheckpointError(f"{path} cannot be used: {error.message}", _TRAIN_AGAIN) from None
    _check_sizes(path, settings, vocabulary, tensors)
    with torch.random.fork_rng(devices=[]):  # loading disturbs no seed; the meta device would cost a second of imports
        model = MeloFormer(settings, vocabulary)
    _check_tensors(path, model.state_dict(), tensors)
    model.load_state_dict(tensors)
    model.seq_len = seq_len
    return model.to(device).eval()


def _check_sizes(path: Path, settings: ModelSettings, vocabulary: Vocabulary, found: dict[str, torch.Tensor]) -> None:
    """Raise ``CheckpointError`` where the settings call for much more than the file holds, before a model is made."""
    num_layers = len({name.split(".")[1] for name in found if name.startswith("layers.")})
    if num_layers != settings.num_layers:
        raise CheckpointError(f"{path} has {num_layers} layers, not {settings.num_layers}", _TRAIN_AGAIN)
    shapes = {
        "token_embedding.weight": (len(vocabulary), settings.dim),
        "layers.0.ffn.gate.weight": (settings.ffn_dim, settings.dim),
        "layers.0.attention.regular_key.weight": (settings.num_kv_heads * settings.head_dim, settings.dim),
    }
    for name, shape in shapes.items():
        if name in found and tuple(found[name].shape) != shape:
            raise CheckpointError(f"{path} has {name} of shape {tuple(found[name].shape)}, not {shape}", _TRAIN_AGAIN)


def _check_tensors(path: Path, wanted: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> None:
    """Raise ``CheckpointError`` at the first tensor that is missing, foreign, of another shape, or not all numbers."""
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            problem = f"lacks the tensor {name}"
        elif name not in wanted:
            problem = f"has a tensor {name} that its settings do not call for"
        elif found[name].shape != wanted[name].shape:
            problem = f"has {name} of shape {tuple(found[name].shape)}, not {tuple(wanted[name].shape)}"
        elif not found[name].is_floating_point():
            problem = f"has {name} of {found[name].dtype}, not floating-point numbers"
        elif not bool(found[name].isfinite().all()):
            problem = f"has values in {name} that are no numbers"
        else:
            continue
        raise CheckpointError(f"{path} {problem}", _TRAIN_AGAIN)


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
        raise CheckpointError(f"{folder} is no checkpoint ({STATE_FILE}: {error})", _USE_ANOTHER) from None
    if WEIGHTS_FILE not in hashes:
        problem = f"{STATE_FILE} has no sha256 of {WEIGHTS_FILE}"
        raise CheckpointError(f"{folder} is no checkpoint ({problem})", _USE_ANOTHER)
    for name, expected in hashes.items():
        try:
            found = sha256_of(folder / name)
        except OSError as error:
            raise CheckpointError(f"checkpoint {folder} lacks {name} ({error.strerror})", _USE_ANOTHER) from None
        if found != expected:
            problem = f"{name} is damaged: it has sha256 {found}, not {expected}"
            raise CheckpointError(f"checkpoint {folder}: {problem}", _USE_ANOTHER)
    return state


def checkpoints_of(run: Path) -> list[Path]:
    """The checkpoint folders of a run, the newest first."""
    folders = (run / CHECKPOINTS_FOLDER).glob("step-*")
    return sorted(folders, key=lambda folder: (len(folder.name), folder.name), reverse=True)  # 1000000 after 999999


def best_checkpoint(run: Path) -> Path | None:
    """The checkpoint of a run with the lowest validation loss; of equals the newest, ``None`` where none has one."""
    losses: dict[Path, float] = {}
    for folder in checkpoints_of(run):
        with suppress(OSError, ValueError, KeyError, TypeError):  # a damaged one is none; so is one without validation
            state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
            losses[folder] = float(state["validation"]["nats_per_token"])
    return min(losses, key=lambda folder: losses[folder]) if losses else None


def newest_good_checkpoint(run: Path) -> tuple[Path, dict[str, Any]]:
    """The newest checkpoint of a run that is whole; damaged ones are passed over with a warning.

    Raises:
        InputError: There is no run at ``run``.
        CheckpointError: The run has no whole checkpoint.
    """
    if not (run / CHECKPOINTS_FOLDER).is_dir() and not (run / SETTINGS_FILE).is_file():
        raise InputError(
            f"{run} is not a run of `meloformer train`",
            f"name a run such as runs/NAME, one of its checkpoints, a .safetensors file, or {PACKAGED}",
        )
    for folder in checkpoints_of(run):
        try:
            state = verify_checkpoint(folder)
        except CheckpointError as error:
            warnings.warn(f"passed over: {error.message}", stacklevel=2)
        else:
            return folder, state
    raise CheckpointError(f"{run} has no whole checkpoint", _TRAIN_ONE)


def is_packaged(source: str | Path) -> bool:
    """Whether a name means the model in the package, whatever lies in the working folder."""
    return str(source) == PACKAGED


def load(source: str | Path, *, device: torch.device | str = "cpu") -> MeloFormer:
    """Load a model from a run, a checkpoint folder or a ``model.safetensors``, or the one in the package.

    Args:
        source: Of a run the newest good checkpoint is taken; ``packaged`` is the model in the package.
        device: Where the weights go.
    Returns:
        The model, in eval mode.
    Raises:
        InputError: There is nothing at ``source``, or a folder that is no run.
        CheckpointError: What is there is damaged or not a MeloFormer model.
    """
    return load_weights(weights_of(source), device=device)


def weights_of(source: str | Path) -> Path:
    """The file that :func:`load` reads; raises as it does."""
    path = PACKAGED_WEIGHTS if is_packaged(source) else Path(source)
    if not path.is_dir():
        return path
    if (path / WEIGHTS_FILE).is_file() or (path / STATE_FILE).is_file():
        verify_checkpoint(path)
    else:
        path, _ = newest_good_checkpoint(path)
    return path / WEIGHTS_FILE

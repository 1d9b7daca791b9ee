"""Checkpoints: weights, optimiser and position, as safetensors and JSON, whole or not there."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from meloformer.errors import CheckpointError, OutputError
from meloformer.model.meloformer import MeloFormer
from meloformer.model.weights import (
    STATE_FILE,
    WEIGHTS_FILE,
    checkpoints_of,
    load_weights,
    newest_good_checkpoint,
    save_weights,
    sha256_of,
    verify_checkpoint,
)

FORMAT_VERSION = 1
OPTIMIZER_FILE = "optimizer.safetensors"
Optimizers = dict[str, torch.optim.Optimizer]


@dataclass(frozen=True)
class Position:
    """Where a run stands."""

    step: int
    """Optimiser steps taken."""
    epoch: int
    """The epoch of the next batch."""
    batch: int
    """Its number in the epoch."""


def save_checkpoint(
    run: Path, model: MeloFormer, optimizers: Optimizers, position: Position, *, keep: int, facts: dict[str, Any]
) -> Path:
    """Write ``checkpoints/step-000100``, then delete all but the newest ``keep``.

    Args:
        run: The run's folder.
        model, optimizers: Their states are written.
        position: Where the run stands.
        keep: How many checkpoints stay.
        facts: What a resumed run must agree with.
    Raises:
        OutputError: The folder cannot be written; earlier checkpoints are untouched.
    """
    folder = run / "checkpoints" / f"step-{position.step:06d}"
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        save_weights(model, beside / WEIGHTS_FILE)
        save_file(_optimizer_tensors(optimizers), beside / OPTIMIZER_FILE)
        state = {
            "format": "meloformer-checkpoint",
            "version": FORMAT_VERSION,
            "vocabulary_sha256": model.vocabulary.sha256,
            "position": asdict(position),
            "facts": facts,
            "sha256": {name: sha256_of(beside / name) for name in (WEIGHTS_FILE, OPTIMIZER_FILE)},
        }
        (beside / STATE_FILE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
        for old in checkpoints_of(run)[keep:]:
            shutil.rmtree(old)
    except OSError as error:
        raise OutputError(f"cannot write the checkpoint {folder}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def load_checkpoint(run: Path, model: MeloFormer, optimizers: Optimizers, *, facts: dict[str, Any]) -> Position:
    """Put the newest whole checkpoint of a run into ``model`` and ``optimizers``.

    Returns:
        Where the run stood.
    Raises:
        CheckpointError: There is none, it is of another version, or what it was made with is not ``facts``; names the
            first difference with both values.
    """
    folder = newest_good_checkpoint(run)
    state = verify_checkpoint(folder)
    if state.get("version") != FORMAT_VERSION:
        raise CheckpointError(f"{folder} has version {state.get('version')}, this program reads {FORMAT_VERSION}")
    if state.get("vocabulary_sha256") != model.vocabulary.sha256:
        raise CheckpointError(
            f"{folder} has vocabulary {state.get('vocabulary_sha256')}, the shards have {model.vocabulary.sha256}",
            "resume with the shards that the run began with",
        )
    saved: Any = state["facts"]
    for name, value in facts.items():
        if saved.get(name) != value:
            raise CheckpointError(
                f"{folder} was made with {name} = {saved.get(name)}, not {value}",
                "resume with the settings that the run began with, or start another with --out",
            )
    model.load_state_dict(load_weights(folder / WEIGHTS_FILE, device=model.device).state_dict())
    _restore_optimizers(optimizers, load_file(folder / OPTIMIZER_FILE), folder)
    return Position(**state["position"])


def _optimizer_tensors(optimizers: Optimizers) -> dict[str, torch.Tensor]:
    """``NAME/PARAMETER/KEY`` -> tensor, for everything that the optimisers remember."""
    tensors = {}
    for name, optimizer in optimizers.items():
        for number, values in optimizer.state_dict()["state"].items():
            for key, value in values.items():
                tensors[f"{name}/{number}/{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
    return tensors


def _restore_optimizers(optimizers: Optimizers, tensors: dict[str, torch.Tensor], folder: Path) -> None:
    for name, optimizer in optimizers.items():
        record = optimizer.state_dict()
        record["state"] = {}
        for path, tensor in tensors.items():
            owner, number, key = path.split("/")
            if owner == name:
                record["state"].setdefault(int(number), {})[key] = tensor
        try:
            optimizer.load_state_dict(record)
        except (ValueError, KeyError) as error:
            raise CheckpointError(f"{folder / OPTIMIZER_FILE} does not fit the model ({error})") from None

"""Checkpoints: weights, optimiser and position, as safetensors and JSON, whole or not there."""

from __future__ import annotations

import base64
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from meloformer.errors import CheckpointError, OutputError
from meloformer.files import cannot_write, whole_folder, write_text
from meloformer.model.meloformer import MeloFormer
from meloformer.model.weights import (
    CHECKPOINTS_FOLDER,
    STATE_FILE,
    WEIGHTS_FILE,
    best_checkpoint,
    checkpoints_of,
    load_weights,
    newest_good_checkpoint,
    save_weights,
    sha256_of,
    write_tensors,
)
from meloformer.training.loss import Evaluation
from meloformer.training.optimizer import Optimizers

FORMAT_VERSION = 2
OPTIMIZER_FILE = "optimizer.safetensors"


@dataclass(frozen=True)
class Position:
    """Where a run stands."""

    step: int = 0
    """Optimiser steps taken."""
    row: int = 0
    """The next row, counted on from epoch to epoch."""
    rows_per_step: int = 1
    """Of all ranks together: it stays what it was when the run began, however many go on with it."""
    skipped: int = 0
    """Steps without an update, because loss or gradient was not finite."""
    scaler: dict[str, float] | None = None
    """State of the gradient scaler, where there is one."""


def save_checkpoint(
    run: Path,
    model: MeloFormer,
    optimizers: Optimizers,
    position: Position,
    *,
    keep: int,
    facts: dict[str, Any],
    validation: Evaluation | None = None,
) -> Path:
    """Write ``checkpoints/step-000100``, then delete the oldest until ``keep`` are left, and the best beside them.

    Args:
        run: The run's folder.
        model, optimizers: Their states are written.
        position: Where the run stands.
        keep: How many checkpoints stay.
        facts: What a resumed run must agree with.
        validation: Of these weights, where there was one.
    Raises:
        OutputError: The folder cannot be written; earlier checkpoints are untouched.
    """
    folder = run / CHECKPOINTS_FOLDER / f"step-{position.step:06d}"
    try:
        with whole_folder(folder) as beside:
            save_weights(model, beside / WEIGHTS_FILE)
            write_tensors(beside / OPTIMIZER_FILE, _optimizer_tensors(optimizers))
            state = {
                "format": "meloformer-checkpoint",
                "version": FORMAT_VERSION,
                "vocabulary_sha256": model.vocabulary.sha256,
                "position": asdict(position),
                "validation": validation and validation.to_dict(),
                "random": _random_states(model.device),
                "facts": facts,
                "sha256": {name: sha256_of(beside / name) for name in (WEIGHTS_FILE, OPTIMIZER_FILE)},
            }
            write_text(beside / STATE_FILE, json.dumps(state, indent=1) + "\n")
        newest_first = checkpoints_of(run)
        best = best_checkpoint(run)
        for older in newest_first[newest_first.index(folder) + keep :]:
            if older != best:
                shutil.rmtree(older)
    except (OSError, OutputError) as error:
        failure = error if isinstance(error, OutputError) else cannot_write(folder, error)
        message = failure.message.replace("cannot write", "cannot write the checkpoint", 1)
        raise OutputError(message, "make room, then go on from the checkpoint before with --resume") from None
    return folder


def clear_left_overs(run: Path) -> None:
    """Delete what a process that was killed while it wrote a checkpoint left of it."""
    for left_over in (run / CHECKPOINTS_FOLDER).glob(".*.part"):
        shutil.rmtree(left_over, ignore_errors=True)


def load_checkpoint(run: Path, model: MeloFormer, optimizers: Optimizers, *, facts: dict[str, Any]) -> Position:
    """Put the newest whole checkpoint of a run into ``model`` and ``optimizers``; random states go back too.

    Returns:
        Where the run stood.
    Raises:
        CheckpointError: There is none, it is of another version, or what it was made with is not ``facts``; names the
            first difference with both values.
    """
    folder, state = newest_good_checkpoint(run)
    if state.get("version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{folder} has version {state.get('version')!r}, this program reads version {FORMAT_VERSION}",
            "resume with the MeloFormer that wrote it, or start another run with --out",
        )
    if state.get("vocabulary_sha256") != model.vocabulary.sha256:
        raise CheckpointError(
            f"{folder} has vocabulary {state.get('vocabulary_sha256')}, the shards have {model.vocabulary.sha256}",
            "resume with the shards that the run began with",
        )
    try:
        position, random_states = Position(**state["position"]), dict(state["random"])
        saved = dict(state["facts"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / STATE_FILE} is damaged ({error})") from None
    for name, value in facts.items():
        if saved.get(name) != value:
            raise CheckpointError(
                f"{folder} was made with {name} = {saved.get(name)}, not {value}",
                "resume with the data and settings that the run began with, or start another with --out",
            )
    model.load_state_dict(load_weights(folder / WEIGHTS_FILE, device=model.device).state_dict())
    _restore_optimizers(optimizers, load_file(folder / OPTIMIZER_FILE), folder)
    _restore_random_states(random_states, model.device)
    return position


def _optimizer_tensors(optimizers: Optimizers) -> dict[str, torch.Tensor]:
    """``OPTIMISER/PARAMETER/KEY`` -> tensor, for everything that the optimisers remember."""
    tensors = {}
    for owner, optimizer in optimizers.items():
        record = optimizer.state_dict()
        name_of = _parameter_names(record)
        for number, values in record["state"].items():
            for key, value in values.items():
                tensors[f"{owner}/{name_of[number]}/{key}"] = torch.as_tensor(value)
    return tensors


def _restore_optimizers(optimizers: Optimizers, tensors: dict[str, torch.Tensor], folder: Path) -> None:
    for owner, optimizer in optimizers.items():
        record = optimizer.state_dict()
        number_of = {name: number for number, name in _parameter_names(record).items()}
        record["state"] = {}
        for path, tensor in tensors.items():
            place, name, key = path.split("/")
            if place == owner and name not in number_of:
                raise CheckpointError(f"{folder / OPTIMIZER_FILE} has {path}, of which the model knows nothing")
            if place == owner:
                record["state"].setdefault(number_of[name], {})[key] = tensor
        optimizer.load_state_dict(record)


def _parameter_names(record: dict[str, Any]) -> dict[int, str]:
    """Number in an optimiser's state -> name of the parameter."""
    return {
        number: name
        for group in record["param_groups"]
        for number, name in zip(group["params"], group["param_names"], strict=True)
    }


def _random_states(device: torch.device) -> dict[str, str]:
    """Device type -> state of torch's generator, base64. The order of the data follows from seed and epoch alone."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return {name: base64.b64encode(state.numpy().tobytes()).decode("ascii") for name, state in states.items()}


def _restore_random_states(states: dict[str, str], device: torch.device) -> None:
    """Put back the states that exist on this device; a run may go on on another."""
    for name, text in states.items():
        state = torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
        if name == "cpu":
            torch.set_rng_state(state)
        elif name == device.type == "cuda":
            torch.cuda.set_rng_state(state, device)

"""What a run works on: data, model, optimisers, and where it stands; begun, saved, and gone on with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from meloformer.errors import CheckpointError
from meloformer.files import write_text
from meloformer.model.batch import Batch
from meloformer.model.device import choose_device
from meloformer.model.meloformer import MeloFormer
from meloformer.model.weights import checkpoints_of, load
from meloformer.settings import Settings
from meloformer.settings_file import to_toml
from meloformer.training.checkpoint import Position, load_checkpoint, save_checkpoint
from meloformer.training.loss import Evaluation, unigram_baseline
from meloformer.training.optimizer import Optimizers, make_optimizers
from meloformer.training.plan import Plan, make_plan
from meloformer.training.run_folder import (
    SETTINGS_FILE,
    cut_metrics,
    make_run_folder,
    refuse_existing,
    refuse_missing,
)
from meloformer.training.step import Precision, default_precision

COMPUTED_BY = frozenset({"attention", "attention_dtype", "checkpointing"})
"""Settings of the model that say how it is computed, not what it is."""


@dataclass
class RunState:
    """What the loop works on."""

    plan: Plan
    model: MeloFormer
    optimizers: Optimizers
    position: Position
    validation: list[Batch]
    baseline: Evaluation | None
    precision: Precision


def begin(shards: Path, run: Path, settings: Settings, *, resume: bool) -> RunState:
    """Data, model and optimisers of a new or a resumed run. A new run's folder is made when all else went well."""
    (refuse_missing if resume else refuse_existing)(run)
    device = choose_device(settings.training.device)
    plan = make_plan(shards, settings)
    torch.manual_seed(settings.training.seed)
    with torch.device(device):
        model = MeloFormer(settings.model, plan.shards.vocabulary)
    if settings.training.init is not None and not resume:
        _start_from(settings.training.init, model)
    optimizers = make_optimizers(model, settings.training)
    position = Position()
    if resume and checkpoints_of(run):
        position = load_checkpoint(run, model, optimizers, facts=_facts(plan, settings))
        if position.step > plan.total_steps:
            raise CheckpointError(
                f"{run} has taken {position.step} steps already, more than {plan.total_steps}",
                "resume with more --steps, or leave them out to keep to what the run began with",
            )
    validation = [
        Batch.of(list(ids), plan.shards.vocabulary, device=device)
        for ids in plan.validation_rows(settings.training.eval_rows)
    ]
    baseline = None
    if validation:
        baseline = unigram_baseline(plan.training.documents, validation, plan.shards.vocabulary)
    if resume:
        write_text(run / SETTINGS_FILE, to_toml(settings))
        cut_metrics(run, position.step)
    else:
        make_run_folder(run, settings, plan.shards.vocabulary)
    precision = Precision.of(settings.training.precision or default_precision(device), device)
    if precision.scaler is not None and position.scaler is not None:
        precision.scaler.load_state_dict(position.scaler)
    return RunState(plan, model, optimizers, position, validation, baseline, precision)


def _start_from(source: Path, model: MeloFormer) -> None:
    """Take over weights of the same shapes and the same vocabulary.

    Raises:
        InputError, CheckpointError: There are none, or they do not fit; names the first difference.
    """
    base = load(source)
    if base.vocabulary != model.vocabulary:
        raise CheckpointError(
            f"{source} has vocabulary {base.vocabulary.sha256}, the shards have {model.vocabulary.sha256}",
            f"make shards with `meloformer pack --vocab {source}/vocab.json`",
        )
    theirs, ours = (each.settings.model_dump(mode="json", exclude=set(COMPUTED_BY)) for each in (base, model))
    for name, value in theirs.items():
        if ours[name] != value:
            raise CheckpointError(
                f"{source} has model.{name} = {value}, not {ours[name]}",
                "leave out --size and settings of the model: they are those of the weights",
            )
    model.load_state_dict(base.state_dict())


def save(run: Path, state: RunState, settings: Settings) -> None:
    """Write a checkpoint.

    Raises:
        OutputError: It cannot be written.
    """
    if state.precision.scaler is not None:
        state.position = replace(state.position, scaler=state.precision.scaler.state_dict())
    save_checkpoint(
        run,
        state.model,
        state.optimizers,
        state.position,
        keep=settings.training.keep_checkpoints,
        facts=_facts(state.plan, settings),
    )


def batches_of(state: RunState) -> Iterator[Batch]:
    """Batches without end from where the run stands, which is moved on with every one."""
    loader = state.plan.training
    while True:
        for ids in loader.batches(state.position.epoch, state.position.batch):
            state.position = replace(state.position, batch=state.position.batch + 1)
            yield Batch.of(list(ids), loader.vocabulary, device=state.model.device)
        state.position = replace(state.position, epoch=state.position.epoch + 1, batch=0)


def _facts(plan: Plan, settings: Settings) -> dict[str, Any]:
    """What a resumed run must have in common with the run that it goes on from; the rest may change."""
    names = ("seq_len", "batch_size", "accumulation", "optimizer", "seed", "transpose", "tempo_bins", "velocity_bins")
    return {
        "training data": plan.training.documents.fingerprint,
        **{
            f"model.{name}": value
            for name, value in settings.model.model_dump(mode="json", exclude=set(COMPUTED_BY)).items()
        },
        **{f"training.{name}": getattr(settings.training, name) for name in names},
    }

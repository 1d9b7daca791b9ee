"""What a run works on: data, model, optimisers, and where it stands; begun, saved, and gone on with."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from meloformer.errors import CheckpointError, RankError, ShardError
from meloformer.files import write_text
from meloformer.model.batch import Batch
from meloformer.model.ffn import SwiGLU
from meloformer.model.meloformer import MeloFormer
from meloformer.model.norm import RMSNorm
from meloformer.model.weights import checkpoints_of, is_packaged, load
from meloformer.settings import Settings
from meloformer.settings_file import to_toml
from meloformer.training.checkpoint import Position, clear_left_overs, load_checkpoint, save_checkpoint
from meloformer.training.distributed import ALONE, Ranks
from meloformer.training.loading import Pass, Rows, num_workers, prepared_passes
from meloformer.training.loss import Evaluation, unigram_baseline
from meloformer.training.optimizer import Optimizers, make_optimizers
from meloformer.training.plan import Plan, make_plan, refuse_idle_ranks
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
    network: nn.Module
    """The model as the ranks share it."""
    optimizers: Optimizers
    position: Position
    validation: list[Batch]
    baseline: Evaluation | None
    precision: Precision
    ranks: Ranks
    saved_step: int
    """Of the newest checkpoint."""
    damage: dict[int, str] = field(default_factory=dict)
    """Documents that turned out to be damaged, and how."""


def begin(shards: Path, run: Path, settings: Settings, *, resume: bool, ranks: Ranks = ALONE) -> RunState:
    """Data, model and optimisers of a new or a resumed run. A new run's folder is made when all else went well."""
    chosen = settings.training
    if ranks.is_first:
        (refuse_missing if resume else refuse_existing)(run)
    device = ranks.device(chosen.device)
    plan = make_plan(shards, settings, ranks)
    torch.manual_seed(chosen.seed)
    with torch.device(device):
        model = MeloFormer(settings.model, plan.shards.vocabulary)
    model.seq_len = chosen.seq_len
    if chosen.init is not None and not resume:
        start_from(chosen.init, model)
    optimizers = make_optimizers(model, chosen)
    position = Position(rows_per_step=plan.rows_per_step)
    if resume and checkpoints_of(run):
        if ranks.is_first:
            clear_left_overs(run)
        position = load_checkpoint(run, model, optimizers, facts=_facts(plan, settings))
        if plan.rows_per_step != position.rows_per_step:
            warnings.warn(
                f"a step stays {position.rows_per_step} rows, as the run began, and does not become "
                f"{plan.rows_per_step}",
                stacklevel=2,
            )
        plan = plan.of_rows_per_step(position.rows_per_step, chosen)
        if position.step > plan.total_steps:
            raise CheckpointError(
                f"{run} has taken {position.step} steps already, more than {plan.total_steps}",
                "resume with more --steps, or leave them out to keep to what the run began with",
            )
    refuse_idle_ranks(ranks, plan.rows_per_step)
    validation, baseline = _validation(plan, chosen.eval_rows, device) if ranks.is_first else ([], None)
    if ranks.is_first and resume:
        write_text(run / SETTINGS_FILE, to_toml(settings))
        cut_metrics(run, position.step)
    elif ranks.is_first:
        make_run_folder(run, settings, plan.shards.vocabulary)
    precision = Precision.of(chosen.precision or default_precision(device), device)
    if precision.scaler is not None and position.scaler is not None:
        precision.scaler.load_state_dict(position.scaler)
    if chosen.compile and device.type == "cuda":
        compile_layers(model)
    network = ranks.replicated(model)
    return RunState(plan, model, network, optimizers, position, validation, baseline, precision, ranks, position.step)


def compile_layers(model: MeloFormer, backend: str = "inductor") -> None:
    """Compile what stands between the attention kernels, which are compiled already; the names of weights stay.

    Args:
        model: Its modules are changed in place.
        backend: Of ``torch.compile``.
    """
    for module in model.modules():
        if isinstance(module, SwiGLU | RMSNorm):
            module.compile(backend=backend)


def _validation(plan: Plan, num_rows: int, device: torch.device) -> tuple[list[Batch], Evaluation | None]:
    """The validation rows, and the unigram baseline on them; none without validation documents."""
    vocabulary = plan.shards.vocabulary
    batches = [Batch.of(list(ids), vocabulary, device=device) for ids in plan.validation_rows(num_rows)]
    if not batches:
        return [], None
    return batches, unigram_baseline(plan.training.documents.whole(), batches, vocabulary)


def start_from(source: Path, model: MeloFormer) -> None:
    """Take over weights of the same shapes and the same vocabulary.

    Raises:
        InputError, CheckpointError: There are none, or they do not fit; names the first difference.
    """
    base = load(source)
    if base.vocabulary != model.vocabulary:
        raise CheckpointError(
            f"{source} has vocabulary {base.vocabulary.sha256}, the shards have {model.vocabulary.sha256}",
            "make shards with `meloformer pack` and no --vocab"
            if is_packaged(source)
            else f"make shards with `meloformer pack --vocab {source}/vocab.json`",
        )
    theirs, ours = (each.settings.model_dump(mode="json", exclude=set(COMPUTED_BY)) for each in (base, model))
    for name, value in theirs.items():
        if ours[name] != value:
            raise CheckpointError(
                f"{source} has model.{name} = {value}, not {ours[name]}",
                "leave out --size and settings of the model: they are those of the weights",
            )
    model.load_state_dict(base.state_dict())


@contextmanager
def saved_at_the_end(run: Path, state: RunState, settings: Settings) -> Iterator[None]:
    """Save what was not saved yet, also where something beside the model ends the run between two steps."""
    try:
        yield
    except (RankError, ShardError):
        if state.saved_step != state.position.step:
            save(run, state, settings)
        raise
    if state.saved_step != state.position.step:
        save(run, state, settings)
    state.ranks.any(False)  # torchrun ends all ranks when one has ended: none may before the first has saved


def save(run: Path, state: RunState, settings: Settings, validation: Evaluation | None = None) -> None:
    """Write a checkpoint, on the first rank.

    Args:
        run: The run's folder.
        state: What is written.
        settings: What a resumed run must have in common with this one, and how many checkpoints stay.
        validation: Of these weights, where there was one.

    Raises:
        OutputError: It cannot be written.
    """
    state.saved_step = state.position.step
    if not state.ranks.is_first:
        return
    if state.precision.scaler is not None:
        state.position = replace(state.position, scaler=state.precision.scaler.state_dict())
    save_checkpoint(
        run,
        state.model,
        state.optimizers,
        state.position,
        keep=settings.training.keep_checkpoints,
        facts=_facts(state.plan, settings),
        validation=validation,
    )


@contextmanager
def passes_of(state: RunState, settings: Settings) -> Iterator[Iterator[list[Pass]]]:
    """What this rank works through in every step, without end, from where the run stands."""
    plan, device = state.plan, state.model.device
    rows = Rows(state.position.row, plan.rows_per_step, settings.training.batch_size, state.ranks)
    workers = num_workers(settings.training.workers, device, state.ranks)
    with prepared_passes(plan.training, rows, state.model.settings, device, workers=workers) as passes:
        yield iter(lambda: [next(passes) for _ in range(rows.passes_per_step)], None)


def _facts(plan: Plan, settings: Settings) -> dict[str, Any]:
    """What a resumed run must have in common with the run that it goes on from; the rest may change."""
    names = ("seq_len", "optimizer", "seed", "transpose", "tempo_bins", "velocity_bins")
    return {
        "training data": plan.training.documents.fingerprint,
        **{
            f"model.{name}": value
            for name, value in settings.model.model_dump(mode="json", exclude=set(COMPUTED_BY)).items()
        },
        **{f"training.{name}": getattr(settings.training, name) for name in names},
    }

"""The training loop: step, log, validate, save, until the steps are done or someone asks it to stop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from meloformer.errors import CheckpointError
from meloformer.files import write_text
from meloformer.model.batch import Batch
from meloformer.model.device import choose_device
from meloformer.model.meloformer import MeloFormer
from meloformer.model.weights import checkpoints_of
from meloformer.settings import Settings
from meloformer.settings_file import to_toml
from meloformer.training.checkpoint import Position, load_checkpoint, save_checkpoint
from meloformer.training.interruption import stop_signals
from meloformer.training.loss import Evaluation, evaluate, unigram_baseline
from meloformer.training.optimizer import Optimizers, learning_rate_at, make_optimizers
from meloformer.training.plan import Plan, make_plan
from meloformer.training.plot import plot_losses
from meloformer.training.run_folder import (
    LOSS_PICTURE,
    METRICS_FILE,
    SETTINGS_FILE,
    cut_metrics,
    make_run_folder,
    refuse_existing,
    refuse_missing,
    write_metrics,
)
from meloformer.training.step import train_step


class Observer(Protocol):
    """Told what happens; nothing in this package prints."""

    def on_start(self, total_steps: int, first_step: int) -> None:
        """The loop begins, at ``first_step`` where a run is resumed."""

    def on_step(self, step: int, metrics: dict[str, float]) -> None:
        """A step was taken.

        ``metrics`` has ``loss`` (nats a token), ``nats_per_note``, ``learning_rate``, ``gradient_norm`` (before
        clipping) and ``tokens_per_second`` (targets, the wait for data included).
        """

    def on_evaluation(self, step: int, validation: Evaluation) -> None:
        """The validation rows were read."""


class _Silence:
    """Takes the place of an observer that is not there."""

    def on_start(self, total_steps: int, first_step: int) -> None: ...

    def on_step(self, step: int, metrics: dict[str, float]) -> None: ...

    def on_evaluation(self, step: int, validation: Evaluation) -> None: ...


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    run: Path
    step: int
    """The last step taken, of this or an earlier process."""
    total_steps: int
    loss: float
    """Of the last step, in nats a token; NaN where this process took none."""
    validation: Evaluation | None
    """The last one; ``None`` without validation documents, or where the run was interrupted before the first."""
    baseline: Evaluation | None
    """The unigram baseline on the same rows."""
    seconds: float

    @property
    def interrupted(self) -> bool:
        """Whether a signal ended the run before its last step; everything so far is in a checkpoint."""
        return self.step < self.total_steps

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "run": str(self.run),
            "step": self.step,
            "total_steps": self.total_steps,
            "interrupted": self.interrupted,
            "loss": None if math.isnan(self.loss) else round(self.loss, 5),
            "validation": self.validation and self.validation.to_dict(),
            "unigram_baseline": self.baseline and self.baseline.to_dict(),
            "seconds": round(self.seconds, 2),
        }


@dataclass
class _Run:
    """What the loop works on."""

    plan: Plan
    model: MeloFormer
    optimizers: Optimizers
    position: Position
    validation: list[Batch]
    baseline: Evaluation | None


def train(
    shards: Path, run: Path, settings: Settings, *, resume: bool = False, observer: Observer | None = None
) -> TrainResult:
    """Train a model.

    SIGINT and SIGTERM end the run after the step in hand, with a checkpoint; a second one ends it at once.

    Args:
        shards: What ``pack`` wrote.
        run: Folder of the run; new, unless ``resume``.
        settings: Sections ``model`` and ``training`` count.
        resume: Go on from the newest whole checkpoint of ``run``, or from the start where it has none yet.
        observer: Told of every step.
    Raises:
        InputError: There are no shards, or no run to resume.
        ShardError: The shards are damaged or have nothing to train on.
        OutputError: ``run`` exists already, or cannot be written.
        CheckpointError: What is to be resumed was made with other settings, or is damaged.
        MeloFormerError: The loss is no longer a finite number.
    """
    started = time.monotonic()
    observer = observer or _Silence()
    state = _begin(shards, run, settings, resume=resume)
    chosen, total = settings.training, state.plan.total_steps
    first_step = saved_step = state.position.step
    loss, validation = math.nan, None
    observer.on_start(total, first_step)
    batches = _batches(state)
    with stop_signals() as stop, (run / METRICS_FILE).open("a", encoding="utf-8") as metrics_file:
        while state.position.step < total and not stop.is_set():
            step_started = time.monotonic()
            passes = [next(batches) for _ in range(chosen.accumulation)]
            learning_rate = learning_rate_at(state.position.step, total, chosen)
            outcome = train_step(
                state.model, state.optimizers, passes, learning_rate=learning_rate, clip_norm=chosen.clip_norm
            )
            step, loss = state.position.step + 1, outcome.loss
            state.position = replace(state.position, step=step)
            metrics = {
                "loss": round(loss, 5),
                "nats_per_note": round(outcome.nats_per_note, 5),
                "learning_rate": learning_rate,
                "gradient_norm": round(outcome.gradient_norm, 5),
                "tokens_per_second": round(outcome.num_targets / (time.monotonic() - step_started), 1),
            }
            write_metrics(metrics_file, {"step": step, **metrics})
            observer.on_step(step, metrics)
            if state.validation and (step % chosen.eval_every == 0 or step == total):
                validation = evaluate(state.model, state.validation)
                write_metrics(metrics_file, {"step": step, "validation": validation.to_dict()})
                observer.on_evaluation(step, validation)
                plot_losses(run / METRICS_FILE, run / LOSS_PICTURE, state.baseline)
            if step % chosen.checkpoint_every == 0 or step == total:
                _save(run, state, settings)
                saved_step = step
        if state.position.step != saved_step:  # asked to stop between two checkpoints
            _save(run, state, settings)
    if state.validation and first_step >= total:  # the run had ended already: say how it stands
        validation = evaluate(state.model, state.validation)
    plot_losses(run / METRICS_FILE, run / LOSS_PICTURE, state.baseline)
    seconds = time.monotonic() - started
    return TrainResult(run, state.position.step, total, loss, validation, state.baseline, seconds)


def _begin(shards: Path, run: Path, settings: Settings, *, resume: bool) -> _Run:
    """Data, model and optimisers of a new or a resumed run. A new run's folder is made when all else went well."""
    (refuse_missing if resume else refuse_existing)(run)
    device = choose_device(settings.training.device)
    plan = make_plan(shards, settings)
    torch.manual_seed(settings.training.seed)
    with torch.device(device):
        model = MeloFormer(settings.model, plan.shards.vocabulary)
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
    return _Run(plan, model, optimizers, position, validation, baseline)


def _save(run: Path, state: _Run, settings: Settings) -> None:
    save_checkpoint(
        run,
        state.model,
        state.optimizers,
        state.position,
        keep=settings.training.keep_checkpoints,
        facts=_facts(state.plan, settings),
    )


def _batches(state: _Run) -> Iterator[Batch]:
    """Batches without end from where the run stands, which is moved on with every one."""
    loader = state.plan.training
    while True:
        for ids in loader.batches(state.position.epoch, state.position.batch):
            state.position = replace(state.position, batch=state.position.batch + 1)
            yield Batch.of(list(ids), loader.vocabulary, device=state.model.device)
        state.position = replace(state.position, epoch=state.position.epoch + 1, batch=0)


def _facts(plan: Plan, settings: Settings) -> dict[str, Any]:
    """What a resumed run must have in common with the run that it goes on from; the rest may change."""
    names = ("seq_len", "batch_size", "accumulation", "optimizer", "seed")
    return {
        "training data": plan.training.documents.fingerprint,
        **{f"model.{name}": value for name, value in settings.model.model_dump(mode="json").items()},
        **{f"training.{name}": getattr(settings.training, name) for name in names},
    }

"""The training loop: step, log, validate, save, until the steps are done or someone asks it to stop."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from meloformer.errors import MeloFormerError
from meloformer.interruption import stop_signals
from meloformer.model.weights import checkpoints_of
from meloformer.settings import Settings
from meloformer.training.loss import Evaluation, evaluate
from meloformer.training.optimizer import learning_rate_at
from meloformer.training.plot import plot_losses
from meloformer.training.run_folder import LOSS_PICTURE, METRICS_FILE, write_metrics
from meloformer.training.state import RunState, batches_of, begin, save
from meloformer.training.step import StepOutcome, train_step

MOST_SKIPPED = 10
"""Steps in a row; a gradient scaler finds its scale in fewer."""


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
    interrupted: bool
    """Whether a signal ended the run before its last step; everything so far is in a checkpoint."""
    skipped: int
    """Steps of the whole run without an update, because loss or gradient was not finite."""

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "run": str(self.run),
            "step": self.step,
            "total_steps": self.total_steps,
            "interrupted": self.interrupted,
            "skipped_steps": self.skipped,
            "loss": None if math.isnan(self.loss) else round(self.loss, 5),
            "validation": self.validation and self.validation.to_dict(),
            "unigram_baseline": self.baseline and self.baseline.to_dict(),
            "seconds": round(self.seconds, 2),
        }


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
        MeloFormerError: Loss or gradient were not finite for ``MOST_SKIPPED`` steps in a row.
    """
    started = time.monotonic()
    observer = observer or _Silence()
    state = begin(shards, run, settings, resume=resume)
    chosen, total = settings.training, state.plan.total_steps
    first_step = saved_step = state.position.step
    loss, validation = math.nan, None
    observer.on_start(total, first_step)
    batches, in_a_row = batches_of(state), 0
    ends_at = math.inf if chosen.max_hours is None else started + 3600 * chosen.max_hours
    with stop_signals() as stop, (run / METRICS_FILE).open("a", encoding="utf-8") as metrics_file:
        while state.position.step < total and not stop.is_set() and time.monotonic() < ends_at:
            step_started = time.monotonic()
            passes = [next(batches) for _ in range(chosen.accumulation)]
            learning_rate = learning_rate_at(state.position.step, total, chosen)
            outcome = train_step(
                state.model,
                state.optimizers,
                passes,
                learning_rate=learning_rate,
                clip_norm=chosen.clip_norm,
                precision=state.precision,
            )
            step, loss = state.position.step + 1, outcome.loss
            state.position = replace(state.position, step=step)
            in_a_row = _skipped_in_a_row(state, outcome, in_a_row, run)
            if in_a_row:
                continue
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
                save(run, state, settings)
                saved_step = step
        if state.position.step != saved_step:  # asked to stop between two checkpoints
            save(run, state, settings)
    if state.validation and first_step >= total:  # the run had ended already: say how it stands
        validation = evaluate(state.model, state.validation)
    plot_losses(run / METRICS_FILE, run / LOSS_PICTURE, state.baseline)
    seconds = time.monotonic() - started
    return TrainResult(
        run=run,
        step=state.position.step,
        total_steps=total,
        loss=loss,
        validation=validation,
        baseline=state.baseline,
        seconds=seconds,
        interrupted=stop.is_set() and state.position.step < total,
        skipped=state.position.skipped,
    )


def _skipped_in_a_row(state: RunState, outcome: StepOutcome, before: int, run: Path) -> int:
    """Count a step that was skipped.

    Args:
        state: Its position counts them all.
        outcome: Of the step.
        before: How many just before it were skipped.
        run: For the advice.
    Returns:
        How many have been skipped in a row; 0 where this one was taken.
    Raises:
        MeloFormerError: Too many.
    """
    if outcome.is_finite:
        return 0
    state.position = replace(state.position, skipped=state.position.skipped + 1)
    if before + 1 < MOST_SKIPPED:
        return before + 1
    good = next(iter(checkpoints_of(run)), None)
    raise MeloFormerError(
        f"the loss is {outcome.loss:.6g} and its gradient's norm {outcome.gradient_norm:.6g}, and one of them was not "
        f"finite {MOST_SKIPPED} steps in a row",
        f"go on from the last good checkpoint, {good}, with --resume and a lower --set training.learning_rate"
        if good
        else "begin again with a lower --set training.learning_rate",
    )

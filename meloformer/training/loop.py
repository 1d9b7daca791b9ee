"""The training loop: step, log, validate, sample, save, until the steps are done or someone asks it to stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from meloformer.errors import MeloFormerError, ShardError
from meloformer.interruption import stop_signals
from meloformer.model.meloformer import MeloFormer
from meloformer.model.weights import best_checkpoint, checkpoints_of
from meloformer.settings import Settings
from meloformer.training.distributed import ALONE, Ranks
from meloformer.training.loading import Pass
from meloformer.training.log import RunLog
from meloformer.training.loss import Evaluation, evaluate
from meloformer.training.optimizer import learning_rate_at
from meloformer.training.plot import plot_losses
from meloformer.training.result import Observer, Silence, TrainResult
from meloformer.training.run_folder import LOSS_PICTURE, METRICS_FILE, SAMPLES_FOLDER
from meloformer.training.state import RunState, begin, passes_of, save, saved_at_the_end
from meloformer.training.step import StepOutcome, train_step

MOST_SKIPPED = 10
"""Steps in a row; a gradient scaler finds its scale in fewer."""

Sampler = Callable[[MeloFormer, Path], None]
"""Writes a short piece by a model to a path. How pieces are made is nothing that training knows."""


def train(
    shards: Path,
    run: Path,
    settings: Settings,
    *,
    resume: bool = False,
    observer: Observer | None = None,
    sampler: Sampler | None = None,
    ranks: Ranks = ALONE,
) -> TrainResult:
    """Train a model.

    SIGINT and SIGTERM end the run after the step in hand, with a checkpoint; a second one ends it at once. Where
    something beside the model ends it (another process that has gone, shards that are damaged), the steps taken so far
    are saved first.

    Args:
        shards: What ``pack`` wrote.
        run: Folder of the run; new, unless ``resume``.
        settings: Sections ``model`` and ``training`` count.
        resume: Go on from the newest whole checkpoint of ``run``, or from the start where it has none yet.
        observer: Told of every step.
        sampler: Called every ``training.sample_every`` steps.
        ranks: The processes that train together, each of which calls this.
    Raises:
        InputError: There are no shards, or no run to resume.
        ShardError: The shards have nothing to train on, or more of them is damaged than is allowed.
        OutputError: ``run`` exists already, or cannot be written.
        CheckpointError: What is to be resumed was made with other settings, or is damaged.
        RankError: Another rank, or a process that reads ahead, has gone.
        MeloFormerError: Loss or gradient were not finite for ``MOST_SKIPPED`` steps in a row.
    """
    started = time.monotonic()
    settings = settings.with_training(shards=shards)  # so that what is written down reproduces the run
    state = begin(shards, run, settings, resume=resume, ranks=ranks)
    hours, first_step = settings.training.max_hours, state.position.step
    ends_at = math.inf if hours is None else started + 3600 * hours
    with ExitStack() as inside:
        log = inside.enter_context(RunLog.of(run, first_step, ranks))
        passes = inside.enter_context(passes_of(state, settings))
        watcher = observer if observer is not None and ranks.is_first else Silence()
        loop = _Loop(run, state, settings, log, watcher, sampler)
        watcher.on_start(state.plan.total_steps, first_step)
        stop = inside.enter_context(stop_signals(ignore_more=ranks.size > 1))
        inside.enter_context(saved_at_the_end(run, state, settings))
        is_interrupted = False
        while state.position.step < state.plan.total_steps:
            is_interrupted, is_over = ranks.any(stop.is_set(), time.monotonic() > ends_at)
            if is_interrupted or is_over:
                break
            loop.take_step(passes)
        if first_step >= state.plan.total_steps:  # the run had ended already: say how it stands
            loop.validate()
    if ranks.is_first:
        plot_losses(run / METRICS_FILE, run / LOSS_PICTURE, state.baseline)
    return TrainResult(
        run=run,
        step=state.position.step,
        total_steps=state.plan.total_steps,
        loss=loop.loss,
        validation=loop.validation,
        baseline=state.baseline,
        seconds=time.monotonic() - started,
        interrupted=is_interrupted,
        skipped=state.position.skipped,
        damaged=len(state.damage),
        best=best_checkpoint(run),
    )


@dataclass
class _Loop:
    """A step, and what is due after it; see :func:`train` for the fields."""

    run: Path
    state: RunState
    settings: Settings
    log: RunLog
    watcher: Observer
    sampler: Sampler | None
    loss: float = math.nan
    validation: Evaluation | None = None
    skipped_in_a_row: int = 0

    def take_step(self, passes: Iterator[list[Pass]]) -> None:
        """Read, compute, log, and see to what is due."""
        state, chosen = self.state, self.settings.training
        started = time.monotonic()
        ours = next(passes)
        waited = time.monotonic() - started
        for message in _new_damage(state, ours, chosen.max_damaged):
            self.log.damage(state.position.step, message)
            self.watcher.on_damage(message)
        learning_rate = learning_rate_at(state.position.step, state.plan.total_steps, chosen)
        outcome = train_step(
            state.model,
            state.optimizers,
            ours,
            learning_rate=learning_rate,
            clip_norm=chosen.clip_norm,
            precision=state.precision,
            ranks=state.ranks,
            network=state.network,
        )
        self.loss = outcome.loss
        step, row = state.position.step + 1, state.position.row + state.plan.rows_per_step
        state.position = replace(state.position, step=step, row=row)
        self.skipped_in_a_row = _skipped_in_a_row(state, outcome, self.skipped_in_a_row, self.run)
        if not self.skipped_in_a_row:
            self._tell(outcome, learning_rate, waited, time.monotonic() - started)
            self._see_to_what_is_due()

    def validate(self) -> None:
        """Of the weights as they are, where the shards have a validation split."""
        if self.state.validation:
            with self.state.precision.layers(self.state.model.device):
                self.validation = evaluate(self.state.model, self.state.validation)

    def _tell(self, outcome: StepOutcome, learning_rate: float, waited: float, seconds: float) -> None:
        metrics = {
            "loss": round(outcome.loss, 5),
            "nats_per_note": round(outcome.nats_per_note, 5),
            "learning_rate": learning_rate,
            "gradient_norm": round(outcome.gradient_norm, 5),
            "tokens_per_second": round(outcome.num_targets / seconds, 1),
            "data_wait": round(waited / seconds, 5),
        }
        self.log.step(self.state.position.step, metrics)
        self.watcher.on_step(self.state.position.step, metrics)

    def _see_to_what_is_due(self) -> None:
        """Validation, a sample, a checkpoint."""
        state, chosen, step = self.state, self.settings.training, self.state.position.step
        is_saved = step % chosen.checkpoint_every == 0 or step == state.plan.total_steps
        if is_saved or step % chosen.eval_every == 0:
            self.validate()
            if self.validation is not None:
                self.log.validation(step, self.validation)
                self.watcher.on_evaluation(step, self.validation)
                plot_losses(self.run / METRICS_FILE, self.run / LOSS_PICTURE, state.baseline)
        if self.sampler and state.ranks.is_first and chosen.sample_every and step % chosen.sample_every == 0:
            self.sampler(state.model, self.run / SAMPLES_FOLDER / f"step-{step:06d}.mid")
        if is_saved:
            save(self.run, state, self.settings, self.validation)


def _new_damage(state: RunState, passes: Sequence[Pass], limit: int) -> list[str]:
    """Count the documents that some rank found damaged just now.

    Args:
        state: Knows those of before; also what was found when documents were cut, which is told with the first step.
        passes: Of this rank.
        limit: How many may be damaged.
    Returns:
        A message for each that was not known.
    Raises:
        ShardError: There are too many.
    """
    found = {**state.plan.damage} if not state.damage else {}
    for each in passes:
        found.update(each.damage)
    found = {document: message for document, message in found.items() if document not in state.damage}
    if not any(state.ranks.any(bool(found))):
        return []
    before = len(state.damage)
    for theirs in state.ranks.gathered(found):
        state.damage.update(theirs)
    if len(state.damage) > limit:
        raise ShardError(
            f"{len(state.damage)} documents are damaged, more than training.max_damaged = {limit}; the last: "
            f"{list(state.damage.values())[-1]}",
            "then go on with --resume",
        )
    return list(state.damage.values())[before:]


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

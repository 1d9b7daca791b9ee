"""Train one variant for so many steps, or for so long, or to several ends from one run, and measure it.

With several, the learning rate stays up after its rise, and before each end a copy of the run goes down to that end by
itself (``training.schedule=wsd``). One run so tells of equal steps and of equal time.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.plain import PlainTransformer, name_in_meloformer, of_same_shape
from meloformer.errors import MeloFormerError, SettingsError, ShardError
from meloformer.evaluation.prediction import Prediction, measure_prediction
from meloformer.model.batch import Batch
from meloformer.model.device import choose_device
from meloformer.model.meloformer import MeloFormer
from meloformer.settings import Settings
from meloformer.training.loading import Pass
from meloformer.training.loop import MOST_SKIPPED
from meloformer.training.loss import evaluate, unigram_nats
from meloformer.training.optimizer import Optimizers, learning_rate_at, make_optimizers
from meloformer.training.plan import Plan, make_plan
from meloformer.training.state import start_from
from meloformer.training.step import Precision, train_step

PARTS_OF_A_RUN = 100_000
"""The schedule of the learning rate of a run that ends by the clock goes by so many parts of its time."""
LAST_STEPS = 50
CURVE_ROWS = 8
"""Rows of the validation split that the curve is measured on."""
Told = Callable[[int, float, float], None]
"""Called after a step with its number, the share of the run that is done, and the loss."""


@dataclass(frozen=True)
class Budget:
    """How long a variant is trained: for steps, or for minutes."""

    steps: int | None = None
    minutes: float | None = None

    def done(self, step: int, seconds: float) -> float:
        """Share of the run behind ``step`` steps and ``seconds``, 1 at its end."""
        if self.minutes is not None:
            return min(seconds / (60 * self.minutes), 1.0)
        assert self.steps is not None
        return step / self.steps


@dataclass(frozen=True)
class Outcome:
    """What became of a variant at one of its ends."""

    budget: Budget
    steps: int
    seconds: float
    """Of all steps but the first, in which kernels may be compiled: CPU time of the process, on CUDA wall time."""
    parameters: int
    targets: int
    """Tokens that were predicted in training."""
    training_loss: float
    """Mean of the last steps, nats a token."""
    prediction: Prediction
    """On all rows of the validation split."""
    evaluation_seconds: float
    curve: list[dict[str, float]]
    """Before the learning rate fell: ``steps``, ``seconds`` and ``nats_per_note`` on the first ``CURVE_ROWS`` rows of
    the validation split."""
    model: MeloFormer | PlainTransformer


def train_variant(
    shards: Path,
    settings: Settings,
    budgets: Sequence[Budget],
    *,
    plain: bool = False,
    rise: Budget | None = None,
    curve_every: int | None = None,
    told: Told | None = None,
) -> Iterator[Outcome]:
    """Train and measure. Same seed, same rows in the same order, whatever the variant.

    Args:
        shards: What ``pack`` wrote.
        settings: Sections ``model`` and ``training``; the number of steps is the budget's.
        budgets: When to stop.
        plain: The plain causal transformer of the same shape.
        rise: By whose schedule the learning rate rises on the way to all of them; by default the first one's.
        curve_every: Steps between two points of the curve; by default there is none.
        told: Told of every step.
    Yields:
        The outcome at every end, in the order in which they come.
    Raises:
        InputError, ShardError: The shards are missing, damaged, or without training or validation documents.
        SettingsError: There are several ends, and the schedule does not stay up until the first of them.
        MeloFormerError: Loss or gradient were not finite for ``MOST_SKIPPED`` steps in a row.
    """
    if len(budgets) > 1 and settings.training.schedule != "wsd":
        raise SettingsError("one run with several ends needs training.schedule=wsd", "ask for one end")
    plan = make_plan(shards, settings)
    if not plan.validation.fragments:
        raise ShardError(f"{shards} has no validation documents", "make shards with a larger --set pack.val_share")
    run = Run.started(plan, settings, plain=plain)
    for budget, ended in run.to_ends(budgets, rise or budgets[0], curve_every, told):
        started = ended.clock()
        vocabulary = plan.shards.vocabulary
        rows = (Batch.of(list(ids), vocabulary, device=ended.model.device) for ids in plan.validation.batches(epoch=0))
        prediction = measure_prediction(ended.model, rows, unigram_nats(plan.training.documents, vocabulary))
        yield Outcome(
            budget=budget,
            steps=ended.step,
            seconds=ended.seconds,
            parameters=sum(parameter.numel() for parameter in ended.model.parameters()),
            targets=ended.targets,
            training_loss=float(np.mean(ended.losses[-LAST_STEPS:])),
            prediction=prediction,
            evaluation_seconds=ended.clock() - started,
            curve=list(run.curve),
            model=ended.model,
        )


@dataclass
class Run:
    """A model on its way."""

    plan: Plan
    settings: Settings
    model: MeloFormer
    optimizers: Optimizers
    precision: Precision
    clock: Callable[[], float]
    step: int = 0
    seconds: float = 0.0
    targets: int = 0
    skipped: int = 0
    losses: list[float] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def started(cls, plan: Plan, settings: Settings, *, plain: bool) -> Run:
        """With fresh weights, or those of ``training.init``."""
        chosen, vocabulary = settings.training, plan.shards.vocabulary
        device = choose_device(chosen.device)
        torch.manual_seed(chosen.seed)
        with torch.device(device):
            model: Any = (
                PlainTransformer(settings.model, vocabulary, apart=True)
                if plain
                else MeloFormer(settings.model, vocabulary)
            )
        model.seq_len = chosen.seq_len
        if chosen.init is not None:
            (_start_plain_from if plain else start_from)(chosen.init, model)
        precision = Precision.of(chosen.precision or ("bf16" if device.type == "cuda" else "fp32"), device)
        return cls(plan, settings, model, make_optimizers(model, chosen), precision, _clock(device))

    def copied(self) -> Run:
        """Another run that goes on from here."""
        model = copy.deepcopy(self.model)
        optimizers = make_optimizers(model, self.settings.training)
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(copy.deepcopy(self.optimizers[name].state_dict()))
        precision = Precision(self.precision.dtype, copy.deepcopy(self.precision.scaler))
        other = copy.copy(self)
        other.model, other.optimizers, other.precision = model, optimizers, precision
        other.losses = self.losses.copy()
        return other

    def to_ends(
        self, budgets: Sequence[Budget], rise: Budget, curve_every: int | None, told: Told | None
    ) -> Iterator[tuple[Budget, Run]]:
        """Every budget with the run at its end; this one goes on to the end that comes last."""
        left, falls_at = list(budgets), 1 - self.settings.training.decay_share
        while left:
            due = [budget for budget in left if budget.done(self.step, self.seconds) >= falls_at or len(left) == 1]
            for budget in due:
                left.remove(budget)
                run = self.copied() if left else self
                while (done := budget.done(run.step, run.seconds)) < 1:
                    if run is self:
                        self._note_curve(curve_every, is_up=done < falls_at)
                    run.take_step(run._place(budget, rise), told)
                yield budget, run
            if left:
                self._note_curve(curve_every, is_up=True)
                self.take_step(self._place(left[0], rise), told)

    def _place(self, end: Budget, rise: Budget) -> float:
        """The place on the schedule on the way to an end; the way up is the same to every end of a run."""
        chosen, done = self.settings.training, end.done(self.step, self.seconds)
        if chosen.schedule != "wsd" or end == rise:
            return done
        falls_at = 1 - chosen.decay_share
        if done >= falls_at:
            return max(done, chosen.warmup_share)
        return min(rise.done(self.step, self.seconds), falls_at)

    def take_step(self, done: float, told: Told | None = None) -> None:
        """One step of the learning rate that belongs to a share of the run."""
        chosen, started = self.settings.training, self.clock()
        first = self.step * chosen.accumulation
        passes = [Pass(self._batch(number)) for number in range(first, first + chosen.accumulation)]
        rate = learning_rate_at(round(done * PARTS_OF_A_RUN), PARTS_OF_A_RUN, chosen)
        outcome = train_step(
            self.model,
            self.optimizers,
            passes,
            learning_rate=rate,
            clip_norm=chosen.clip_norm,
            precision=self.precision,
        )
        self.seconds += self.clock() - started if self.step else 0.0
        self.step += 1
        self.skipped = 0 if outcome.is_finite else self.skipped + 1
        if self.skipped >= MOST_SKIPPED:
            raise MeloFormerError(f"loss or gradient was not finite {MOST_SKIPPED} steps in a row, at step {self.step}")
        self.targets += outcome.num_targets
        self.losses.append(outcome.loss)
        if told is not None:
            told(self.step, done, outcome.loss)

    def _batch(self, number: int) -> Batch:
        """Batches are counted on from epoch to epoch."""
        size = self.settings.training.batch_size
        ids, damage = self.plan.training.read(range(number * size, (number + 1) * size))
        if damage:
            raise ShardError(next(iter(damage.values())))
        return Batch.of(list(ids), self.plan.shards.vocabulary, device=self.model.device)

    def _note_curve(self, every: int | None, *, is_up: bool) -> None:
        """A point of the curve, if it is time."""
        if every is None or not is_up or self.step % every or not self.step:
            return
        rows = self.plan.validation_rows(CURVE_ROWS)
        batches = (Batch.of(list(ids), self.plan.shards.vocabulary, device=self.model.device) for ids in rows)
        loss = evaluate(self.model, batches).per_note
        self.curve.append({"steps": self.step, "seconds": round(self.seconds, 2), "nats_per_note": round(loss, 5)})


def _start_plain_from(source: Path, plain: PlainTransformer) -> None:
    """Take over weights that were written by way of :func:`as_meloformer`; raises as ``start_from`` does."""
    model = of_same_shape(plain)
    start_from(source, model)
    weights = model.state_dict()
    plain.load_state_dict({name: weights[name_in_meloformer(name)] for name in plain.state_dict()})


def _clock(device: torch.device) -> Callable[[], float]:
    """CPU time of this process: what else the machine does is not counted. A GPU's time is the wall's."""
    if device.type == "cpu":
        return time.process_time

    def wall() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return wall

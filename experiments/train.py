"""Train one variant for so many steps, or for so long, and measure it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from experiments.plain import PlainTransformer
from meloformer.errors import MeloFormerError, ShardError
from meloformer.evaluation.prediction import Prediction, measure_prediction
from meloformer.model.batch import Batch
from meloformer.model.device import choose_device
from meloformer.model.meloformer import MeloFormer
from meloformer.settings import Settings
from meloformer.training.loading import Pass
from meloformer.training.loop import MOST_SKIPPED
from meloformer.training.loss import unigram_nats
from meloformer.training.optimizer import learning_rate_at, make_optimizers
from meloformer.training.plan import Plan, make_plan
from meloformer.training.step import Precision, train_step

PARTS_OF_A_RUN = 100_000
"""The schedule of the learning rate of a run that ends by the clock goes by so many parts of its time."""
LAST_STEPS = 50
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

    def to_dict(self) -> dict[str, float]:
        """What is given."""
        return {"minutes": self.minutes} if self.minutes is not None else {"steps": self.steps or 0}


@dataclass(frozen=True)
class Outcome:
    """What became of a variant."""

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


def train_variant(
    shards: Path, settings: Settings, budget: Budget, *, plain: bool = False, told: Told | None = None
) -> Outcome:
    """Train and measure. Same seed, same rows in the same order, whatever the variant.

    Args:
        shards: What ``pack`` wrote.
        settings: Sections ``model`` and ``training``; the number of steps is the budget's.
        budget: When to stop.
        plain: The plain causal transformer of the same shape.
        told: Told of every step.
    Raises:
        InputError, ShardError: The shards are missing, damaged, or without training or validation documents.
        MeloFormerError: Loss or gradient were not finite for ``MOST_SKIPPED`` steps in a row.
    """
    plan = make_plan(shards, settings)
    if not plan.validation.fragments:
        raise ShardError(f"{shards} has no validation documents", "make shards with a larger --set pack.val_share")
    vocabulary, device = plan.shards.vocabulary, choose_device(settings.training.device)
    torch.manual_seed(settings.training.seed)
    with torch.device(device):
        model = (
            PlainTransformer(settings.model, vocabulary, apart=True)
            if plain
            else MeloFormer(settings.model, vocabulary)
        )
    steps, seconds, targets, losses = _trained(model, plan, settings, budget, told)  # pyright: ignore[reportArgumentType]
    clock, started = _clock(device), 0.0
    started = clock()
    rows = (Batch.of(list(ids), vocabulary, device=device) for ids in plan.validation.batches(epoch=0))
    prediction = measure_prediction(model, rows, unigram_nats(plan.training.documents, vocabulary))
    return Outcome(
        steps=steps,
        seconds=seconds,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        targets=targets,
        training_loss=float(np.mean(losses[-LAST_STEPS:])),
        prediction=prediction,
        evaluation_seconds=clock() - started,
    )


def _trained(
    model: MeloFormer, plan: Plan, settings: Settings, budget: Budget, told: Told | None
) -> tuple[int, float, int, list[float]]:
    """Steps, seconds, targets, and the losses of all steps."""
    chosen = settings.training
    optimizers = make_optimizers(model, chosen)
    precision = Precision.of(chosen.precision or ("bf16" if model.device.type == "cuda" else "fp32"), model.device)
    clock, batches = _clock(model.device), _batches(plan, model.device)
    step, seconds, targets, skipped = 0, 0.0, 0, 0
    losses: list[float] = []
    while (done := budget.done(step, seconds)) < 1:
        rate = learning_rate_at(round(done * PARTS_OF_A_RUN), PARTS_OF_A_RUN, chosen)
        started = clock()
        passes = [Pass(next(batches)) for _ in range(chosen.accumulation)]
        outcome = train_step(
            model, optimizers, passes, learning_rate=rate, clip_norm=chosen.clip_norm, precision=precision
        )
        seconds += clock() - started if step else 0.0
        step += 1
        skipped = 0 if outcome.is_finite else skipped + 1
        if skipped >= MOST_SKIPPED:
            raise MeloFormerError(f"loss or gradient was not finite {MOST_SKIPPED} steps in a row, at step {step}")
        targets += outcome.num_targets
        losses.append(outcome.loss)
        if told is not None:
            told(step, budget.done(step, seconds), outcome.loss)
    return step, seconds, targets, losses


def _batches(plan: Plan, device: torch.device) -> Iterator[Batch]:
    """Without end."""
    epoch = 0
    while True:
        for ids in plan.training.batches(epoch):
            yield Batch.of(list(ids), plan.shards.vocabulary, device=device)
        epoch += 1


def _clock(device: torch.device) -> Callable[[], float]:
    """CPU time of this process: what else the machine does is not counted. A GPU's time is the wall's."""
    if device.type == "cpu":
        return time.process_time

    def wall() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return wall

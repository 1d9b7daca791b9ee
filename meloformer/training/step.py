"""One optimiser step: forward, backward, clip, update."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from meloformer.errors import MeloFormerError
from meloformer.model.batch import Batch
from meloformer.model.meloformer import MeloFormer
from meloformer.tokens.vocabulary import TokenType
from meloformer.training.loss import target_losses
from meloformer.training.optimizer import Optimizers


@dataclass(frozen=True)
class StepOutcome:
    """What a step did."""

    loss: float
    """Mean over all targets of the step before its update, in nats."""
    gradient_norm: float
    """Before clipping."""
    num_targets: int
    num_notes: int
    """Notes among the targets; every note has one pitch."""

    @property
    def nats_per_note(self) -> float:
        """The loss of all targets by the number of notes."""
        return self.loss * self.num_targets / max(self.num_notes, 1)


def train_step(
    model: MeloFormer, optimizers: Optimizers, passes: Sequence[Batch], *, learning_rate: float, clip_norm: float
) -> StepOutcome:
    """Take one step over several passes, as if they were one batch.

    Every target weighs the same, whichever pass it is in: the loss is divided by the targets of all passes.

    Args:
        model: Its weights are changed.
        optimizers: Of the model.
        passes: Batches, on the model's device, with at least one target among them.
        learning_rate: Of this step.
        clip_norm: The gradient is scaled down to this norm.
    Raises:
        MeloFormerError: Loss or gradient is not finite; weights and optimisers are untouched.
    """
    model.train()
    num_targets = sum(batch.num_targets for batch in passes)
    summed = 0.0
    for batch in passes:
        loss = target_losses(model(batch), batch).sum() / num_targets
        loss.backward()
        summed += float(loss.detach())
    gradient_norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm))
    is_finite = math.isfinite(summed) and math.isfinite(gradient_norm)
    for optimizer in optimizers.values():
        if is_finite:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    if not is_finite:
        raise MeloFormerError(
            f"the loss is {summed:.6g} and its gradient's norm {gradient_norm:.6g}",
            "go on from the last checkpoint with --resume and a lower --set training.learning_rate",
        )
    num_notes = sum(int((batch.is_target & (batch.type == TokenType.PITCH)).sum()) for batch in passes)
    return StepOutcome(summed, gradient_norm, num_targets, num_notes)

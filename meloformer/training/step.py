"""One optimiser step: forward, backward, clip, update."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from meloformer.model.meloformer import MeloFormer
from meloformer.tokens.vocabulary import TokenType
from meloformer.training.distributed import ALONE, Ranks, only_here, watching
from meloformer.training.loading import Pass
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
    def is_finite(self) -> bool:
        """Whether the step was taken; otherwise weights and optimisers are as they were."""
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)

    @property
    def nats_per_note(self) -> float:
        """The loss of all targets by the number of notes."""
        return self.loss * self.num_targets / max(self.num_notes, 1)


PrecisionName = Literal["fp32", "bf16", "fp16"]


def default_precision(device: torch.device) -> PrecisionName:
    """The fastest that needs no care."""
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


@dataclass(frozen=True)
class Precision:
    """The dtype of the layers; weights and optimisers stay in fp32."""

    dtype: torch.dtype | None = None
    """``None``: fp32 throughout."""
    scaler: torch.amp.GradScaler | None = None
    """For fp16, whose small gradients would vanish."""

    @classmethod
    def of(cls, name: PrecisionName, device: torch.device) -> Precision:
        """By its name in the settings."""
        if name == "fp32":
            return cls()
        if name == "bf16":
            return cls(torch.bfloat16)
        return cls(torch.float16, torch.amp.GradScaler(device.type))

    def layers(self, device: torch.device) -> AbstractContextManager[object]:
        """Inside, layers are computed in the dtype."""
        return nullcontext() if self.dtype is None else torch.autocast(device.type, dtype=self.dtype)

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss to take gradients of."""
        return loss if self.scaler is None else self.scaler.scale(loss)


def train_step(
    model: MeloFormer,
    optimizers: Optimizers,
    passes: Sequence[Pass],
    *,
    learning_rate: float,
    clip_norm: float,
    precision: Precision | None = None,
    ranks: Ranks = ALONE,
    network: nn.Module | None = None,
) -> StepOutcome:
    """Take one step over several passes, as if they were one batch.

    Every target weighs the same, whichever pass of whichever rank it is in: the loss is divided by the targets of all.

    Args:
        model: Its weights are changed.
        optimizers: Of the model.
        passes: Of this rank, on the model's device.
        learning_rate: Of this step.
        clip_norm: The gradient is scaled down to this norm.
        precision: By default fp32.
        ranks: Who takes the step together.
        network: The model as :meth:`Ranks.replicated` has it; by default ``model``.
    Returns:
        What was done. Where loss or gradient is not finite nothing was: weights and optimisers are untouched.
    Raises:
        RankError: Another rank has gone; weights and optimisers are untouched.
    """
    precision = precision or Precision()
    scaler = precision.scaler
    model.train()
    network = model if network is None else network
    num_targets, num_notes = (int(total) for total in ranks.summed(*_counts(passes)))
    summed = 0.0
    for number, each in enumerate(passes, start=1):
        with ExitStack() as inside:
            inside.enter_context(watching())
            if number < len(passes):
                inside.enter_context(only_here(network))
            with precision.layers(model.device):
                logits = network(each.batch, each.layout)
            loss = target_losses(logits, each.batch).sum() / max(num_targets, 1)
            precision.scaled(loss * ranks.size).backward()  # over the ranks the mean is taken
            summed += float(loss.detach())
    (summed,) = ranks.summed(summed)
    if scaler is not None:
        for optimizer in optimizers.values():
            scaler.unscale_(optimizer)
    gradient_norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm))
    outcome = StepOutcome(summed, gradient_norm, num_targets, num_notes)
    for optimizer in optimizers.values():
        if outcome.is_finite:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    if scaler is not None:
        scaler.update()
    return outcome


def _counts(passes: Sequence[Pass]) -> tuple[int, int]:
    """Targets, and notes among them."""
    batches = [each.batch for each in passes]
    notes = sum(int((batch.is_target & (batch.type == TokenType.PITCH)).sum()) for batch in batches)
    return sum(batch.num_targets for batch in batches), notes

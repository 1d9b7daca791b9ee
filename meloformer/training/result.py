"""How a run goes and how it ended, for those who watch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from meloformer.training.loss import Evaluation


class Observer(Protocol):
    """Told what happens, on the first rank; nothing in this package prints."""

    def on_start(self, total_steps: int, first_step: int) -> None:
        """The loop begins, at ``first_step`` where a run is resumed."""

    def on_step(self, step: int, metrics: dict[str, float]) -> None:
        """A step was taken.

        ``metrics`` has ``loss`` (nats a token), ``nats_per_note``, ``learning_rate``, ``gradient_norm`` (before
        clipping), ``tokens_per_second`` (targets of all ranks, the wait for data included) and ``data_wait`` (the share
        of the step that this was).
        """

    def on_evaluation(self, step: int, validation: Evaluation) -> None:
        """The validation rows were read."""

    def on_damage(self, message: str) -> None:
        """A document turned out to be damaged, and is left out from now on."""


class Silence(Observer):
    """Takes the place of an observer that is not there."""


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
    damaged: int
    """Documents that were left out, because they are damaged."""
    best: Path | None
    """Of the checkpoints that are kept, the one with the lowest validation loss."""

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "run": str(self.run),
            "step": self.step,
            "total_steps": self.total_steps,
            "interrupted": self.interrupted,
            "skipped_steps": self.skipped,
            "damaged_documents": self.damaged,
            "loss": None if math.isnan(self.loss) else round(self.loss, 5),
            "validation": self.validation and self.validation.to_dict(),
            "unigram_baseline": self.baseline and self.baseline.to_dict(),
            "best_checkpoint": self.best and str(self.best),
            "seconds": round(self.seconds, 2),
        }

"""What a run tells of itself: a line for every event in ``metrics.jsonl``, and the same as TensorBoard events."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from meloformer.training.distributed import Ranks
from meloformer.training.loss import Evaluation
from meloformer.training.run_folder import EVENTS_FOLDER, METRICS_FILE

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter


class RunLog:
    """Writes down what happens; on the first rank only.

    Args:
        metrics: ``metrics.jsonl``, opened to be written on.
        events: TensorBoard's.
    """

    def __init__(self, metrics: TextIO | None, events: SummaryWriter | None) -> None:
        self._metrics, self._events = metrics, events

    @classmethod
    def of(cls, run: Path, first_step: int, ranks: Ranks) -> RunLog:
        """The log of a run; what TensorBoard knows of steps after the first one is to be forgotten there."""
        if not ranks.is_first:
            return cls(None, None)
        from tensorboardX import SummaryWriter

        events = SummaryWriter(str(run / EVENTS_FOLDER), purge_step=first_step + 1, write_to_disk=True)
        return cls((run / METRICS_FILE).open("a", encoding="utf-8"), events)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._metrics:
            self._metrics.close()
        if self._events:
            self._events.close()

    def step(self, step: int, metrics: dict[str, float]) -> None:
        """A step was taken."""
        self._write({"step": step, **metrics})
        self._draw(step, "train", metrics)

    def validation(self, step: int, validation: Evaluation) -> None:
        """The validation rows were read."""
        self._write({"step": step, "validation": validation.to_dict()})
        means = {"nats_per_token": validation.per_token, "nats_per_note": validation.per_note}
        self._draw(step, "validation", means)
        self._draw(step, "validation_by_type", validation.by_type)

    def damage(self, step: int, message: str) -> None:
        """A document is damaged."""
        self._write({"step": step, "damaged": message})

    def _write(self, record: dict[str, Any]) -> None:
        if self._metrics:
            self._metrics.write(json.dumps(record, allow_nan=False) + "\n")
            self._metrics.flush()

    def _draw(self, step: int, group: str, values: dict[str, float]) -> None:
        if self._events:
            for name, value in values.items():
                self._events.add_scalar(f"{group}/{name}", value, step)

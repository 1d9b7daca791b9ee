"""What became of every input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from meloformer.shards.manifest import SplitCounts
from meloformer.shards.process import Reject, Result

Progress = Callable[[int, int], None]
"""Called with the number of files done and of all files."""


@dataclass
class Report:
    """Counts; ``kept`` and the rejects add up to ``inputs``."""

    inputs: int = 0
    kept: int = 0
    recovered: int = 0
    """How many of the kept are what could be read of a damaged file."""
    resumed: int = 0
    """How many of the inputs an earlier run, which was interrupted, had done."""
    discarded: int = 0
    """How many an interrupted run with other settings or files had done, which was thrown away."""
    rejects: Counter[str] = field(default_factory=Counter)
    """Reason -> number of files."""
    num_tokens: int = 0
    num_notes: int = 0
    splits: dict[str, SplitCounts] = field(default_factory=dict)
    """Of what was written; empty where no tokens are."""

    @property
    def tokens_per_note(self) -> float:
        """Mean over all kept notes; 0 without notes."""
        return self.num_tokens / self.num_notes if self.num_notes else 0.0

    def count(self, result: Result) -> None:
        """Count one file."""
        if isinstance(result, Reject):
            self.count_reject(result.reason)
        else:
            self.count_piece(len(result.ids), result.statistics.notes, result.recovered)

    def count_piece(self, num_tokens: int, num_notes: int, recovered: str | None) -> None:
        """Count a file that was kept."""
        self.inputs += 1
        self.kept += 1
        self.recovered += recovered is not None
        self.num_tokens += num_tokens
        self.num_notes += num_notes

    def count_reject(self, reason: str) -> None:
        """Count a file that was not."""
        self.inputs += 1
        self.rejects[reason] += 1

    def reasons(self) -> dict[str, int]:
        """Reason -> number of files, the commonest first."""
        return dict(sorted(self.rejects.items(), key=lambda item: (-item[1], item[0])))

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "inputs": self.inputs,
            "kept": self.kept,
            "recovered": self.recovered,
            "resumed": self.resumed,
            "rejected": self.rejects.total(),
            "rejects": self.reasons(),
            "num_documents": self.kept,
            "num_tokens": self.num_tokens,
            "num_notes": self.num_notes,
            "tokens_per_note": round(self.tokens_per_note, 4),
            "splits": {name: counts.model_dump(mode="json") for name, counts in self.splits.items()},
        }

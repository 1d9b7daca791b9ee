"""What became of every input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable
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

    def add(self, result: Result) -> None:
        """Count one file."""
        self.inputs += 1
        if isinstance(result, Reject):
            self.rejects[result.reason] += 1
            return
        self.kept += 1
        self.num_tokens += len(result.ids)
        self.num_notes += result.statistics.notes

    def counted(self, results: Iterable[Result], total: int, progress: Progress | None) -> Generator[Result]:
        """Hand on every result, count it, and tell ``progress`` when the receiver is done with it."""
        for done, result in enumerate(results, start=1):
            self.add(result)
            yield result
            if progress is not None:
                progress(done, total)

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "inputs": self.inputs,
            "kept": self.kept,
            "rejected": self.rejects.total(),
            "rejects": dict(self.rejects.most_common()),
            "num_documents": self.kept,
            "num_tokens": self.num_tokens,
            "num_notes": self.num_notes,
            "tokens_per_note": round(self.tokens_per_note, 4),
            "splits": {name: counts.model_dump(mode="json") for name, counts in self.splits.items()},
        }

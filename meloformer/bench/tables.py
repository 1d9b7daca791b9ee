"""What ``bench`` tells, as tables. Nothing here prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from meloformer.bench.fits import GIB, MIB
from meloformer.settings import Settings

ASSUMED_GPU_MEM = 32.0
"""GiB, where there is no GPU and none is named: what the first version was tried on."""
Progress = Callable[[int, int, str], None]
Tables = Iterator["Table"]
"""The same table again whenever a row is known, then the next: what Ctrl-C cuts short still has its rows."""


@dataclass(eq=False)
class Table:
    """A title, columns, rows, and what has to be said of them."""

    name: str
    """For ``--json``."""
    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    """The rows for ``--json``: plain values, bytes and seconds."""
    notes: list[str] = field(default_factory=list)
    found: Any = None
    """What later tables are made from."""

    def add(self, row: Sequence[str], record: dict[str, Any]) -> None:
        """One more row."""
        self.rows.append(row)
        self.records.append(record)

    def to_markdown(self) -> str:
        """The first column is text, the others are figures."""
        lines = [f"**{self.title}**", ""]
        lines += ["| " + " | ".join(self.columns) + " |", "|---|" + "---:|" * (len(self.columns) - 1)]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes)])


@dataclass(frozen=True)
class Wishes:
    """What is to be told."""

    settings: Settings
    grid: list[Settings] | None
    """Steps whose memory is asked for; ``None``: those that were published, in two ways of checkpointing."""
    sizes: list[Settings]
    """Sizes to fit into the GPU."""
    shards: Path | None
    gpu_mem: float
    """GiB."""
    device: torch.device


def gpu_memory(settings: Settings) -> float:
    """``bench.gpu_mem``, or that of the GPU here, or ``ASSUMED_GPU_MEM``; in GiB."""
    if settings.bench.gpu_mem is not None:
        return settings.bench.gpu_mem
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory / GIB
    return ASSUMED_GPU_MEM


def with_bench(settings: Settings, seq_len: int, batch_size: int) -> Settings:
    """Another shape of the step."""
    changes = {"seq_len": seq_len, "batch_size": batch_size}
    return settings.model_copy(update={"bench": settings.bench.model_copy(update=changes)})


def step_name(settings: Settings) -> str:
    """``small, 4,096 x 2``."""
    return f"{settings.model.size}, {settings.bench.seq_len:,} x {settings.bench.batch_size}"


def gib(count: float) -> str:
    """In GiB."""
    return f"{count / GIB:,.2f}"


def hours(count: float) -> str:
    """One digit behind the point, or two that are not 0."""
    return f"{count:,.1f}" if count >= 1 else f"{count:.2g}"


def mib(count: float) -> str:
    """In MiB."""
    return f"{count / MIB:,.0f} MiB"

"""Who sees whom: the rules of four-phase attention in plain PyTorch.

This is the reference that every faster path is tested against. A mask is True where the row's token may look at the
column's. All masks are dense, so memory grows with the square of the length.

A head family is one function from a batch to a key (equal keys see each other), or else a window of bars.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from meloformer.model.batch import NO_DOCUMENT, Batch
from meloformer.settings import HeadFamily, ModelSettings
from meloformer.tokens.attributes import GLOBAL
from meloformer.tokens.vocabulary import TokenType

EQUAL_KEY: dict[HeadFamily, Callable[[Batch], Tensor]] = {
    "track": lambda batch: batch.instrument,
    "onset": lambda batch: batch.onset,
    "pitch": lambda batch: batch.instrument * 256 + batch.pitch,
}
"""Family -> (B, T) key. Tokens without an onset or a pitch have -1 and form groups of their own."""

READS_SUMMARIES: tuple[HeadFamily, ...] = ("ensemble", "union")
"""The other families see nothing but their group."""


def regular_mask(batch: Batch, family: HeadFamily, settings: ModelSettings) -> Tensor:
    """(B, T, T) which regular tokens a regular token sees in the heads of one family (phase RR)."""
    if family in EQUAL_KEY:
        key = EQUAL_KEY[family](batch)
        visible = key[:, :, None] == key[:, None, :]
    else:
        visible = _in_window(batch, settings.bar_offsets) | (batch.instrument == GLOBAL)[:, None, :]
        if family == "union":
            visible = visible | (batch.instrument[:, :, None] == batch.instrument[:, None, :])
    if settings.type_rule:
        visible = visible & type_rule(batch)
    return _within_document(visible, batch)


def type_rule(batch: Batch) -> Tensor:
    """(B, T, T) the published rule of types: T and P see each other, V sees V, D only its own note."""
    structural = batch.note < 0
    of_place = (batch.type == TokenType.ONSET) | (batch.type == TokenType.PITCH)
    is_velocity = batch.type == TokenType.VELOCITY
    same_note = batch.note[:, :, None] == batch.note[:, None, :]
    both = [(column[:, :, None] & column[:, None, :]) for column in (of_place, is_velocity)]
    return structural[:, :, None] | structural[:, None, :] | same_note | both[0] | both[1]


def finished_mask(batch: Batch) -> Tensor:
    """(B, T, M) which summaries a regular token sees (phase RS): of the bars of its document before its own."""
    bars = torch.arange(batch.bar_document.shape[1], device=batch.ids.device)
    same = (batch.document[:, :, None] == batch.bar_document[:, None, :]) & (batch.document != NO_DOCUMENT)[:, :, None]
    return same & (bars < batch.bar[:, :, None])


def summary_mask(batch: Batch) -> Tensor:
    """(B, M, M) which summaries a summary sees (phase SS): of its document, up to its own."""
    same = batch.bar_document[:, :, None] == batch.bar_document[:, None, :]
    used = (batch.bar_document != NO_DOCUMENT)[:, :, None]
    itself = torch.eye(same.shape[1], dtype=torch.bool, device=same.device)
    return (same & used).tril() | itself


def own_bar_mask(batch: Batch) -> Tensor:
    """(B, M, T) which regular tokens a summary sees (phase SR): those of its bar."""
    bars = torch.arange(batch.bar_document.shape[1], device=batch.ids.device)
    return bars[None, :, None] == batch.bar[:, None, :]


def _in_window(batch: Batch, bar_offsets: tuple[int, ...]) -> Tensor:
    """(B, T, T) whether the column's bar is one of ``bar_offsets`` bars before the row's."""
    offset = batch.bar[:, :, None] - batch.bar[:, None, :]
    wanted = torch.zeros(max(bar_offsets) + 2, dtype=torch.bool, device=offset.device)
    wanted[list(bar_offsets)] = True
    return wanted[offset.clamp(-1, max(bar_offsets) + 1)]


def _within_document(visible: Tensor, batch: Batch) -> Tensor:
    """The mask cut to the past and to one document. Every token sees itself, PAD nothing else."""
    same = (batch.document[:, :, None] == batch.document[:, None, :]) & (batch.document != NO_DOCUMENT)[:, :, None]
    itself = torch.eye(visible.shape[1], dtype=torch.bool, device=visible.device)
    return (visible & same).tril() | itself


def draw(mask: Tensor, rows: list[str], columns: list[str] | None = None) -> str:
    """A mask as text: a line per row with its name, ``#`` where it sees the column and ``.`` where not.

    Args:
        mask: (R, C) bool.
        rows: R names.
        columns: C names, written downwards above the mask; by default none.
    """
    width = max(len(name) for name in rows)
    lines: list[str] = []
    if columns is not None:
        height = max(len(name) for name in columns)
        for level in range(height):
            lines.append(" " * (width + 1) + "".join(name.rjust(height)[level] for name in columns).rstrip())
    for name, row in zip(rows, mask.tolist(), strict=True):
        lines.append(f"{name:>{width}} " + "".join("#" if sees else "." for sees in row))
    return "\n".join(lines) + "\n"

"""Who sees whom: the rules of four-phase attention in plain PyTorch.

This is the reference that every faster path is tested against. A mask is True where the row's token may look at the
column's. All masks are dense, so memory grows with the square of the length.

A head family is one function from a batch to a key (equal keys see each other), or else a window of bars.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from meloformer.model.batch import NO_DOCUMENT, Batch
from meloformer.settings import HEAD_FAMILIES, HeadFamily, ModelSettings, Summaries, TypeRule
from meloformer.tokens.attributes import GLOBAL
from meloformer.tokens.vocabulary import NOTE_TYPES, NUM_TOKEN_TYPES, TokenType


class KnowsPlaces(Protocol):
    """Facts about tokens: all of a batch as (B, T) tensors, of a row as (T,) arrays, or of one token as numbers."""

    @property
    def instrument(self) -> Any:
        """Program, drums or global."""
        ...

    @property
    def onset(self) -> Any:
        """In the bar, -1 where there is none."""
        ...

    @property
    def pitch(self) -> Any:
        """Of the note, or of the note before, -1 where there is none."""
        ...

    @property
    def bar_of_document(self) -> Any:
        """Bars of the document before this one."""
        ...

    @property
    def chord(self) -> Any:
        """Value of the latest CHORD of the document, -1 before the first."""
        ...


EQUAL_KEY: dict[HeadFamily, Callable[[KnowsPlaces], Any]] = {
    "track": lambda facts: facts.instrument,
    "onset": lambda facts: facts.onset,
    "pitch": lambda facts: facts.instrument * 256 + facts.pitch,
}
"""Family -> key, in the shape of the facts. Tokens without an onset or a pitch have -1 and form groups of their own."""

READS_SUMMARIES: tuple[HeadFamily, ...] = ("ensemble", "union")
"""The other families see nothing but their group."""

TYPES_SEEN: dict[TypeRule, dict[TokenType, tuple[TokenType, ...]]] = {
    True: {
        TokenType.ONSET: (TokenType.ONSET, TokenType.PITCH),
        TokenType.PITCH: (TokenType.ONSET, TokenType.PITCH),
        TokenType.DURATION: (),
        TokenType.VELOCITY: (TokenType.VELOCITY,),
    },
    "later": {
        TokenType.ONSET: NOTE_TYPES,
        TokenType.PITCH: (TokenType.ONSET, TokenType.PITCH),
        TokenType.DURATION: (TokenType.ONSET, TokenType.PITCH, TokenType.DURATION),
        TokenType.VELOCITY: NOTE_TYPES,
    },
}
"""Rule -> type -> what it sees of other notes."""


def register_family(name: HeadFamily, key: Callable[[KnowsPlaces], Any]) -> None:
    """Add an equal-key family, which every path of attention and the cache then have and ``model.heads`` may name.

    Args:
        name: A new one.
        key: From facts to whole numbers in their shape, as in ``EQUAL_KEY``; so operators only.
    Raises:
        ValueError: Another family has the name.
    """
    if name in HEAD_FAMILIES:
        raise ValueError(f"there is a head family {name!r} already")
    HEAD_FAMILIES.append(name)
    EQUAL_KEY[name] = key


def families_with_summaries(settings: ModelSettings) -> frozenset[HeadFamily]:
    """The families of the settings that read summaries, where there are any."""
    return frozenset(settings.heads) & frozenset(READS_SUMMARIES if settings.has_summaries else ())


def regular_masks(batch: Batch, settings: ModelSettings) -> dict[HeadFamily, Tensor]:
    """Family of the settings -> (B, T, T) which regular tokens a regular token sees in its heads (phase RR)."""
    allowed = past_of_document(batch)
    if settings.type_rule:
        allowed = allowed & type_rule(batch, settings.type_rule)
    return {family: family_rule(batch, family, settings.bar_offsets) & allowed for family in settings.heads}


def family_rule(batch: Batch, family: HeadFamily, bar_offsets: tuple[int, ...]) -> Tensor:
    """(B, T, T) whom a family lets a token see, past and future, in any document; itself always."""
    if family in EQUAL_KEY:
        key = EQUAL_KEY[family](batch)
        return key[:, :, None] == key[:, None, :]
    visible = _in_window(batch, bar_offsets) | (batch.instrument == GLOBAL)[:, None, :]
    if family == "union":
        visible = visible | (batch.instrument[:, :, None] == batch.instrument[:, None, :])
    return visible


def past_of_document(batch: Batch) -> Tensor:
    """(B, T, T) the tokens of one document up to a token; PAD sees itself, and nobody sees PAD."""
    same = (batch.document[:, :, None] == batch.document[:, None, :]) & (batch.document != NO_DOCUMENT)[:, :, None]
    return same.tril() | _itself(same)


def type_rule(batch: Batch, rule: TypeRule = True) -> Tensor:
    """(B, T, T) what a rule of types leaves visible: all outside notes, one's own note, and what ``TYPES_SEEN`` has."""
    structural = batch.note < 0
    same_note = batch.note[:, :, None] == batch.note[:, None, :]
    seen = torch.from_numpy(types_seen(rule)).to(batch.ids.device)
    of_type = seen[batch.type[:, :, None], batch.type[:, None, :]]
    return structural[:, :, None] | structural[:, None, :] | same_note | of_type


def types_seen(rule: TypeRule) -> np.ndarray:
    """(14, 14) bool, whether a token of the row's type sees tokens of the column's type in other notes."""
    seen = np.zeros((NUM_TOKEN_TYPES, NUM_TOKEN_TYPES), dtype=bool)
    for token_type, others in TYPES_SEEN[rule].items():
        seen[token_type, list(others)] = True
    return seen


def finished_mask(batch: Batch) -> Tensor:
    """(B, T, M) which summaries a regular token sees (phase RS): of the bars of its document before its own."""
    bars = torch.arange(batch.bar_document.shape[1], device=batch.ids.device)
    same = (batch.document[:, :, None] == batch.bar_document[:, None, :]) & (batch.document != NO_DOCUMENT)[:, :, None]
    return same & (bars < batch.bar[:, :, None])


def summary_mask(batch: Batch, summaries: Summaries = "full") -> Tensor:
    """(B, M, M) which summaries a summary sees (phase SS): of its document, up to its own; with ``bar`` only itself."""
    if summaries == "bar":
        return _itself(batch.bar_document).expand(len(batch.ids), -1, -1)
    same = batch.bar_document[:, :, None] == batch.bar_document[:, None, :]
    used = (batch.bar_document != NO_DOCUMENT)[:, :, None]
    return (same & used).tril() | _itself(same)


def own_bar_mask(batch: Batch) -> Tensor:
    """(B, M, T) which regular tokens a summary sees (phase SR): those of its bar."""
    bars = torch.arange(batch.bar_document.shape[1], device=batch.ids.device)
    return bars[None, :, None] == batch.bar[:, None, :]


def _in_window(batch: Batch, bar_offsets: tuple[int, ...]) -> Tensor:
    """(B, T, T) whether the column's bar is one of ``bar_offsets`` bars before the row's."""
    visible = batch.bar[:, :, None] == batch.bar[:, None, :]
    for offset in set(bar_offsets) - {0}:
        visible |= (batch.bar - offset)[:, :, None] == batch.bar[:, None, :]
    return visible


def _itself(mask: Tensor) -> Tensor:
    """(N, N) True on the diagonal of a mask of N columns: an empty row would make softmax divide by zero."""
    return torch.eye(mask.shape[-1], dtype=torch.bool, device=mask.device)


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

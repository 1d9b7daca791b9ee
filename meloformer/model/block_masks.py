"""What FlexAttention needs to know of a batch: which blocks of keys each block of queries reads, and a mask inside.

In a good layout whatever a query sees is a handful of *stretches*, keys that stand one behind another (see
``stretches``). So the mask of all families and phases is one rule: a key is seen if it is in one of the query's
stretches. It reads nothing of the key but its place. And the blocks are counted, not tried: how many pairs of a block
are visible follows from where stretches start and stop, so no tensor has all queries by all keys. A block with all
pairs visible is listed as full, and the kernel leaves the mask out there.

Only the type rule asks more of a key, its note and the type; then no block is full.

Shapes: Q queries, R keys, both multiples of ``BLOCK``; J stretches of a query.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from meloformer.model.batch import Batch
from meloformer.model.visibility import types_seen
from meloformer.settings import TypeRule
from meloformer.tokens.vocabulary import NOTE_TYPES, TokenType

BLOCK = 128
"""Side of a block, as FlexAttention has it by default; lengths are padded to its multiples."""

KINDS = (TokenType.PAD, *NOTE_TYPES)
"""Kinds of tokens to the type rule, in order: what is outside notes, for which PAD stands; T; P; D; V."""

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(batch, head, query, key) numbers -> whether the query sees the key."""


class Stretches(NamedTuple):
    """What every query sees: stretches of keys of which no two overlap."""

    low: np.ndarray
    """(J, Q) where they start."""
    high: np.ndarray
    """(J, Q) where they stop; not above ``low`` where there is none."""


class TypeFacts(NamedTuple):
    """What the type rule asks of queries and keys."""

    query_note: Tensor
    """(Q,) number of the note; -1 for tokens outside notes and for summaries, which the rule exempts."""
    query_kind: Tensor
    """(Q,) kinds as in :func:`type_kinds`."""
    key_note: Tensor
    key_kind: Tensor
    """(R,) the same."""
    seen: Tensor
    """(5, 5) bool, whether a query of a kind sees keys of a kind in other notes."""


class Blocks(NamedTuple):
    """Which blocks of keys each block of queries reads, and the other way round, which the backward pass asks."""

    num_keys: Tensor
    """(Q / BLOCK,) int32, how many blocks of keys a block of queries reads."""
    keys: Tensor
    """(Q / BLOCK, R / BLOCK) int32, which, rising; zeros fill up."""
    num_queries: Tensor
    """(R / BLOCK,) int32, how many blocks of queries read a block of keys."""
    queries: Tensor
    """(R / BLOCK, Q / BLOCK) int32, which."""

    @classmethod
    def of(cls, is_read: np.ndarray, device: torch.device) -> Blocks:
        """From (Q / BLOCK, R / BLOCK) bool. ``BlockMask.from_kv_blocks`` would do the second half by sorting."""
        columns = (*_listed(is_read), *_listed(is_read.T))
        return cls(*(torch.from_numpy(column.astype(np.int32)).to(device) for column in columns))


@dataclass(frozen=True)
class Reading:
    """Who reads what, in one layout. Plain tensors, so that it can be made in another process.

    FlexAttention compiles a kernel for every shape, so the shapes depend on the shape of the batch alone.
    """

    low: Tensor
    high: Tensor
    """(J, Q) int32, the stretches."""
    partial: Blocks
    """Those that are read with the mask."""
    full: Blocks
    """Those that are read without."""
    types: TypeFacts | None
    order: Tensor | None
    """(Q,) number of the token at every place of the sorted queries; ``None``: nothing is sorted."""
    inverse: Tensor | None
    """(Q,) place of every token."""

    @classmethod
    def of(
        cls,
        stretches: Stretches,
        num_keys: int,
        device: torch.device,
        *,
        order: np.ndarray | None = None,
        types: TypeFacts | None = None,
    ) -> Reading:
        """Count the blocks.

        Args:
            stretches: Of all queries.
            num_keys: R.
            device: Where the tensors go.
            order: (Q,) see the field.
            types: Facts, where the type rule holds.
        """
        counts = pairs_of_blocks(stretches, num_keys)
        is_full = (counts == BLOCK * BLOCK) & (types is None)
        inverse = None
        if order is not None:
            inverse = np.empty_like(order)
            inverse[order] = np.arange(len(order))

        def there(column: np.ndarray | None) -> Tensor | None:
            return None if column is None else torch.from_numpy(column).to(device)

        low, high = (torch.from_numpy(bounds.astype(np.int32)).to(device) for bounds in stretches)
        partial, full = (Blocks.of(is_in, device) for is_in in ((counts > 0) & ~is_full, is_full))
        return cls(low, high, partial, full, types, there(order), there(inverse))

    @cached_property
    def mask(self) -> BlockMask:
        """For the kernel."""
        partial, full = ([column[None, None] for column in blocks] for blocks in (self.partial, self.full))
        return BlockMask(
            seq_lengths=(BLOCK * self.partial.keys.shape[0], BLOCK * self.partial.keys.shape[1]),
            kv_num_blocks=partial[0],
            kv_indices=partial[1],
            full_kv_num_blocks=full[0],
            full_kv_indices=full[1],
            q_num_blocks=partial[2],
            q_indices=partial[3],
            full_q_num_blocks=full[2],
            full_q_indices=full[3],
            BLOCK_SIZE=(BLOCK, BLOCK),
            mask_mod=self.mask_mod,
        )

    @property
    def num_pairs(self) -> int:
        """Pairs of a query and a key in its stretches; the type rule may hide some."""
        return int((self.high - self.low).clamp(min=0).sum())

    @property
    def mask_mod(self) -> MaskMod:
        """The rule for a pair."""
        in_stretches = _stretches_mask(self.low, self.high)
        return in_stretches if self.types is None else _with_types(in_stretches, self.types)

    def __getstate__(self) -> dict[str, Any]:
        """Without the mask, which holds functions."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def _stretches_mask(low: Tensor, high: Tensor) -> MaskMod:
    """Captures tensors only: numbers that change from batch to batch would be compiled anew for each."""

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:  # noqa: ARG001
        seen = (low[0, query] <= key) & (key < high[0, query])
        for stretch in range(1, low.shape[0]):
            seen = seen | ((low[stretch, query] <= key) & (key < high[stretch, query]))
        return seen

    return sees


def _with_types(in_stretches: MaskMod, types: TypeFacts) -> MaskMod:
    query_note, query_kind, key_note, key_kind, seen = types

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        is_shown = seen[query_kind[query], key_kind[key]] | (query_note[query] == key_note[key])
        return in_stretches(batch, head, query, key) & is_shown

    return sees


def type_kinds(batch: Batch) -> np.ndarray:
    """(2, B * T) note and number in ``KINDS`` of the tokens of all rows; rows may share a number, but no document."""
    types, note = (column.cpu().numpy().reshape(-1) for column in (batch.type, batch.note))
    return np.stack([note, np.where(note < 0, 0, 1 + types - NOTE_TYPES[0])])


def kinds_seen(rule: TypeRule) -> np.ndarray:
    """(5, 5) bool, see ``TypeFacts.seen``; what is outside notes sees all and is seen by all."""
    seen = types_seen(rule)[np.ix_(KINDS, KINDS)]
    seen[0, :] = seen[:, 0] = True
    return seen


def pairs_of_blocks(stretches: Stretches, num_keys: int) -> np.ndarray:
    """(Q / BLOCK, R / BLOCK) how many pairs of a query and a key that it sees every block holds.

    The keys of a block below a place x are min(max(x - start of the block, 0), BLOCK); summed for all ends of
    stretches, less the same for all starts, that is what the stretches have in the block.
    """
    is_stretch = stretches.high > stretches.low
    query_block = np.broadcast_to(np.arange(stretches.low.shape[1]) // BLOCK, stretches.low.shape)[is_stretch]
    num_rows, num_columns = stretches.low.shape[1] // BLOCK, num_keys // BLOCK + 1
    whole, rest = np.zeros((2, num_rows, num_columns))
    for places, sign in ((stretches.high, 1), (stretches.low, -1)):
        of_block, in_block = np.divmod(places[is_stretch], BLOCK)
        cell = query_block * num_columns + of_block
        whole += sign * np.bincount(cell, minlength=whole.size).reshape(whole.shape)
        rest += sign * np.bincount(cell, weights=in_block, minlength=rest.size).reshape(rest.shape)
    behind = whole[:, ::-1].cumsum(1)[:, ::-1] - whole  # ends in later blocks, less starts there
    return (rest + BLOCK * behind).astype(np.int64)[:, :-1]


def _listed(is_in: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, m) bool -> (n,) how many of a row are True, and (n, m) which, in front."""
    rows, columns = np.nonzero(is_in)
    counts = np.bincount(rows, minlength=len(is_in))
    first = np.cumsum(counts) - counts
    listed = np.zeros(is_in.shape, dtype=np.int32)
    listed[rows, np.arange(len(rows)) - first[rows]] = columns
    return counts, listed

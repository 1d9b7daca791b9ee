"""Which stretches of keys each block of queries reads: sparse attention as a short list of dense rectangles.

Order is not layout. Sorted by key, a family of equal keys sees one stretch that ends at the token itself; in the order
of the piece, an ``ensemble`` head sees a few bars, a stretch of globals and a stretch of summaries; a summary sees a
stretch of summaries and its bar. So consecutive queries read a few *contiguous* stretches of keys, and all families and
phases are one mechanism: tiles. Inside a tile everything is dense, and a small mask hides what is seen by some of its
queries only. Tiles are cut where segments and bars end, so that little is computed for nothing.

Everything here is worked out once a batch, on the CPU, from token attributes; no tensor has N x N elements.
Rows are put one after another: token t of row b is number b * T + t, bar slot m is number b * M + m.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

TILE = 128
"""Most queries in a tile. A causal head over 4,096 tokens, forward and backward in fp32 on one core: 91, 95 and 106 ms
with tiles of 64, 128 and 256; a tile costs about 0.1 ms whatever is in it."""
SUMMARY_TILE = 16
"""Most summaries in a tile: each is compared with the tokens of all bars in its tile."""


class Tile(NamedTuple):
    """Some consecutive queries and all keys that they read, in one softmax."""

    start: int
    stop: int
    """Of the queries."""
    ranges: list[tuple[int, int]]
    """Start and stop of the stretches of keys; put together they are the columns."""
    hidden: Tensor | None
    """(stop - start, C) bool, of the last C columns: what a query does not see. It sees all columns before them."""


@dataclass(frozen=True)
class Tiling:
    """Tiles for some heads: every query is in exactly one. Plain tensors, so that it can be made in another process."""

    order: Tensor | None
    """(N,) number of the token at every place of the sorted queries and keys; ``None``: nothing is sorted."""
    queries: Tensor
    """(n, 2) start and stop of every tile."""
    ranges: Tensor
    """(n, R, 2) its stretches of keys; empty ones fill up."""
    num_masked: Tensor
    """(n,) for how many of its last columns there is a mask."""
    hidden: Tensor
    """All masks, flat, bool."""

    def tiles(self) -> Iterator[Tile]:
        """One after another."""
        at = 0
        for (start, stop), ranges, columns in zip(
            self.queries.tolist(), self.ranges.tolist(), self.num_masked.tolist(), strict=True
        ):
            size = (stop - start) * columns
            hidden = self.hidden[at : at + size].view(stop - start, columns) if size else None
            yield Tile(start, stop, [(low, high) for low, high in ranges if high > low], hidden)
            at += size

    @property
    def num_pairs(self) -> int:
        """Pairs of query and key that are computed for one head."""
        per_tile = (self.ranges[:, :, 1] - self.ranges[:, :, 0]).sum(1) * (self.queries[:, 1] - self.queries[:, 0])
        return int(per_tile.sum())


Part = tuple[int, int, np.ndarray | None]
"""Start and stop of a stretch of keys, and (queries, keys) bool, what of it is hidden; ``None``: nothing is."""


class Collector:
    """Gathers tiles as they are worked out."""

    def __init__(self) -> None:
        self._queries: list[tuple[int, int]] = []
        self._ranges: list[list[tuple[int, int]]] = []
        self._num_masked: list[int] = []
        self._hidden: list[np.ndarray] = []

    def add(self, start: int, stop: int, parts: list[Part]) -> None:
        """Take a tile. Parts that all its queries see go first and need no mask; those that none sees are left out."""
        seen_by_all: list[tuple[int, int]] = []
        seen_by_some: list[tuple[int, int]] = []
        masks: list[np.ndarray] = []
        for low, high, hidden in parts:
            if high <= low or (hidden is not None and hidden.all()):
                continue
            if hidden is None or not hidden.any():
                seen_by_all.append((low, high))
            else:
                seen_by_some.append((low, high))
                masks.append(hidden)
        self._queries.append((start, stop))
        self._ranges.append(_joined(seen_by_all + seen_by_some))
        mask = np.concatenate(masks, axis=1) if masks else np.zeros((0, 0), dtype=bool)
        self._num_masked.append(mask.shape[1])
        self._hidden.append(mask.reshape(-1))

    def tiling(self, device: torch.device, order: np.ndarray | None = None) -> Tiling:
        """All of them."""
        most = max(len(each) for each in self._ranges)
        ranges = [each + [(0, 0)] * (most - len(each)) for each in self._ranges]
        return Tiling(
            order=None if order is None else torch.from_numpy(order).to(device),
            queries=torch.tensor(self._queries),
            ranges=torch.tensor(ranges),
            num_masked=torch.tensor(self._num_masked),
            hidden=torch.from_numpy(np.concatenate(self._hidden)).to(device),
        )


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same with fewer stretches, where one begins as the one before it ends."""
    joined: list[tuple[int, int]] = []
    for low, high in ranges:
        if joined and joined[-1][1] == low:
            joined[-1] = joined[-1][0], high
        else:
            joined.append((low, high))
    return joined


def cut(starts: np.ndarray, stop: int, size: int) -> Iterator[tuple[int, int]]:
    """Blocks of at most ``size`` places: whole short units together, a unit that is too long in even parts of its own.

    Args:
        starts: Where the units start, rising; the first is where the blocks start.
        stop: Where the last unit ends.
        size: Most places in a block.
    """
    pending = int(starts[0])
    bounds = [*starts.tolist(), stop]
    for first, last in pairwise(bounds):
        if last - pending > size and first > pending:
            yield pending, first
            pending = first
        if last - first > size:
            parts = -(-(last - first) // size)
            edges = [first + (last - first) * part // parts for part in range(parts + 1)]
            yield from pairwise(edges)
            pending = last
    if stop > pending:
        yield pending, stop


def edges_of(column: np.ndarray) -> np.ndarray:
    """Where the runs of equal values start."""
    return np.flatnonzero(np.append(True, column[1:] != column[:-1]))


def equal_key_tiling(key: np.ndarray, device: torch.device) -> Tiling:
    """Every token sees those up to itself that have its key.

    Args:
        key: (N,) of all tokens; documents and rows share none.
        device: Where the tensors go.
    """
    order = np.argsort(key, kind="stable")
    starts = edges_of(key[order])
    first = np.repeat(starts, np.diff(starts, append=len(key)))
    tiles = Collector()
    for start, stop in cut(starts, len(key), TILE):
        place = np.arange(start, stop)
        hidden = (place > place[:, None]) | (place < first[start:stop, None])
        tiles.add(start, stop, [(int(first[start]), start, None), (start, stop, hidden)])
    return tiles.tiling(device, order)

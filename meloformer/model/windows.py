"""The tiles of heads that see a window of bars, and those of the summaries."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from meloformer.model.batch import NO_DOCUMENT, Batch
from meloformer.model.tiling import SUMMARY_TILE, TILE, Collector, Part, Tiling, cut, edges_of
from meloformer.tokens.attributes import GLOBAL


@dataclass(frozen=True)
class Places:
    """Where the N = B * T tokens and B * M bar slots of a batch stand, all rows one after another."""

    document: np.ndarray
    """(N,) no two rows share a number; -1 for PAD."""
    bar: np.ndarray
    """(N,) bar slot; -1 for PAD."""
    instrument: np.ndarray
    """(N,)"""
    bar_document: np.ndarray
    """(B * M,) -1 for slots that a row does not use."""
    num_rows: int

    @classmethod
    def of(cls, batch: Batch) -> Places:
        """Of all rows of a batch."""
        first_document = np.arange(len(batch.ids))[:, None] * batch.ids.shape[1]
        first_bar = np.arange(len(batch.ids))[:, None] * batch.bar_document.shape[1]
        document, bar = batch.document.cpu().numpy(), batch.bar.cpu().numpy()
        bar_document = batch.bar_document.cpu().numpy()
        is_real, is_used = document != NO_DOCUMENT, bar_document != NO_DOCUMENT
        return cls(
            document=np.where(is_real, document + first_document, NO_DOCUMENT).reshape(-1),
            bar=np.where(is_real, bar + first_bar, -1).reshape(-1),
            instrument=batch.instrument.cpu().numpy().reshape(-1),
            bar_document=np.where(is_used, bar_document + first_document, NO_DOCUMENT).reshape(-1),
            num_rows=len(batch.ids),
        )

    def keys(self, key: np.ndarray) -> np.ndarray:
        """(N,) key -> the same, made different between documents, and for every PAD one of its own."""
        low, high = int(key.min()), int(key.max())
        alone = (int(self.document.max()) + 1) * (high - low + 1) + np.arange(len(key))
        return np.where(self.document == NO_DOCUMENT, alone, self.document * (high - low + 1) + key - low)

    @cached_property
    def globals(self) -> np.ndarray:
        """(G,) numbers of the global tokens."""
        return np.flatnonzero((self.instrument == GLOBAL) & (self.document != NO_DOCUMENT))

    @cached_property
    def bar_start(self) -> np.ndarray:
        """(B * M,) first token of every bar slot."""
        return self._bar_bounds[0]

    @cached_property
    def bar_stop(self) -> np.ndarray:
        """(B * M,) behind the last token of every bar slot."""
        return self._bar_bounds[1]

    @cached_property
    def _bar_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        starts = edges_of(self.bar)
        stops = np.append(starts[1:], len(self.bar))
        bounds = np.zeros((2, len(self.bar_document)), dtype=np.int64)
        is_bar = self.bar[starts] >= 0
        bounds[:, self.bar[starts][is_bar]] = starts[is_bar], stops[is_bar]
        return bounds[0], bounds[1]

    def first_bar(self, document: int) -> int:
        """The first bar slot of a document."""
        return int(self._first_bars[document])

    @cached_property
    def _first_bars(self) -> dict[int, int]:
        starts = edges_of(self.bar_document)
        return dict(zip(self.bar_document[starts].tolist(), starts.tolist(), strict=True))


def spans(is_used: np.ndarray, num_rows: int) -> list[tuple[int, int, bool]]:
    """Start and stop of the stretches, row by row, that hold something, and of those that do not."""
    row = np.repeat(np.arange(num_rows), len(is_used) // num_rows)
    starts = edges_of(row * 2 + is_used)
    stops = np.append(starts[1:], len(is_used))
    return list(zip(starts.tolist(), stops.tolist(), is_used[starts].tolist(), strict=True))


def add_lonely(tiles: Collector, start: int, stop: int, size: int) -> None:
    """Tiles in which every query sees itself only."""
    for low, high in cut(np.array([start]), stop, size):
        tiles.add(low, high, [(low, high, ~np.eye(high - low, dtype=bool))])


def window_tiling(
    places: Places, bar_offsets: tuple[int, ...], device: torch.device, *, reads_summaries: bool = True
) -> Tiling:
    """Every token sees, of its document and up to itself, some bars, all globals, and the summaries of earlier bars.

    The keys are all N regular tokens; then the G globals again, so that those before a bar are one stretch; then the
    B * M summaries. A global inside the window is read there, and not a second time.

    Args:
        places: Of the batch.
        bar_offsets: How many bars back the window reaches; 0 is among them.
        device: Where the tensors go.
        reads_summaries: Whether the last of these are read.
    """
    tiles = Collector()
    rules = _Rules(places, bar_offsets)
    for first, last, is_real in spans(places.document != NO_DOCUMENT, places.num_rows):
        if not is_real:
            add_lonely(tiles, first, last, TILE)
            continue
        for start, stop in cut(first + edges_of(places.bar[first:last]), last, TILE):
            tiles.add(start, stop, rules.parts(start, stop, reads_summaries=reads_summaries))
    return tiles.tiling(device)


class _Rules:
    """What a tile of a window head reads, and what of it is hidden from whom."""

    def __init__(self, places: Places, bar_offsets: tuple[int, ...]) -> None:
        self.places = places
        self.offsets = sorted({offset for offset in bar_offsets if offset < len(places.bar_document)}, reverse=True)
        self.farthest = self.offsets[0]
        self.first_global = len(places.document)
        self.first_summary = self.first_global + len(places.globals)
        # By bar offset + 1, from -1 (a later bar) to one more than the farthest (as good as any behind it).
        self.in_window = np.zeros(self.farthest + 3, dtype=bool)
        self.in_window[np.array(self.offsets) + 1] = True
        self.is_far = ~self.in_window
        self.is_far[:2] = False
        self.is_finished = np.arange(self.farthest + 3) >= 2

    def parts(self, start: int, stop: int, *, reads_summaries: bool) -> list[Part]:
        """The keys that the tokens of [start, stop) read, stretch by stretch.

        First what certainly all of them see, globals and summaries farther back than any of their windows.
        """
        places = self.places
        low, high = int(places.bar[start]), int(places.bar[stop - 1])
        origin = places.first_bar(int(places.document[start]))
        is_one_document = places.document[start] == places.document[stop - 1]
        far = max(low - self.farthest, origin) if is_one_document else origin
        before = low if is_one_document else origin
        bounds = np.searchsorted(places.globals, places.bar_start[[origin, far, high]]).tolist()
        token = np.arange(start, stop)
        parts: list[Part] = [(bounds[0], bounds[1], None)]
        if bounds[2] > bounds[1]:
            near = places.globals[bounds[1] : bounds[2]]
            parts.append((*bounds[1:], self._hidden(token, places.bar[near], places.document[near], self.is_far)))
        parts = [(first + self.first_global, last + self.first_global, hidden) for first, last, hidden in parts]
        if reads_summaries:
            slots = np.arange(before, high)
            hidden = self._hidden(token, slots, places.bar_document[slots], self.is_finished)
            parts.append((origin + self.first_summary, before + self.first_summary, None))
            parts.append((before + self.first_summary, high + self.first_summary, hidden))
        for first, last in self._window(low, high, origin):
            near = np.arange(int(places.bar_start[first]), min(int(places.bar_stop[last]), stop))
            hidden = self._hidden(token, places.bar[near], places.document[near], self.in_window)
            parts.append((int(near[0]), int(near[-1]) + 1, hidden | (near > token[:, None])))
        return parts

    def _window(self, low: int, high: int, origin: int) -> list[tuple[int, int]]:
        """First and last of the bars that bars ``low`` to ``high`` read, none before ``origin``; ``low`` begins one."""
        merged: list[tuple[int, int]] = []
        for offset in self.offsets:
            first, last = max(low - offset, origin), high - offset
            if last < first:
                continue
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = merged[-1][0], last
            else:
                merged.append((first, last))
        first = merged[-1][0]
        return merged if first == low else [*merged[:-1], (first, low - 1), (low, high)]

    def _hidden(self, token: np.ndarray, bar: np.ndarray, document: np.ndarray, rule: np.ndarray) -> np.ndarray:
        """(Q, C) bool, from the bars and documents of the columns."""
        places = self.places
        hidden = ~rule[np.clip(places.bar[token][:, None] - bar, -1, self.farthest + 1) + 1]
        if places.document[token[0]] == places.document[token[-1]] and (document == places.document[token[0]]).all():
            return hidden
        return hidden | (places.document[token][:, None] != document)


def summary_tiling(places: Places, device: torch.device, *, reads_earlier: bool = True) -> Tiling:
    """Every summary sees the summaries of its document up to itself, or only itself, and the regular tokens of its bar.

    The keys are the B * M summaries, then the N regular tokens.
    """
    tiles = Collector()
    num_slots = len(places.bar_document)
    for first, last, is_used in spans(places.bar_document != NO_DOCUMENT, places.num_rows):
        if not is_used:
            add_lonely(tiles, first, last, SUMMARY_TILE)
            continue
        for start, stop in cut(np.arange(first, last), last, SUMMARY_TILE):
            slot = np.arange(start, stop)
            origin = places.first_bar(int(places.bar_document[start])) if reads_earlier else start
            earlier = np.arange(origin, stop)
            tokens = int(places.bar_start[start]), int(places.bar_stop[stop - 1])
            same = places.bar_document[slot][:, None] == places.bar_document[earlier]
            of_bars = places.bar[slice(*tokens)] != slot[:, None]
            sees = same & (earlier <= slot[:, None]) if reads_earlier else earlier == slot[:, None]
            parts = [(int(earlier[0]), stop, ~sees)]
            tiles.add(start, stop, [*parts, (tokens[0] + num_slots, tokens[1] + num_slots, of_bars)])
    return tiles.tiling(device)

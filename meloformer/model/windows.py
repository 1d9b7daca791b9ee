"""The tiles of heads that see a window of bars, and those of the summaries."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from meloformer.model.batch import NO_DOCUMENT, Batch
from meloformer.model.tiling import SUMMARY_TILE, TILE, Collector, Tiling, cut, edges_of
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
        tiles.add(low, high, [(low, high)], ~np.eye(high - low, dtype=bool))


def window_tiling(places: Places, bar_offsets: tuple[int, ...], device: torch.device) -> Tiling:
    """Every token sees, of its document and up to itself, some bars, all globals, and the summaries of earlier bars.

    The keys are all N regular tokens; then the G globals again, so that those before a bar are one stretch; then the
    B * M summaries. A global inside the window is read there, and not a second time.

    Args:
        places: Of the batch.
        bar_offsets: How many bars back the window reaches; 0 is among them.
        device: Where the tensors go.
    """
    tiles = Collector()
    rules = _Rules(places, bar_offsets)
    for first, last, is_real in spans(places.document != NO_DOCUMENT, places.num_rows):
        if not is_real:
            add_lonely(tiles, first, last, TILE)
            continue
        for start, stop in cut(first + edges_of(places.bar[first:last]), last, TILE):
            window, far_globals, summaries = rules.ranges(start, stop)
            num_tokens, num_globals = len(places.document), len(places.globals)
            hidden = rules.hidden(np.arange(start, stop), window, far_globals, summaries)
            moved = [
                (far_globals[0] + num_tokens, far_globals[1] + num_tokens),
                (summaries[0] + num_tokens + num_globals, summaries[1] + num_tokens + num_globals),
            ]
            tiles.add(start, stop, [*moved, *window], hidden)
    return tiles.tiling(device)


class _Rules:
    """What a tile of a window head reads, and what of it is hidden from whom."""

    def __init__(self, places: Places, bar_offsets: tuple[int, ...]) -> None:
        self.places = places
        self.offsets = sorted({offset for offset in bar_offsets if offset < len(places.bar_document)}, reverse=True)
        self.farthest = self.offsets[0]
        # By bar offset + 1, from -1 (a later bar) to one more than the farthest (as good as any behind it).
        self.in_window = np.zeros(self.farthest + 3, dtype=bool)
        self.in_window[np.array(self.offsets) + 1] = True
        self.is_far = ~self.in_window
        self.is_far[:2] = False
        self.is_finished = np.arange(self.farthest + 3) >= 2

    def ranges(self, start: int, stop: int) -> tuple[list[tuple[int, int]], tuple[int, int], tuple[int, int]]:
        """Stretches of tokens, of the globals and of the bar slots that the tokens of [start, stop) read."""
        places = self.places
        low, high = int(places.bar[start]), int(places.bar[stop - 1])
        origin = places.first_bar(int(places.document[start]))
        merged: list[tuple[int, int]] = []
        for offset in self.offsets:
            bars = max(low - offset, origin), high - offset
            if bars[1] < bars[0]:
                continue
            if merged and bars[0] <= merged[-1][1] + 1:
                merged[-1] = merged[-1][0], bars[1]
            else:
                merged.append(bars)
        window = [(int(places.bar_start[a]), min(int(places.bar_stop[b]), stop)) for a, b in merged]
        bounds = np.searchsorted(places.globals, (places.bar_start[origin], places.bar_start[high]))
        return window, (int(bounds[0]), int(bounds[1])), (origin, high)

    def hidden(
        self, token: np.ndarray, window: list[tuple[int, int]], far_globals: tuple[int, int], summaries: tuple[int, int]
    ) -> np.ndarray:
        """(Q, C) bool; columns are far globals, summaries, window."""
        places = self.places
        of_globals = places.globals[slice(*far_globals)]
        slots = np.arange(*summaries)
        of_window = np.concatenate([np.arange(low, high) for low, high in window])
        seen = [
            self._sees(token, places.bar[of_globals], places.document[of_globals], self.is_far),
            self._sees(token, slots, places.bar_document[slots], self.is_finished),
            self._sees(token, places.bar[of_window], places.document[of_window], self.in_window)
            & (of_window <= token[:, None]),
        ]
        return ~np.concatenate(seen, axis=1)

    def _sees(self, token: np.ndarray, bar: np.ndarray, document: np.ndarray, rule: np.ndarray) -> np.ndarray:
        places = self.places
        offset = np.clip(places.bar[token][:, None] - bar, -1, self.farthest + 1)
        seen = rule[offset + 1]
        if places.document[token[0]] == places.document[token[-1]] and (document == places.document[token[0]]).all():
            return seen
        return seen & (places.document[token][:, None] == document)


def summary_tiling(places: Places, device: torch.device) -> Tiling:
    """Every summary sees the summaries of its document up to itself, and the regular tokens of its bar.

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
            earlier = np.arange(places.first_bar(int(places.bar_document[start])), stop)
            tokens = int(places.bar_start[start]), int(places.bar_stop[stop - 1])
            same = places.bar_document[slot][:, None] == places.bar_document[earlier]
            sees = [same & (earlier <= slot[:, None]), places.bar[slice(*tokens)] == slot[:, None]]
            ranges = [(int(earlier[0]), stop), (tokens[0] + num_slots, tokens[1] + num_slots)]
            tiles.add(start, stop, ranges, ~np.concatenate(sees, axis=1))
    return tiles.tiling(device)

"""The layout of every family and phase in which what a query sees is a handful of stretches of keys.

- An equal-key family: tokens sorted by row, document and key. A token sees from the first of its group up to itself.
- ``ensemble``: queries in the order of the piece; keys are the tokens in that order, then the globals again, then the
  summaries. A token sees a few runs of bars, the globals between and before them, and the finished summaries.
- ``union``: queries sorted as for ``track``, so that a block of queries is of one instrument; keys are the tokens in
  the order of the piece, then the same sorted, then the summaries. A token sees its runs of bars in the first part, and
  in the second what lies between and before them of its own instrument and of the globals.
- Summaries: keys are summaries, then the tokens in the order of the piece. One sees the summaries from the first of its
  document up to itself, and its bar.

Every visible pair is in exactly one stretch, though a token can be a key twice: the runs of bars and the gaps between
them share nothing. PAD and padding see themselves.

Shapes: N tokens and S summary slots of all rows, padded; J stretches of a query.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from meloformer.model.batch import NO_DOCUMENT
from meloformer.model.block_masks import BLOCK, Stretches
from meloformer.model.tiling import edges_of
from meloformer.model.windows import Places
from meloformer.tokens.attributes import GLOBAL, NUM_INSTRUMENTS


def padded_tokens(count: int) -> int:
    """The length that so many tokens are padded to."""
    return -(-count // BLOCK) * BLOCK


def padded_slots(count: int, num_tokens: int) -> int:
    """The number of slots for so many summaries, or globals, among ``num_tokens`` tokens.

    An eighth of the tokens, doubled until it suffices, so that batches of one shape have one number of slots and no
    kernel is compiled again. Of 120 batches of real music the bars are 0.4 to 10 % of the tokens, the globals 0.4 to
    6 %.
    """
    slots = padded_tokens(-(-num_tokens // 8))
    while slots < count:
        slots *= 2
    return slots


def padded_places(places: Places) -> Places:
    """The same with N tokens and S summary slots; what is added is PAD and unused."""
    tokens, slots = len(places.document), len(places.bar_document)
    behind = padded_tokens(tokens) - tokens
    return replace(
        places,
        document=np.pad(places.document, (0, behind), constant_values=NO_DOCUMENT),
        bar=np.pad(places.bar, (0, behind), constant_values=-1),
        instrument=np.pad(places.instrument, (0, behind), constant_values=GLOBAL),
        bar_document=np.pad(places.bar_document, (0, padded_slots(slots, tokens) - slots), constant_values=NO_DOCUMENT),
    )


def equal_key_stretches(key: np.ndarray) -> tuple[Stretches, np.ndarray]:
    """Of the sorted tokens, and the (N,) order.

    Args:
        key: (N,) of all tokens; documents and rows share none, and every PAD has one of its own.
    """
    order = np.argsort(key, kind="stable")
    starts = edges_of(key[order])
    first = np.repeat(starts, np.diff(starts, append=len(key)))
    return Stretches(first[None], np.arange(1, len(key) + 1)[None]), order


def summary_stretches(places: Places, *, reads_earlier: bool = True) -> Stretches:
    """Of the S slots, which read earlier ones or only themselves."""
    slot = np.arange(len(places.bar_document))
    is_used = places.bar_document != NO_DOCUMENT
    first = np.where(is_used & reads_earlier, _origin(places), slot)
    start, stop = (np.where(is_used, bound, 0) + len(slot) for bound in (places.bar_start, places.bar_stop))
    return Stretches(np.stack([first, start]), np.stack([slot + 1, stop]))


def ensemble_stretches(places: Places, bar_offsets: tuple[int, ...], *, reads_summaries: bool = True) -> Stretches:
    """Of the tokens in the order of the piece. The keys: N tokens, ``padded_slots`` globals, S summaries."""
    window = Window(places, bar_offsets)
    num_tokens = len(places.document)
    before = np.searchsorted(places.globals, np.arange(num_tokens + 1))
    of_globals = [(before[low] + num_tokens, before[high] + num_tokens) for low, high in window.gaps]
    first_summary = num_tokens + padded_slots(len(places.globals), num_tokens)
    summaries = [window.summaries(first_summary)] if reads_summaries else []
    return _stacked([*window.runs, *of_globals, *summaries])


def union_stretches(
    places: Places, bar_offsets: tuple[int, ...], *, reads_summaries: bool = True
) -> tuple[Stretches, np.ndarray]:
    """Of the tokens sorted by document and instrument, and the (N,) order.

    The keys: N tokens in the order of the piece, the same N sorted, S summaries.
    """
    window = Window(places, bar_offsets)
    num_tokens = len(places.document)
    document = places.document
    alone = (int(document.max()) + 1) * NUM_INSTRUMENTS + np.arange(num_tokens)
    key = np.where(document == NO_DOCUMENT, alone, document * NUM_INSTRUMENTS + places.instrument)
    order = np.argsort(key, kind="stable")
    sorted_keys = key[order] * (num_tokens + 1) + order

    def of_group(group: np.ndarray, gap: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Where the tokens of a group that lie in a gap stand among the sorted keys."""
        low, high = (np.searchsorted(sorted_keys, group * (num_tokens + 1) + place) for place in gap)
        return low + num_tokens, high + num_tokens

    is_global = places.instrument == GLOBAL
    globals_of = document * NUM_INSTRUMENTS + GLOBAL
    own = [of_group(key, gap) for gap in window.gaps]
    others = [of_group(globals_of, (low, np.where(is_global, low, high))) for low, high in window.gaps]
    summaries = [window.summaries(2 * num_tokens)] if reads_summaries else []
    stretches = _stacked([*window.runs, *own, *others, *summaries])
    return Stretches(stretches.low[:, order], stretches.high[:, order]), order


Stretch = tuple[np.ndarray, np.ndarray]
"""(N,) start and (N,) stop."""


@dataclass(frozen=True)
class Window:
    """The past of every token, cut into runs of bars that it looks at and the gaps between and before them."""

    places: Places
    bar_offsets: tuple[int, ...]

    @cached_property
    def runs(self) -> list[Stretch]:
        """The tokens of the bars at neighbouring offsets; the first run ends at the token itself."""
        bounds = [self._tokens(first, last) for first, last in self._runs]
        itself = np.arange(len(self.places.document))
        is_pad = self.places.document == NO_DOCUMENT
        nearest = np.where(is_pad, itself, bounds[0][0]), itself + 1
        return [nearest, *bounds[1:]]

    @cached_property
    def gaps(self) -> list[Stretch]:
        """The tokens of the bars between two runs, and before the last."""
        inner = [(last + 1, first - 1) for (_, last), (first, _) in pairwise(self._runs)]
        return [self._tokens(first, last) for first, last in (*inner, (self._runs[-1][1] + 1, None))]

    def summaries(self, first_summary: int) -> Stretch:
        """The summaries of the bars before a token's own; they are keys from number ``first_summary`` on."""
        return self._origins + first_summary, self.places.bar + first_summary

    @cached_property
    def _runs(self) -> list[tuple[int, int]]:
        """First and last of the offsets that follow each other."""
        offsets = np.unique(self.bar_offsets)
        starts = np.flatnonzero(np.diff(offsets, prepend=-2) > 1)
        return [(int(run[0]), int(run[-1])) for run in np.split(offsets, starts[1:])]

    @cached_property
    def _origins(self) -> np.ndarray:
        """(N,) first bar of a token's document; for PAD its own bar, -1."""
        return np.where(self.places.bar >= 0, _origin(self.places)[self.places.bar], -1)

    def _tokens(self, nearest: int, farthest: int | None) -> Stretch:
        """Of the bars from ``farthest`` (None: all) to ``nearest`` bars before a token's own; for PAD nothing."""
        places = self.places
        last = np.maximum(places.bar - nearest, -1)  # -1 is before every document
        first = self._origins if farthest is None else np.maximum(places.bar - farthest, self._origins)
        is_there = (last >= self._origins) & (places.bar >= 0)
        return np.where(is_there, places.bar_start[first], 0), np.where(is_there, places.bar_stop[last], 0)


def _origin(places: Places) -> np.ndarray:
    """(S,) first slot of the document of every slot."""
    starts = edges_of(places.bar_document)
    return np.repeat(starts, np.diff(starts, append=len(places.bar_document)))


def _stacked(stretches: list[Stretch]) -> Stretches:
    low, high = zip(*stretches, strict=True)
    return Stretches(np.stack(low), np.stack(high))

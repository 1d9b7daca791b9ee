"""What one growing piece keeps of its past: for every head family the keys and values that its heads may still see.

- A family of equal keys (``track``, ``onset``, ``pitch``) has a store for each key. A token is put into the store of
  its key and reads that store, all of it: it is exactly what ``visibility.family_rule`` shows it.
- ``ensemble`` heads have one store: first what stays visible for good, the globals of bars that have left the window
  and the second keys and values of finished summaries; then the bars that the open one may look back to; then the open
  bar. When a bar ends, what lies behind the first part is written anew.
- ``union`` heads see an instrument at any distance, so their store keeps all, and a mask chooses. So it does, in all
  stores, where the type rule hides types.
- The summary of a bar reads the summaries before it and its bar: one store, in which the bar is written anew. With
  ``summaries=bar`` no summary stays in it; with ``summaries=none``, or where no head reads summaries, there are none.

Shapes: L layers, K key-value heads, S those of them that a family reads, E width of a head, n tokens.
"""

from __future__ import annotations

import copy
from collections import deque
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from meloformer.generation.store import COLUMNS, Array, Place, Store, as_array
from meloformer.model.visibility import EQUAL_KEY, families_with_summaries, types_seen
from meloformer.settings import HeadFamily, ModelSettings
from meloformer.tokens.attributes import GLOBAL, NONE, Attributes
from meloformer.tokens.running import RunningAttributes
from meloformer.tokens.vocabulary import Vocabulary

_OF_SUMMARY = (0, NONE, GLOBAL, NONE)
"""The columns of a summary: structural, and belonging to all, so that no rule hides it."""


class FamilyHeads(NamedTuple):
    """The heads of one family, and the key-value heads that it keeps.

    Where the family's heads share key-value heads evenly, each of these is kept once and read by ``num_rows`` queries;
    else there is one for each head.
    """

    family: HeadFamily
    first: int
    num_heads: int
    slots: slice | list[int]
    """Which key-value heads are kept; those side by side as a slice."""
    num_slots: int
    num_rows: int
    """Queries that read each."""

    @classmethod
    def all_of(cls, settings: ModelSettings) -> list[FamilyHeads]:
        """The families of a model, in the order of its heads."""
        found, first, sharing = [], 0, settings.num_heads // settings.num_kv_heads
        for family, count in settings.heads.items():
            of_heads = [head // sharing for head in range(first, first + count)]
            distinct = sorted(set(of_heads))
            is_even = len({of_heads.count(slot) for slot in distinct}) == 1
            slots = slice(distinct[0], distinct[-1] + 1) if is_even else of_heads
            num_slots = len(distinct) if is_even else count
            found.append(cls(family, first, count, slots, num_slots, count // num_slots))
            first += count
        return found


class _Bar(NamedTuple):
    """A finished bar, as the ``ensemble`` heads keep it."""

    number: int
    keys_values: Tensor
    columns: np.ndarray
    is_global: Tensor
    """(n,) bool."""


class SummaryParts(NamedTuple):
    """Keys and values of one summary, all key-value heads; keys of even, values of odd number."""

    own: Tensor
    """(2 L, K, E, 1) by which later summaries read it."""
    second: Tensor
    """(2 L, K, E, 1) by which regular tokens read it."""


class PieceCache:
    """What one piece keeps.

    Args:
        settings: Of the model.
        vocabulary: Of the piece.
        device: Of the model.
    """

    def __init__(self, settings: ModelSettings, vocabulary: Vocabulary, device: torch.device) -> None:
        self.settings = settings
        self.facts = RunningAttributes(vocabulary)
        """Of the latest token."""
        self.heads = FamilyHeads.all_of(settings)
        self._device = device
        self._types_seen = types_seen(settings.type_rule) if settings.type_rule else None
        self._has_columns = self._types_seen is not None or "union" in settings.heads
        self._groups: dict[HeadFamily, dict[int, Store]] = {
            heads.family: {} for heads in self.heads if heads.family in EQUAL_KEY
        }
        self._rows = {
            heads.family: self._store(heads.num_slots) for heads in self.heads if heads.family not in EQUAL_KEY
        }
        self._num_permanent = 0
        self._num_before_open = 0
        """Where the open bar begins in the store of ``ensemble`` heads."""
        self._bars: deque[_Bar] = deque()
        self.has_summaries = bool(families_with_summaries(settings))
        """Whether any head reads them."""
        self.closes_bars = self.has_summaries or "ensemble" in self._rows
        """Whether anything happens when a bar ends."""
        self.summarised = self._store(settings.num_kv_heads) if self.has_summaries else None
        """First keys and values of the finished summaries that later ones read, then those of the open bar; all
        key-value heads."""
        self._num_summaries = 0
        self._open_columns: list[tuple[int, ...]] = []

    @property
    def num_bytes(self) -> int:
        """Memory of all keys and values."""
        stores = [store for group in self._groups.values() for store in group.values()] + [*self._rows.values()]
        stores += [self.summarised] if self.summarised is not None else []
        return sum(store.num_bytes for store in stores) + sum(bar.keys_values.nbytes for bar in self._bars)

    def copy(self) -> PieceCache:
        """Another piece with the same past."""
        other = copy.copy(self)
        other.facts = copy.copy(self.facts)
        other._groups = {
            family: {key: store.copy() for key, store in group.items()} for family, group in self._groups.items()
        }
        other._rows = {family: store.copy() for family, store in self._rows.items()}
        other._bars = self._bars.copy()
        other.summarised = None if self.summarised is None else self.summarised.copy()
        other._open_columns = self._open_columns.copy()
        return other

    def advance(self, token_id: int) -> list[Place]:
        """Take a token, whose keys and values come later; for every family where they go and what it reads."""
        facts = self.facts
        facts.advance(token_id)
        columns = (facts.type, facts.note, facts.instrument, facts.bar)
        if self.summarised is not None:
            self.summarised.append(columns)
        if self.closes_bars:
            self._open_columns.append(columns)
        places = []
        for heads in self.heads:
            store = self._store_of(heads)
            store.append(columns)
            places.append(store.place(self._hidden(heads.family, store) if self._has_columns else None))
        return places

    def _store_of(self, heads: FamilyHeads) -> Store:
        """The store that the latest token goes into and reads."""
        if heads.family not in EQUAL_KEY:
            return self._rows[heads.family]
        group, key = self._groups[heads.family], EQUAL_KEY[heads.family](self.facts)
        store = group.get(key)
        if store is None:
            store = group[key] = self._store(heads.num_slots)
        return store

    def _store(self, num_slots: int) -> Store:
        settings = self.settings
        return Store(settings.num_layers, num_slots, settings.head_dim, self._device, has_columns=self._has_columns)

    def _hidden(self, family: HeadFamily, store: Store) -> Array | None:
        """(n,) what the latest token does not see of its store by the rules of ``visibility``; ``None`` for nothing."""
        types, notes, instruments, bars = store.columns
        facts, visible = self.facts, np.ones(store.length, dtype=bool)
        if family == "union":
            visible = (instruments == GLOBAL) | (instruments == facts.instrument)
            visible |= np.isin(bars, [facts.bar - offset for offset in self.settings.bar_offsets])
        if self._types_seen is not None and facts.note >= 0:
            visible &= (notes < 0) | (notes == facts.note) | self._types_seen[facts.type, types]
        return None if visible.all() else as_array(torch.from_numpy(~visible).to(self._device))

    def close_bar(self, summary: SummaryParts | None) -> None:
        """End the open bar.

        Args:
            summary: Of the bar; ``None`` where there are none.
        """
        columns = np.array(self._open_columns, dtype=np.int64).T
        bar_tokens = None
        if "ensemble" in self._rows:
            bar_tokens = self._rows["ensemble"].keys_values[..., self._num_before_open :].clone()
        self._leave(self.facts.bar, bar_tokens, columns, None if summary is None else summary.second)
        self._refill(self.facts.bar + 1)
        if self.summarised is not None and summary is not None:
            self.summarised.cut(self._num_summaries)
            self._keep_summary(summary.own)
        self._open_columns.clear()

    def _keep_summary(self, own: Tensor) -> None:
        """Put the keys and values of a finished summary where later ones read them, if they do."""
        assert self.summarised is not None
        if self.settings.summaries == "full":
            self.summarised.extend(own, np.array([_OF_SUMMARY]).T)
            self._num_summaries += 1

    def _leave(self, bar: int, tokens: Tensor | None, columns: np.ndarray, second: Tensor | None) -> None:
        """Put a finished bar and its summary where later bars see them; :meth:`_refill` comes next.

        Args:
            bar: Its number.
            tokens: (2 L, S, E, n) of the ``ensemble`` heads, where there are any.
            columns: (4, n) of its tokens.
            second: (2 L, K, E, 1) of its summary, where there is one.
        """
        of_summary = np.array([_OF_SUMMARY]).T
        for heads in self.heads:
            if heads.family == "ensemble":
                assert tokens is not None
                store = self._rows["ensemble"]
                store.cut(self._num_permanent)
                is_global = torch.from_numpy(columns[2] == GLOBAL).to(self._device)
                self._bars.append(_Bar(bar, tokens, columns, is_global))
                while self._bars and self._bars[0].number <= bar - max(self.settings.bar_offsets):
                    _extend_by_globals(store, self._bars.popleft())
            if heads.family in self._rows and second is not None:
                self._rows[heads.family].extend(second[:, heads.slots], of_summary)
            if heads.family == "ensemble":
                self._num_permanent = self._rows["ensemble"].length

    def _refill(self, open_bar: int) -> None:
        """Write what ``ensemble`` heads see of the bars before the open one."""
        if "ensemble" not in self._rows:
            return
        store = self._rows["ensemble"]
        for bar in self._bars:
            if open_bar - bar.number in self.settings.bar_offsets:
                store.extend(bar.keys_values, bar.columns)
            else:
                _extend_by_globals(store, bar)
        self._num_before_open = store.length

    def fill(self, facts: Attributes, running: RunningAttributes, recorded: Recorded) -> None:
        """Take a whole row of one document at once.

        Args:
            facts: Of its T tokens and M bars.
            running: Of its last token.
            recorded: What the layers made of it.
        """
        self.facts = running
        tokens, columns = recorded.regular, np.stack([getattr(facts, name) for name in COLUMNS])
        starts = np.searchsorted(facts.bar, np.arange(len(facts.bar_last) + 1)).tolist()
        slots = {heads.family: heads.slots for heads in self.heads}
        for bar, (start, stop) in enumerate(pairwise(starts)):
            of_bar, of_columns = tokens[..., start:stop], columns[:, start:stop]
            if "union" in self._rows:
                self._rows["union"].extend(of_bar[:, slots["union"]], of_columns)
            if bar < running.bar and self.closes_bars:
                summary = recorded.summary_of(bar) if self.has_summaries else None
                of_ensemble = of_bar[:, slots["ensemble"]].clone() if "ensemble" in self._rows else None
                self._leave(bar, of_ensemble, of_columns, None if summary is None else summary.second)
                if summary is not None:
                    self._keep_summary(summary.own)
        self._refill(running.bar)
        open_tokens, open_columns = tokens[..., starts[running.bar] :], columns[:, starts[running.bar] :]
        if self.summarised is not None:
            self.summarised.extend(open_tokens, open_columns)
        if self.closes_bars:
            self._open_columns = [tuple(column) for column in open_columns.T.tolist()]
        for heads in self.heads:
            if heads.family == "ensemble":
                self._rows["ensemble"].extend(open_tokens[:, heads.slots], open_columns)
            elif heads.family in self._groups:
                self._fill_groups(heads, facts, tokens[:, heads.slots], columns)

    def _fill_groups(self, heads: FamilyHeads, facts: Attributes, tokens: Tensor, columns: np.ndarray) -> None:
        keys = np.array(EQUAL_KEY[heads.family](facts))
        for key in np.unique(keys).tolist():
            places = np.flatnonzero(keys == key)
            store = self._groups[heads.family][key] = self._store(heads.num_slots)
            store.extend(tokens[..., torch.from_numpy(places).to(self._device)], columns[:, places])


class Recorded(NamedTuple):
    """Keys and values that the layers made of a whole row: keys of even, values of odd number."""

    regular: Tensor
    """(2 L, K, E, T)."""
    summaries: SummaryParts | None
    """The same of M summaries; ``None`` where there are none."""

    def summary_of(self, bar: int) -> SummaryParts:
        """That of one bar."""
        assert self.summaries is not None
        return SummaryParts(*(part[..., bar : bar + 1] for part in self.summaries))


def _extend_by_globals(store: Store, bar: _Bar) -> None:
    store.extend(bar.keys_values[..., bar.is_global], bar.columns[:, bar.is_global.cpu().numpy()])

"""Documents -> rows of one length: cut at bar lines what is too long, then pack best fit.

Every token of every document is a target exactly once an epoch. A piece that was cut goes on in another row as
``SEP METER TEMPO`` and what follows the cut; those three say what is in force and are no targets.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np

from meloformer.tokens.vocabulary import SEP, TokenType, Vocabulary

PREFIX_LENGTH = 3
"""SEP METER TEMPO."""


@dataclass(frozen=True)
class Fragment:
    """A stretch of one document that goes into one row."""

    document: int
    start: int
    stop: int
    """Token range of the document."""
    prefix: tuple[int, ...]
    """Ids written in front of it; none at the start of a document."""

    def __len__(self) -> int:
        return len(self.prefix) + self.stop - self.start


def cut_document(ids: np.ndarray, document: int, seq_len: int, vocabulary: Vocabulary) -> list[Fragment]:
    """Cut a document into fragments of at most ``seq_len`` tokens.

    The cut is at a bar line where one lies in reach; a bar longer than a row is cut before an instrument, or else
    anywhere.

    Args:
        ids: (T,) ids, from BOS to EOS.
        document: Its number.
        seq_len: Longest fragment, prefix included; more than ``PREFIX_LENGTH``.
        vocabulary: Of the ids.
    """
    if len(ids) <= seq_len:
        return [Fragment(document, 0, len(ids), ())]
    types = vocabulary.types[ids]
    bar_lines, cells = np.flatnonzero(types == TokenType.CHORD), np.flatnonzero(types == TokenType.INSTRUMENT)
    meters, tempos = np.flatnonzero(types == TokenType.METER), np.flatnonzero(types == TokenType.TEMPO)
    fragments: list[Fragment] = []
    start, prefix = 0, ()
    while start < len(ids):
        reach = start + seq_len - len(prefix)
        stop = len(ids)
        if reach < len(ids):
            stop = _last_between(bar_lines, start + 1, reach) or _last_between(cells, start + 1, reach) or reach
        fragments.append(Fragment(document, start, stop, prefix))
        start = stop
        in_force = [int(ids[places[np.searchsorted(places, start) - 1]]) for places in (meters, tempos)]
        prefix = (SEP, *in_force)
    return fragments


def _last_between(places: np.ndarray, low: int, high: int) -> int | None:
    """The last of the sorted ``places`` in [low, high], or ``None``."""
    at = int(np.searchsorted(places, high, side="right")) - 1
    return int(places[at]) if at >= 0 and places[at] >= low else None


def pack_rows(lengths: np.ndarray, seq_len: int, *, seed: int, epoch: int) -> list[list[int]]:
    """Put fragments into rows, best fit by falling length; a function of its arguments alone.

    Args:
        lengths: (F,) tokens of every fragment, none above ``seq_len``.
        seq_len: Tokens in a row.
        seed, epoch: Choose among equals, and the order of the rows.
    Returns:
        For every row the numbers of its fragments; each fragment stands in one row.
    """
    rng = np.random.default_rng([seed, epoch])
    shuffled = rng.permutation(len(lengths))
    order = shuffled[np.argsort(-lengths[shuffled], kind="stable")]
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, row), sorted; full rows leave it
    for fragment in order.tolist():
        length = int(lengths[fragment])
        at = bisect_left(room, (length, -1))
        if at == len(room):
            rows.append([])
            left, row = seq_len, len(rows) - 1
        else:
            left, row = room.pop(at)
        rows[row].append(fragment)
        if left > length:
            insort(room, (left - length, row))
    for row in rows:
        rng.shuffle(row)
    return [rows[index] for index in rng.permutation(len(rows))]

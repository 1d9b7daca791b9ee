"""Documents -> rows of one length: cut what is too long, at bar lines where possible, then pack best fit.

Every token of every document but its BOS is a target exactly once an epoch. A piece that was cut goes on in another row
behind a few ids of context, which are no targets; :func:`~meloformer.tokens.attributes.attributes` knows them:

    SEP METER TEMPO                           the next bar begins: what is in force
    SEP CHORD METER TEMPO INSTRUMENT ONSET    the bar, its cell and its onset go on: only in a bar longer than a row
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from meloformer.tokens.vocabulary import BOS, SEP, TokenType, Vocabulary

BEFORE_BAR = (TokenType.METER, TokenType.TEMPO)
INSIDE_BAR = (TokenType.CHORD, TokenType.METER, TokenType.TEMPO, TokenType.INSTRUMENT, TokenType.ONSET)
"""Types of the context behind SEP."""
MIN_ROW = 16
"""So that behind any context there is a place to cut in reach."""
_PAST_FIRST_NOTE = 7
"""BOS CHORD METER TEMPO INSTRUMENT T P: the first pitch of a bar is nearer than that, and a cut there wins nothing."""


@dataclass(frozen=True)
class Fragment:
    """A stretch of one document that goes into one row."""

    document: int
    start: int
    stop: int
    """Token range of the document."""
    context: tuple[int, ...]
    """Ids written in front of it; none at the start of a document."""

    def __len__(self) -> int:
        return len(self.context) + self.stop - self.start


def cut_document(ids: np.ndarray, document: int, seq_len: int, vocabulary: Vocabulary) -> list[Fragment]:
    """Cut a document into fragments of at most ``seq_len`` tokens.

    A cut is at the last bar line in reach. A bar longer than a row is cut in front of a pitch: the first of a cell, or
    else the first of an onset, or else any, and of these the last in reach. Its T is predicted where it stands, and
    repeated as context.

    Args:
        ids: (T,) ids of a HID document, from BOS to EOS.
        document: Its number.
        seq_len: Longest fragment, context included; at least ``MIN_ROW``.
        vocabulary: Of the ids.
    Raises:
        ValueError: ``seq_len`` is too small, or the ids are no document.
    """
    if seq_len < MIN_ROW:
        raise ValueError(f"rows of {seq_len} tokens are too short, the least is {MIN_ROW}")
    if len(ids) <= seq_len:
        return [Fragment(document, 0, len(ids), ())]
    types = vocabulary.types[ids]
    places = {kind: np.flatnonzero(types == kind) for kind in (*INSIDE_BAR, TokenType.PITCH)}
    bar_lines = places[TokenType.CHORD][1:] if ids[0] == BOS else places[TokenType.CHORD]
    choices = (
        (bar_lines, 1),
        (places[TokenType.INSTRUMENT] + 2, _PAST_FIRST_NOTE),
        (places[TokenType.ONSET] + 1, _PAST_FIRST_NOTE),
        (places[TokenType.PITCH], 1),
    )
    fragments: list[Fragment] = []
    start, context = 0, ()
    while start + seq_len - len(context) < len(ids):
        reach = start + seq_len - len(context)
        cuts = (_last_between(where, start + least, reach) for where, least in choices)
        stop = next((cut for cut in cuts if cut is not None), None)
        if stop is None:
            raise ValueError(
                f"ids {start} to {reach} of document {document} have no place to cut: it is no HID document"
            )
        fragments.append(Fragment(document, start, stop, context))
        kinds = BEFORE_BAR if types[stop] == TokenType.CHORD else INSIDE_BAR
        context = (SEP, *(int(ids[_last_between(places[kind], 0, stop - 1)]) for kind in kinds))
        start = stop
    return [*fragments, Fragment(document, start, len(ids), context)]


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
    Raises:
        ValueError: A fragment is longer than a row.
    """
    if len(lengths) and int(lengths.max()) > seq_len:
        raise ValueError(f"a fragment of {lengths.max()} tokens does not fit into a row of {seq_len}")
    rng = np.random.default_rng([seed, epoch])
    shuffled = rng.permutation(len(lengths))
    order = shuffled[np.argsort(-lengths[shuffled], kind="stable")]
    rows: list[list[int]] = []
    rows_with: dict[int, list[int]] = {}  # room that is left -> heap of the rows that have it
    rooms: list[int] = []  # its keys, sorted: at most seq_len of them, however many rows are open
    for fragment, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        at = bisect_left(rooms, length)
        if at == len(rooms):
            row, room = len(rows), seq_len
            rows.append([])
        else:
            room = rooms[at]
            row = heappop(rows_with[room])
            if not rows_with[room]:
                del rows_with[room], rooms[at]
        rows[row].append(fragment)
        room -= length
        if room:
            if room not in rows_with:
                rows_with[room] = []
                insort(rooms, room)
            heappush(rows_with[room], row)
    for row in rows:
        rng.shuffle(row)
    return [rows[index] for index in rng.permutation(len(rows))]

"""What the model sees of a long piece: its latest bars, opened as a row of training data is."""

from __future__ import annotations

import numpy as np

from meloformer.tokens.attributes import note_starts
from meloformer.tokens.vocabulary import SEP, TokenType, Vocabulary

PREFIX_LENGTH = 3
"""SEP METER TEMPO, which open a piece that goes on."""
MAX_NOTE_LENGTH = 4
"""T P D V."""


def latest_context(ids: np.ndarray, length: int, vocabulary: Vocabulary) -> np.ndarray:
    """The end of a piece in at most ``length`` tokens, each of which keeps its instrument, onset and pitch.

    A piece that fits is taken whole; else ``SEP METER TEMPO`` and the latest whole bars. Where the open bar alone is
    too long, its CHORD and its latest whole cells are kept. Where its open cell alone is, the INSTRUMENT and the latest
    notes are, of which the first is written with all its parts and opens the cell: its T follows no other note's pitch.

    Args:
        ids: (T,) the beginning of a valid document.
        length: Room in tokens, at least 16.
        vocabulary: Of the ids.
    Returns:
        (T',) ids, T' <= ``length``; read as a document that goes on, it has no grammar error.
    """
    if len(ids) <= length:
        return ids
    types = vocabulary.types[ids]
    bar_lines = np.flatnonzero(types == TokenType.CHORD)
    start = _first_from(bar_lines, len(ids) - (length - PREFIX_LENGTH))
    if start is not None:
        return np.concatenate([_opening(ids[:start], types[:start]), ids[start:]])
    head = np.append(_opening(ids, types), ids[bar_lines[-1]])
    cells = np.flatnonzero(types == TokenType.INSTRUMENT)
    start = _first_from(cells, len(ids) - (length - len(head)))
    if start is not None:
        return np.concatenate([head, ids[start:]])
    cell = int(cells[-1])
    room = length - len(head) - 1
    return np.concatenate([head, ids[cell : cell + 1], _latest_notes(ids[cell + 1 :], types[cell + 1 :], room)])


def _opening(ids: np.ndarray, types: np.ndarray) -> np.ndarray:
    """(3,) SEP and the meter and the tempo in force at the end of ``ids``."""
    in_force = [ids[np.flatnonzero(types == kind)[-1]] for kind in (TokenType.METER, TokenType.TEMPO)]
    return np.array([SEP, *in_force], dtype=ids.dtype)


def _latest_notes(ids: np.ndarray, types: np.ndarray, room: int) -> np.ndarray:
    """The notes at the end of a cell that fit into ``room`` tokens, the first with all its parts.

    Args:
        ids: (T,) all notes of a cell, T > ``room``; the last may be open.
        types: (T,) of the ids.
        room: At least two notes' length, so that the first note that is kept is a whole one.
    """
    starts = np.flatnonzero(note_starts(types))
    kept = starts[starts >= len(ids) - (room - MAX_NOTE_LENGTH + 1)]  # a note of P alone grows by three
    end = int(kept[1])
    parts = (TokenType.ONSET, TokenType.PITCH, TokenType.DURATION, TokenType.VELOCITY)
    latest = [np.flatnonzero(types[:end] == part)[-1:] for part in parts]  # drums have no duration
    return np.concatenate([ids[np.concatenate(latest)], ids[end:]])


def _first_from(places: np.ndarray, low: int) -> int | None:
    """The first of the sorted ``places`` that is ``low`` or later."""
    at = int(np.searchsorted(places, low))
    return int(places[at]) if at < len(places) else None

"""What every token knows: document, bar, instrument, type, note, and where in the music it stands, from ids alone.

Training, generation and text all use :func:`attributes`; nothing but ids is stored.

A *row* is documents one after another, each opened by ``BOS``, and ``PAD`` to the end. A piece that continues from
an earlier row opens instead with context, which is no target: ``SEP METER TEMPO`` at a bar line, what is in force; or
``SEP CHORD METER TEMPO INSTRUMENT ONSET`` inside a bar that was longer than a row, where bar, cell and onset go on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from meloformer.midi.score import DRUMS
from meloformer.tokens.grid import METER_NUMBER, METER_STEPS
from meloformer.tokens.vocabulary import NOTE_TYPES, TokenType, Vocabulary

GLOBAL = DRUMS + 1
"""The ``instrument`` of tokens that belong to all: CHORD, METER, TEMPO and the special tokens."""
NUM_INSTRUMENTS = GLOBAL + 1
NONE = -1

_DEFAULT_BAR_STEPS = int(METER_STEPS[METER_NUMBER[4, 4]])


@dataclass(frozen=True)
class Attributes:
    """Facts about the T tokens and the M bars of one row, all int64 unless said otherwise."""

    type: np.ndarray
    """(T,) ``TokenType``."""
    document: np.ndarray
    """(T,) number of the document in the row, -1 for PAD."""
    bar: np.ndarray
    """(T,) bar slot, counting on over all documents of the row; what precedes the first CHORD belongs to the first
    bar, EOS to the last; -1 for PAD."""
    instrument: np.ndarray
    """(T,) program 0-127, 128 drums, 129 global."""
    note: np.ndarray
    """(T,) number of the note in the row, -1 for tokens that are not part of a note."""
    onset: np.ndarray
    """(T,) onset of the token's note inside its bar in steps, -1 for tokens that are not part of a note."""
    pitch: np.ndarray
    """(T,) pitch of the token's note; an onset token, which precedes its pitch, carries that of the note before in its
    cell; -1 where there is none."""
    time: np.ndarray
    """(T,) steps from the start of the document: the note's onset, the bar's start for CHORD METER TEMPO INSTRUMENT,
    the end of the piece for EOS; 0 for BOS, SEP and PAD."""
    bar_of_document: np.ndarray
    """(T,) bars of the document in this row before the token's own; -1 for PAD."""
    chord: np.ndarray
    """(T,) value of the document's latest CHORD, -1 before the first and for PAD."""
    is_target: np.ndarray
    """(T,) bool, whether a model is to predict this token: not PAD, BOS, SEP, nor the context behind a SEP."""
    bar_document: np.ndarray
    """(M,) document of every bar slot."""
    bar_last: np.ndarray
    """(M,) row index of the bar's last token."""
    bar_end_time: np.ndarray
    """(M,) where the bar ends, in steps from the start of its document."""


def carried(values: np.ndarray, is_setter: np.ndarray) -> np.ndarray:
    """(T,) at every position the value of the last setter at or before it, ``NONE`` before the first."""
    last = np.maximum.accumulate(np.where(is_setter, np.arange(len(values)), -1))
    return np.where(last >= 0, values[last], NONE)


def attributes(row: np.ndarray, vocabulary: Vocabulary) -> Attributes:
    """Derive everything that can be known of a row's tokens.

    Every fact about position t depends on tokens up to t only, but for the (M,) facts about bars, which are those of
    finished bars.

    Args:
        row: (T,) ids, T > 0.
        vocabulary: Their vocabulary.
    """
    ids = np.asarray(row, dtype=np.int64)
    types, values = vocabulary.types[ids], vocabulary.values[ids]
    is_pad = types == TokenType.PAD
    is_chord = types == TokenType.CHORD
    is_note = (types >= NOTE_TYPES[0]) & (types <= NOTE_TYPES[-1])
    document, bar, before_chord = _documents_and_bars(types, is_pad, is_chord)
    instrument = np.where(is_note | (types == TokenType.INSTRUMENT), values, GLOBAL)
    instrument = carried(instrument, ~is_note)
    instrument[instrument == NONE] = GLOBAL
    onset = carried(np.where(types == TokenType.ONSET, values, NONE), (types == TokenType.ONSET) | ~is_note)
    pitch = carried(np.where(types == TokenType.PITCH, values, NONE), (types == TokenType.PITCH) | ~is_note)
    bar_first, bar_last = _bounds(bar)
    bar_document = document[bar_first]
    meter_steps = _meter_steps(types, values, document)
    bar_start, bar_end_time = _bar_times(meter_steps[bar_last], bar_document)
    time = bar_start[bar] + np.where(types == TokenType.EOS, meter_steps, np.maximum(onset, 0))
    has_chord = ~before_chord & ~is_pad
    is_context = before_chord & np.isin(types, (TokenType.METER, TokenType.TEMPO))
    is_context[_of_reopened_bars(types)] = True
    return Attributes(
        type=types,
        document=document,
        bar=bar,
        instrument=instrument,
        note=np.where(is_note, np.cumsum(note_starts(types)) - 1, NONE),
        onset=onset,
        pitch=pitch,
        time=np.where(is_pad, 0, time),
        bar_of_document=np.where(is_pad, NONE, bar - _first_bars(bar_document)[document]),
        chord=np.where(has_chord, carried(values, is_chord), NONE),
        is_target=~(np.isin(types, (TokenType.PAD, TokenType.BOS, TokenType.SEP)) | is_context),
        bar_document=bar_document,
        bar_last=bar_last,
        bar_end_time=bar_end_time,
    )


def note_starts(types: np.ndarray) -> np.ndarray:
    """(T,) bool: the first token of a note, its onset or, where that is left out, its pitch."""
    after_onset = np.append(False, types[:-1] == TokenType.ONSET)
    return (types == TokenType.ONSET) | ((types == TokenType.PITCH) & ~after_onset)


def _of_reopened_bars(types: np.ndarray) -> np.ndarray:
    """Positions of the CHORD METER TEMPO INSTRUMENT ONSET behind every SEP that a CHORD follows."""
    chord = np.flatnonzero((types[1:] == TokenType.CHORD) & (types[:-1] == TokenType.SEP)) + 1
    positions = (chord[:, None] + np.arange(5)).reshape(-1)
    return positions[positions < len(types)]


def _documents_and_bars(
    types: np.ndarray, is_pad: np.ndarray, is_chord: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(T,) document and bar slot, and (T,) bool whether no CHORD of the document has come yet."""
    is_start = (types == TokenType.BOS) | (types == TokenType.SEP)
    is_start[np.argmax(~is_pad)] = True
    document = np.cumsum(is_start) - 1
    start_index = np.flatnonzero(is_start)
    chords = np.cumsum(is_chord)
    chords_before = (chords - is_chord)[start_index]
    chords_in_document = chords - chords_before[document]
    bars_of = np.maximum(np.bincount(document[is_chord], minlength=len(start_index)), 1)
    slot = (np.cumsum(bars_of) - bars_of)[document] + np.maximum(chords_in_document - 1, 0)
    return np.where(is_pad, NONE, document), np.where(is_pad, NONE, slot), chords_in_document == 0


def _bounds(bar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(M,) index of the first and of the last token of every bar slot; one made-up bar where all is PAD."""
    edges = np.flatnonzero(np.diff(bar, prepend=NONE - 1))
    edges = edges[bar[edges] >= 0]
    if not len(edges):
        return np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    num_tokens = int((bar >= 0).sum())
    return edges, np.append(edges[1:], num_tokens) - 1


def _first_bars(bar_document: np.ndarray) -> np.ndarray:
    """(documents,) the first bar slot of each."""
    return np.unique(bar_document, return_index=True)[1]


def _meter_steps(types: np.ndarray, values: np.ndarray, document: np.ndarray) -> np.ndarray:
    """(T,) length in steps of a bar of the latest meter in the document."""
    meter_index = np.maximum.accumulate(np.where(types == TokenType.METER, np.arange(len(types)), -1))
    known = (meter_index >= 0) & (document[meter_index] == document)
    return np.where(known, METER_STEPS[np.where(known, values[meter_index], 0)], _DEFAULT_BAR_STEPS)


def _bar_times(bar_steps: np.ndarray, bar_document: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(M,) start and end of every bar in steps from the start of its document."""
    end = np.cumsum(bar_steps)
    start = end - bar_steps
    first_of_document = np.append(True, bar_document[1:] != bar_document[:-1])
    origin = np.maximum.accumulate(np.where(first_of_document, start, 0))
    return start - origin, end - origin

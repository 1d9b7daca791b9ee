"""Score -> HID ids, all notes of a piece at once."""

from __future__ import annotations

import numpy as np

from meloformer.midi.bars import grid_of
from meloformer.midi.score import DRUMS, Score
from meloformer.tokens.ensemble import ENSEMBLE_RANK
from meloformer.tokens.grid import DURATION_STEPS, METER_NUMBER, STEPS_PER_QUARTER, nearest_tempo, velocity_bin
from meloformer.tokens.quantise import quantise
from meloformer.tokens.vocabulary import BOS, EOS, FIRST_ID, TokenType, Vocabulary

_DURATION_ID = np.zeros(int(DURATION_STEPS[-1]) + 1, dtype=np.int64)
_DURATION_ID[DURATION_STEPS] = FIRST_ID[TokenType.DURATION] + np.arange(len(DURATION_STEPS))


def encode(score: Score, vocabulary: Vocabulary | None = None, *, chords: bool = True) -> np.ndarray:
    """Write a piece as one HID document.

    Args:
        score: Any score; it is quantised first.
        vocabulary: By default the full one.
        chords: Name the harmony of every bar, otherwise write ``N``.
    Returns:
        (T,) uint16 ids, from BOS to EOS, in the one spelling that the grammar allows.
    Raises:
        RejectError: The piece has a meter that HID cannot write, or more bars than ``midi.bars.MAX_BARS``.
        VocabularyError: A token that the piece needs was pruned.
    """
    return encode_quantised(quantise(score, chords=chords), vocabulary)


def encode_quantised(score: Score, vocabulary: Vocabulary | None = None) -> np.ndarray:
    """:func:`encode` for what :func:`~meloformer.tokens.quantise.quantise` returned, which is not checked again."""
    vocabulary = vocabulary or Vocabulary.default()
    assert score.chords is not None
    assert score.ticks_per_quarter == STEPS_PER_QUARTER
    grid = grid_of(score)
    start = grid.start_ticks
    has_meter = np.zeros(len(start), dtype=bool)
    has_meter[np.searchsorted(start, score.meter_ticks)] = True
    has_tempo = np.zeros(len(start), dtype=bool)
    has_tempo[np.searchsorted(start, score.tempo_ticks)] = True
    header = 1 + has_meter + has_tempo

    bar, tokens, present = _note_tokens(score, start)
    token_count = present.sum(axis=1)
    before_note = np.cumsum(token_count) - token_count
    notes_before_bar = np.searchsorted(bar, np.arange(len(start)))
    in_bar = np.bincount(bar, weights=token_count, minlength=len(start)).astype(np.int64)
    bar_position = 1 + np.cumsum(header + in_bar) - (header + in_bar)
    cells_before_bar = np.append(before_note, token_count.sum())[notes_before_bar]

    ids = np.empty(int((header + in_bar).sum()) + 2, dtype=np.int64)
    ids[0], ids[-1] = BOS, EOS
    ids[bar_position] = FIRST_ID[TokenType.CHORD] + score.chords
    meters = [METER_NUMBER[n, d] for n, d in zip(score.meter_numerator, score.meter_denominator, strict=True)]
    ids[bar_position[has_meter] + 1] = FIRST_ID[TokenType.METER] + np.array(meters)
    ids[(bar_position + header)[has_tempo] - 1] = FIRST_ID[TokenType.TEMPO] + nearest_tempo(score.tempo_us)
    note_position = (bar_position + header - cells_before_bar)[bar] + before_note
    position = note_position[:, None] + np.cumsum(present, axis=1) - 1
    ids[position[present]] = tokens[present]
    return vocabulary.from_canonical(ids)


def _note_tokens(score: Score, bar_start: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """In writing order: (N,) bar, (N, 5) INSTRUMENT T P D V ids, and (N, 5) bool which are written."""
    bar = np.searchsorted(bar_start, score.onset_ticks, side="right") - 1
    rank = ENSEMBLE_RANK[score.program]
    cell = bar * (DRUMS + 1) + rank
    order = np.argsort(cell, kind="stable")  # the notes come sorted by (onset, program, pitch)
    cell, bar, instrument = cell[order], bar[order], score.program[order]
    onset = score.onset_ticks[order] - bar_start[bar]
    duration, velocity = score.duration_ticks[order], velocity_bin(score.velocity[order])
    num_notes = len(order)
    tokens = np.empty((num_notes, 5), dtype=np.int64)
    tokens[:, 0] = FIRST_ID[TokenType.INSTRUMENT] + instrument
    tokens[:, 1] = FIRST_ID[TokenType.ONSET] + onset
    tokens[:, 2] = FIRST_ID[TokenType.PITCH] + score.pitch[order]
    tokens[:, 3] = _DURATION_ID[duration]
    tokens[:, 4] = FIRST_ID[TokenType.VELOCITY] + velocity
    present = np.ones((num_notes, 5), dtype=bool)
    opens_cell = np.ones(num_notes, dtype=bool)
    opens_cell[1:] = cell[1:] != cell[:-1]
    present[:, 0] = opens_cell
    for column in (1, 3, 4):
        present[1:, column] = opens_cell[1:] | (tokens[1:, column] != tokens[:-1, column])
    present[:, 3] &= instrument != DRUMS
    return bar, tokens, present

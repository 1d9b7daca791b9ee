"""Score -> HID ids, all notes of a piece at once."""

from __future__ import annotations

import numpy as np

from meloformer.midi.bars import grid_of
from meloformer.midi.score import DRUMS, Score
from meloformer.tokens.ensemble import ENSEMBLE_RANK
from meloformer.tokens.grid import DURATION_STEPS, METER_NUMBER, STEPS_PER_QUARTER, nearest_tempo, velocity_bin
from meloformer.tokens.quantise import quantise
from meloformer.tokens.vocabulary import BOS, EOS, FIRST_ID, TokenType, Vocabulary

_DURATION_ID = np.zeros(int(DURATION_STEPS[-1]) + 1, dtype=np.uint16)
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
    start = grid_of(score).start_ticks
    first_note = np.searchsorted(score.onset_ticks, start)
    bar_tokens, bar_of_token = _bar_tokens(score, score.chords, start)
    note_tokens, before_bar = _note_tokens(score, start, first_note)
    ids = np.empty(len(bar_tokens) + len(note_tokens) + 2, dtype=np.uint16)
    ids[0], ids[-1] = BOS, EOS
    position = 1 + np.arange(len(bar_tokens)) + before_bar[bar_of_token]
    of_note = np.ones(len(ids), dtype=bool)
    of_note[[0, -1]] = of_note[position] = False
    ids[position], ids[of_note] = bar_tokens, note_tokens
    return vocabulary.from_canonical(ids)


def _bar_tokens(score: Score, chords: np.ndarray, bar_start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """CHORD, and METER and TEMPO where they change: (H,) ids in writing order, and (H,) the bar of each."""
    tokens = np.zeros((len(bar_start), 3), dtype=np.uint16)  # 0 where nothing is written: no bar opens with PAD
    tokens[:, 0] = FIRST_ID[TokenType.CHORD] + chords
    meters = zip(score.meter_numerator.tolist(), score.meter_denominator.tolist(), strict=True)
    meter_number = np.array([METER_NUMBER[meter] for meter in meters])
    tokens[np.searchsorted(bar_start, score.meter_ticks), 1] = FIRST_ID[TokenType.METER] + meter_number
    tempo_number = nearest_tempo(score.tempo_us)
    tokens[np.searchsorted(bar_start, score.tempo_ticks), 2] = FIRST_ID[TokenType.TEMPO] + tempo_number
    written = np.flatnonzero(tokens)
    return tokens.reshape(-1)[written], written // 3


def _note_tokens(score: Score, bar_start: np.ndarray, first_note: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """INSTRUMENT T P D V, where they change: (M,) ids in writing order, and (B,) how many precede each bar.

    Args:
        score: Its notes come in the order (onset, program, pitch).
        bar_start: (B,) steps.
        first_note: (B,) number of the first note that does not precede the bar.
    """
    num_notes = score.num_notes
    notes_in_bar = np.append(first_note[1:], num_notes) - first_note
    bar = np.repeat(np.arange(len(bar_start)), notes_in_bar)
    order = np.argsort(bar * (DRUMS + 1) + ENSEMBLE_RANK[score.program], kind="stable")
    tokens = np.empty((num_notes, 5), dtype=np.uint16)
    tokens[:, 0] = FIRST_ID[TokenType.INSTRUMENT] + score.program
    tokens[:, 1] = FIRST_ID[TokenType.ONSET] + score.onset_ticks - np.repeat(bar_start, notes_in_bar)
    tokens[:, 2] = FIRST_ID[TokenType.PITCH] + score.pitch
    tokens[:, 3] = _DURATION_ID[score.duration_ticks]
    tokens[:, 4] = FIRST_ID[TokenType.VELOCITY] + velocity_bin(score.velocity)
    tokens = tokens.take(order, axis=0)  # which moves notes within their bar only

    written = np.ones((num_notes, 5), dtype=bool)
    np.not_equal(tokens[1:], tokens[:-1], out=written[1:])
    opens_cell = written[:, 0].copy()
    opens_cell[first_note[notes_in_bar > 0]] = True
    written[opens_cell] = True
    written[:, 2] = True
    written[:, 3] &= tokens[:, 0] != FIRST_ID[TokenType.INSTRUMENT] + DRUMS
    places = np.flatnonzero(written)
    return tokens.reshape(-1)[places], np.searchsorted(places, 5 * first_note)

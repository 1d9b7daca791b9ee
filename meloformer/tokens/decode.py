"""HID ids -> Score, all notes of a document at once."""

from __future__ import annotations

import numpy as np

from meloformer.errors import GrammarError
from meloformer.midi.score import DRUMS, Score
from meloformer.tokens.attributes import attributes
from meloformer.tokens.grammar import grammar_errors
from meloformer.tokens.grid import METERS, STEPS_PER_QUARTER, TEMPO_US, bin_velocity
from meloformer.tokens.vocabulary import CANONICAL_VALUE, TokenType, Vocabulary


def decode(ids: np.ndarray, vocabulary: Vocabulary | None = None) -> Score:
    """Read one HID document.

    Args:
        ids: (T,) ids, from BOS to EOS.
        vocabulary: By default the full one.
    Returns:
        A quantised score, 12 ticks a quarter, with a chord for every bar.
    Raises:
        GrammarError: The ids are no valid document; names the first token that may not stand where it stands.
        VocabularyError: An id is outside the vocabulary.
    """
    vocabulary = vocabulary or Vocabulary.default()
    problems = grammar_errors(ids, vocabulary)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise GrammarError(f"no HID document: {problems[0]}{more}")
    canonical = vocabulary.to_canonical(ids)
    facts = attributes(canonical, Vocabulary.default())
    types, values = facts.type, CANONICAL_VALUE[canonical]
    is_pitch = types == TokenType.PITCH
    program, pitch = facts.instrument[is_pitch], values[is_pitch]
    onset = facts.time[is_pitch]
    duration = np.where(program == DRUMS, 1, _in_force(types, values, TokenType.DURATION))
    velocity = bin_velocity(_in_force(types, values, TokenType.VELOCITY))
    order = np.lexsort((pitch, program, onset))
    bar_start = np.append(0, facts.bar_end_time[:-1])
    is_meter, is_tempo = types == TokenType.METER, types == TokenType.TEMPO
    meters = np.array(METERS, dtype=np.int64)[values[is_meter]]
    return Score(
        ticks_per_quarter=STEPS_PER_QUARTER,
        onset_ticks=onset[order],
        duration_ticks=duration[order],
        pitch=pitch[order],
        velocity=velocity[order],
        program=program[order],
        tempo_ticks=bar_start[facts.bar[is_tempo]],
        tempo_us=TEMPO_US[values[is_tempo]],
        meter_ticks=bar_start[facts.bar[is_meter]],
        meter_numerator=meters[:, 0],
        meter_denominator=meters[:, 1],
        end_ticks=int(facts.bar_end_time[-1]),
        chords=values[types == TokenType.CHORD],
    )


def _in_force(types: np.ndarray, values: np.ndarray, token_type: TokenType) -> np.ndarray:
    """(N,) for every note the value of its own token of ``token_type``, or else of the latest one before it."""
    index = np.arange(len(types))
    latest = np.maximum.accumulate(np.where(types == token_type, index, 0))
    pitch_index = index[types == TokenType.PITCH]
    after_pitch = types[np.minimum(pitch_index + 1, len(types) - 1)] == TokenType.DURATION
    end = pitch_index + after_pitch
    end += types[np.minimum(end + 1, len(types) - 1)] == TokenType.VELOCITY
    return values[latest[end]]

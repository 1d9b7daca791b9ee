"""Small pieces to render."""

from __future__ import annotations

from meloformer.midi.harmony import with_chords
from meloformer.midi.score import DRUMS, Score, make_score


def band(*, num_bars: int = 4, programs: tuple[int, ...] = (0, 33, 48, DRUMS)) -> Score:
    """Every instrument plays a quarter on every beat, at 120 bpm in 4/4."""
    beats = range(4 * num_bars)
    notes = [(12 * beat, program, beat) for beat in beats for program in programs]
    pitches = [36 + beat % 4 if program == DRUMS else 48 + program % 20 + beat % 5 for _, program, beat in notes]
    score = make_score(
        ticks_per_quarter=12,
        onset_ticks=[onset for onset, _, _ in notes],
        duration_ticks=[1 if program == DRUMS else 12 for _, program, _ in notes],
        pitch=pitches,
        velocity=[60 + 7 * (beat % 8) for _, _, beat in notes],
        program=[program for _, program, _ in notes],
        end_ticks=48 * num_bars,
    )
    return with_chords(score)

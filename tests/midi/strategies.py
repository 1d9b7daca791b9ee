"""Hypothesis strategies for scores that MIDI can hold."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from meloformer.midi.bars import bar_grid
from meloformer.midi.chords import CHORD_NAMES
from meloformer.midi.score import DRUMS, Score, make_score

METERS = ((4, 4), (3, 4), (6, 8), (7, 16), (1, 4), (13, 8), (2, 1))


@st.composite
def midi_scores(draw: st.DrawFn, *, with_chords: bool = True) -> Score:
    """A score full of what is hard to write: overlaps and repeats of one pitch, notes without length, many programs."""
    per_quarter = draw(st.sampled_from((12, 16, 96, 220, 480, 1024)))
    num_notes = draw(st.integers(0, 30))
    programs = draw(st.lists(st.integers(0, DRUMS), min_size=1, max_size=20, unique=True))
    meters = [(draw(st.integers(0, 3)) * 48 * per_quarter, *draw(st.sampled_from(METERS))) for _ in range(3)]
    tempos = draw(st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 2**24 - 1)), max_size=4))

    def column(low: int, high: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=num_notes, max_size=num_notes))

    score = make_score(
        ticks_per_quarter=per_quarter,
        onset_ticks=column(0, 12),
        duration_ticks=column(0, 8),
        pitch=column(60, 62) if draw(st.booleans()) else column(0, 127),
        velocity=column(1, 127),
        program=draw(st.lists(st.sampled_from(programs), min_size=num_notes, max_size=num_notes)),
        tempos=tempos,
        meters=meters,
    )
    if not (with_chords and draw(st.booleans())):
        return score
    grid = bar_grid(
        score.meter_ticks,
        score.meter_numerator,
        score.meter_denominator,
        ticks_per_quarter=per_quarter,
        end_ticks=score.end_ticks + draw(st.integers(0, 20)) * per_quarter,
    )
    chords = draw(st.lists(st.integers(0, len(CHORD_NAMES) - 1), min_size=len(grid), max_size=len(grid)))
    return score.with_changes(end_ticks=grid.end_ticks, chords=np.array(chords, dtype=np.int64))

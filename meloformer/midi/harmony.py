"""The chords of a score that brings none."""

from __future__ import annotations

from meloformer.midi.bars import grid_of
from meloformer.midi.chords import analyse_bars
from meloformer.midi.score import DRUMS, Score


def with_chords(score: Score) -> Score:
    """The score with a chord for every bar: its own, or else what :func:`~meloformer.midi.chords.analyse_bars` hears.

    Raises:
        RejectError: It has a meter whose bars are no whole number of ticks, or too many bars.
    """
    if score.chords is not None:
        return score
    grid = grid_of(score)
    melodic = score.program != DRUMS
    onset, duration = score.onset_ticks[melodic], score.duration_ticks[melodic]
    pitch, velocity = score.pitch[melodic], score.velocity[melodic]
    ends = grid.start_ticks + grid.length_ticks
    return score.with_changes(chords=analyse_bars(onset, duration, pitch, velocity, grid.start_ticks, ends))

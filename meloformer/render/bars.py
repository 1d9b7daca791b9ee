"""A score bar by bar in seconds, as it is played."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from meloformer.midi.bars import grid_of, seconds_of
from meloformer.midi.score import DRUMS, Score

DRUM_SECONDS = 0.1
"""How long the key of a drum is held, and its hit drawn on a page."""


@dataclass(frozen=True, eq=False)
class PlayedBar:
    """One bar. All columns are (N,), onsets ascending from 0 at the bar line."""

    seconds: float
    """Length of the bar; notes may ring on."""
    onset_seconds: np.ndarray
    duration_seconds: np.ndarray
    pitch: np.ndarray
    velocity: np.ndarray
    program: np.ndarray


def played_bars(score: Score) -> Iterator[PlayedBar]:
    """Every bar of a score under its tempo map.

    Raises:
        RejectError: It has a meter whose bars are no whole number of ticks, or too many bars.
    """
    grid = grid_of(score)
    edges = np.append(grid.start_ticks, grid.end_ticks)
    seconds, onset = seconds_of(score, edges), seconds_of(score, score.onset_ticks)
    duration = seconds_of(score, score.onset_ticks + score.duration_ticks) - onset
    duration = np.where(score.program == DRUMS, DRUM_SECONDS, duration)
    first = np.searchsorted(score.onset_ticks, edges)
    for bar in range(len(grid)):
        notes = slice(first[bar], first[bar + 1])
        yield PlayedBar(
            seconds=float(seconds[bar + 1] - seconds[bar]),
            onset_seconds=onset[notes] - seconds[bar],
            duration_seconds=duration[notes],
            pitch=score.pitch[notes],
            velocity=score.velocity[notes],
            program=score.program[notes],
        )

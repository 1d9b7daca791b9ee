"""Where the bars are: from meter events to a grid of bars, and from a tempo map to seconds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from meloformer.errors import RejectError
from meloformer.midi.score import Score

MAX_BARS = 100_000
"""A longer piece is not music but a broken tick count; the longest of 742 real files has 1,874."""


@dataclass(frozen=True)
class BarGrid:
    """Consecutive bars from tick 0 on. All columns are (B,) int64."""

    start_ticks: np.ndarray
    length_ticks: np.ndarray
    numerator: np.ndarray
    """As written in the meter; a bar that the next meter cuts short keeps it."""
    denominator: np.ndarray

    def __len__(self) -> int:
        return len(self.start_ticks)

    @property
    def end_ticks(self) -> int:
        """Where the last bar ends."""
        return int(self.start_ticks[-1] + self.length_ticks[-1])


def bar_grid(
    meter_ticks: np.ndarray,
    numerator: np.ndarray,
    denominator: np.ndarray,
    *,
    ticks_per_quarter: int,
    end_ticks: int,
) -> BarGrid:
    """The bars that cover [0, ``end_ticks``).

    An event that repeats the meter in force changes nothing. A real change starts a new bar where it stands.

    Args:
        meter_ticks, numerator, denominator: (M,) meter events, strictly ascending from tick 0.
        ticks_per_quarter: Resolution of the ticks.
        end_ticks: End of the piece, > 0. The last bar is whole.
    Raises:
        RejectError: ``unsupported-meter`` where a bar is not a whole, positive number of ticks; ``too-long``.
    """
    end = max(end_ticks, 1)
    changes: list[tuple[int, int, int]] = []
    for tick, *meter in zip(meter_ticks.tolist(), numerator.tolist(), denominator.tolist(), strict=True):
        if tick < end and (not changes or (*meter,) != changes[-1][1:]):
            changes.append((tick, *meter))
    next_ticks = [*(tick for tick, _, _ in changes[1:]), end]
    segments = [
        range(tick, next_tick, _bar_ticks(*meter, ticks_per_quarter=ticks_per_quarter))
        for (tick, *meter), next_tick in zip(changes, next_ticks, strict=True)
    ]
    num_bars = [len(segment) for segment in segments]
    if sum(num_bars) > MAX_BARS:
        raise RejectError("too-long", f"{sum(num_bars):,} bars, more than {MAX_BARS:,}")
    start = np.concatenate([np.arange(bars.start, bars.stop, bars.step, dtype=np.int64) for bars in segments])
    length = np.empty_like(start)
    np.subtract(start[1:], start[:-1], out=length[:-1])
    length[-1] = segments[-1].step
    _, numerators, denominators = np.array(changes, dtype=np.int64).T
    return BarGrid(start, length, np.repeat(numerators, num_bars), np.repeat(denominators, num_bars))


def _bar_ticks(numerator: int, denominator: int, *, ticks_per_quarter: int) -> int:
    """Length of a bar of a meter."""
    whole = 4 * ticks_per_quarter * numerator
    if numerator <= 0 or denominator <= 0 or whole % denominator:
        raise RejectError("unsupported-meter", f"a bar of {numerator}/{denominator} is no whole number of ticks")
    return whole // denominator


def grid_of(score: Score, *, end_ticks: int | None = None) -> BarGrid:
    """The bars of a score, up to its own end or another.

    Raises:
        RejectError: As for :func:`bar_grid`.
    """
    return bar_grid(
        score.meter_ticks,
        score.meter_numerator,
        score.meter_denominator,
        ticks_per_quarter=score.ticks_per_quarter,
        end_ticks=score.end_ticks if end_ticks is None else end_ticks,
    )


def empty_bars(score: Score) -> int:
    """In how many of a score's bars no note sounds, none that rings on either.

    Raises:
        RejectError: As for :func:`bar_grid`.
    """
    grid = grid_of(score)
    edges = np.append(grid.start_ticks, grid.end_ticks)
    return int(is_empty(score.onset_ticks, score.onset_ticks + score.duration_ticks, edges).sum())


def is_empty(onset: np.ndarray, end: np.ndarray, bar_edges: np.ndarray) -> np.ndarray:
    """(B,) bool, of every bar whether no note sounds in it.

    Args:
        onset, end: (N,) of the notes, by onset.
        bar_edges: (B + 1,) start of every bar and, last, the end of the piece.
    """
    begun = np.searchsorted(onset, bar_edges[1:])
    latest_end = np.maximum.accumulate(np.append(0, end))
    return latest_end[begun] <= bar_edges[:-1]


def seconds_of(score: Score, ticks: np.ndarray | float) -> np.ndarray:
    """Seconds from the start of a piece at every one of ``ticks``, under its tempo map.

    Args:
        score: Its tempo map and resolution count.
        ticks: (N,) positions, >= 0, whole or not.
    Returns:
        (N,) float64.
    Source: Standard MIDI Files 1.0, "Set Tempo" (FF 51 03).
    """
    seconds_per_tick = score.tempo_us / (1e6 * score.ticks_per_quarter)
    elapsed = np.zeros(len(seconds_per_tick))
    np.cumsum((score.tempo_ticks[1:] - score.tempo_ticks[:-1]) * seconds_per_tick[:-1], out=elapsed[1:])
    segment = np.searchsorted(score.tempo_ticks, ticks, side="right") - 1
    return elapsed[segment] + (ticks - score.tempo_ticks[segment]) * seconds_per_tick[segment]

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
    """As written in the meter; a bar that the next meter cuts short keeps it, see ``is_cut``."""
    denominator: np.ndarray
    is_cut: np.ndarray
    """(B,) bool: the bar is shorter than its meter says, because a new meter starts inside it."""

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
    if len(meter_ticks) > 1:
        counts = meter_ticks < max(end_ticks, 1)
        counts[1:] &= (numerator[1:] != numerator[:-1]) | (denominator[1:] != denominator[:-1])
        meter_ticks, numerator, denominator = meter_ticks[counts], numerator[counts], denominator[counts]
    whole = 4 * ticks_per_quarter * numerator
    broken = (numerator <= 0) | (denominator <= 0) | (whole % np.maximum(denominator, 1) != 0)
    if broken.any():
        first = int(np.argmax(broken))
        name = f"{numerator[first]}/{denominator[first]}"
        raise RejectError("unsupported-meter", f"a bar of {name} is no whole number of ticks")
    length = whole // denominator
    segment_end = np.append(meter_ticks[1:], max(end_ticks, 1))
    num_bars = -((meter_ticks - segment_end) // length)
    if int(num_bars.sum()) > MAX_BARS:
        raise RejectError("too-long", f"{int(num_bars.sum()):,} bars, more than {MAX_BARS:,}")
    bars_before = np.cumsum(num_bars) - num_bars
    bar_length = np.repeat(length, num_bars)
    start = np.repeat(meter_ticks - bars_before * length, num_bars) + np.arange(len(bar_length)) * bar_length
    last = bars_before[1:] - 1  # of every meter but the last one
    up_to_next = meter_ticks[1:] - start[last]
    is_cut = np.zeros(len(start), dtype=bool)
    is_cut[last] = up_to_next < bar_length[last]
    bar_length[last] = up_to_next
    return BarGrid(
        start_ticks=start,
        length_ticks=bar_length,
        numerator=np.repeat(numerator, num_bars),
        denominator=np.repeat(denominator, num_bars),
        is_cut=is_cut,
    )


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
    elapsed = np.concatenate([[0.0], np.cumsum(np.diff(score.tempo_ticks) * seconds_per_tick[:-1])])
    segment = np.searchsorted(score.tempo_ticks, ticks, side="right") - 1
    return elapsed[segment] + (ticks - score.tempo_ticks[segment]) * seconds_per_tick[segment]

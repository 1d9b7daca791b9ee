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
        meter_ticks, numerator, denominator: (M,) meter events, ascending from tick 0.
        ticks_per_quarter: Resolution of the ticks.
        end_ticks: End of the piece, > 0. The last bar is whole.
    Raises:
        RejectError: ``unsupported-meter`` where a bar is not a whole, positive number of ticks; ``too-long``.
    """
    within = meter_ticks < max(end_ticks, 1)
    meter_ticks, numerator, denominator = meter_ticks[within], numerator[within], denominator[within]
    changes = np.ones(len(meter_ticks), dtype=bool)
    changes[1:] = (numerator[1:] != numerator[:-1]) | (denominator[1:] != denominator[:-1])
    meter_ticks, numerator, denominator = meter_ticks[changes], numerator[changes], denominator[changes]
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
    segment = np.repeat(np.arange(len(meter_ticks)), num_bars)
    index = np.arange(len(segment)) - np.repeat(np.cumsum(num_bars) - num_bars, num_bars)
    start = meter_ticks[segment] + index * length[segment]
    bar_end = start + length[segment]
    next_meter = np.append(meter_ticks[1:], np.iinfo(np.int64).max)[segment]
    is_cut = bar_end > next_meter
    return BarGrid(
        start_ticks=start,
        length_ticks=np.where(is_cut, next_meter - start, length[segment]),
        numerator=numerator[segment],
        denominator=denominator[segment],
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

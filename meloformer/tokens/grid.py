"""The grid of HID: steps, and the tables that tempo, duration and velocity are rounded to.

Every table is fixed by the vocabulary's format version; see ``docs/hid.md`` for the reasons.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

STEPS_PER_QUARTER = 12
"""Exact for sixteenths (3 steps) and eighth triplets (4 steps)."""

MAX_BAR_STEPS = 96
"""Eight quarters; a longer bar is written as equal shorter ones."""

METER_DENOMINATORS = (1, 2, 4, 8, 16)

DURATION_STEPS = np.array(
    [*range(1, 25), 27, 30, 33, 36, 42, 48, 60, 72, 84, 96, 120, 144, 168, 192, 240, 288, 336, 384], dtype=np.int64
)
"""(42,) note lengths in steps: one by one to a half note, then coarser to eight bars of 4/4."""

NUM_VELOCITY_BINS = 32

TEMPO_BPM = np.array(
    [round(40 * 3 ** (k / 19)) for k in range(20)] + [round(120 * (250 / 120) ** (k / 12)) for k in range(1, 13)],
    dtype=np.int64,
)
"""(32,) quarters a minute, 40-250: two geometric rows that meet at 120, so that the commonest tempo is exact."""

TEMPO_US = np.round(60e6 / TEMPO_BPM).astype(np.int64)
"""(32,) the same in microseconds per quarter."""


def steps_per_bar(numerator: int, denominator: int) -> int:
    """Length of a bar of a HID meter in steps."""
    return numerator * 4 * STEPS_PER_QUARTER // denominator


METERS = tuple(
    (numerator, denominator)
    for denominator in METER_DENOMINATORS
    for numerator in range(1, MAX_BAR_STEPS * denominator // (4 * STEPS_PER_QUARTER) + 1)
)
"""(62) every meter n/d whose bar is at most 96 steps long."""

METER_NUMBER = {meter: number for number, meter in enumerate(METERS)}

METER_STEPS = np.array([steps_per_bar(*meter) for meter in METERS], dtype=np.int64)
"""(62,) bar length of every meter in steps; always a multiple of 3."""


def ticks_to_steps(ticks: np.ndarray, ticks_per_quarter: int) -> np.ndarray:
    """The nearest grid step of every tick (halves go up), (N,) int64."""
    doubled = 2 * STEPS_PER_QUARTER * np.asarray(ticks, dtype=np.int64)
    return (doubled + ticks_per_quarter) // (2 * ticks_per_quarter)


_DURATION_EDGES = np.sqrt(DURATION_STEPS[:-1] * DURATION_STEPS[1:])


def nearest_duration(ticks: np.ndarray, ticks_per_quarter: int) -> np.ndarray:
    """The table's length nearest to every duration in log length, in steps, (N,) int64; at least one step."""
    nearest = _nearest_durations(ticks_per_quarter)
    return nearest[np.minimum(ticks, len(nearest) - 1)].astype(np.int64)


@lru_cache(maxsize=16)
def _nearest_durations(ticks_per_quarter: int) -> np.ndarray:
    """(L,) int16 nearest length in steps of every number of ticks; a longer duration has that of the last.

    Looking a note up takes a fifth of the time of a search among the edges; a corpus has a dozen resolutions.
    """
    ticks = np.arange(int(_DURATION_EDGES[-1] * ticks_per_quarter / STEPS_PER_QUARTER) + 2)
    steps = ticks * (STEPS_PER_QUARTER / ticks_per_quarter)
    return DURATION_STEPS.astype(np.int16)[np.searchsorted(_DURATION_EDGES, steps)]


_TEMPO_EDGES_US = np.sqrt(TEMPO_US[:-1] * TEMPO_US[1:].astype(np.float64))


def nearest_tempo(tempo_us: np.ndarray) -> np.ndarray:
    """The bin nearest to every tempo in log tempo, (N,) int64 in 0-31; what lies outside goes to the end bins."""
    return np.searchsorted(-_TEMPO_EDGES_US, -np.asarray(tempo_us, dtype=np.float64), side="right")


def velocity_bin(velocity: np.ndarray) -> np.ndarray:
    """Bin of every MIDI velocity (1-127), (N,) in 0-31."""
    return np.asarray(velocity) // 4


def bin_velocity(bins: np.ndarray) -> np.ndarray:
    """The velocity that stands for a bin: its middle, (N,) in 2-126."""
    return np.asarray(bins) * 4 + 2

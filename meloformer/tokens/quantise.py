"""A score on the grid of HID: what remains of a piece when it is written in tokens, and nothing else.

:func:`quantise` is idempotent, and ``decode(encode(score)) == quantise(score)`` for every score.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from meloformer.errors import RejectError
from meloformer.midi.bars import BarGrid, bar_grid, seconds_of
from meloformer.midi.chords import NO_CHORD, analyse_bars
from meloformer.midi.score import DRUMS, Score
from meloformer.tokens.grid import (
    MAX_BAR_STEPS,
    METER_DENOMINATORS,
    METER_NUMBER,
    METERS,
    STEPS_PER_QUARTER,
    TEMPO_US,
    bin_velocity,
    nearest_duration,
    nearest_tempo,
    ticks_to_steps,
    velocity_bin,
)

_METERS = np.array(METERS, dtype=np.int64)
MAX_SPLIT_IN_SAME_UNIT = 4
"""A long bar keeps its beat unit where up to this many equal bars of it do; else it becomes as few bars as possible."""


def quantise(score: Score, *, chords: bool = True) -> Score:
    """The score in steps, with bars, tempo, durations and velocities that HID can write, and a chord for every bar.

    Args:
        score: Any score. Chords that it brings are kept where its bars need no splitting.
        chords: Analyse the harmony; otherwise every bar has ``N``.
    Raises:
        RejectError: ``unsupported-meter`` where a bar cannot be written; ``too-long``.
    """
    per_quarter = score.ticks_per_quarter
    onset = ticks_to_steps(score.onset_ticks, per_quarter)
    last_onset = int(onset[-1]) if len(onset) else 0
    end = max(int(ticks_to_steps(np.array(score.end_ticks), per_quarter)), last_onset + 1)
    written, start, length, meter = _bars(score, end)
    is_drum = score.program == DRUMS
    duration = np.where(is_drum, 1, nearest_duration(score.duration_ticks, per_quarter))
    columns = _unique_notes(onset, duration, score.pitch, bin_velocity(velocity_bin(score.velocity)), score.program)
    onset, duration, pitch, velocity, program = columns
    tempo = _tempo_of_bars(score, start, length)
    new_tempo, new_meter = _changes(tempo), _changes(meter)
    meters = _METERS[meter[new_meter]]
    if not chords:
        chord = np.full(len(start), NO_CHORD, dtype=np.int64)
    elif score.chords is not None and len(score.chords) == len(start) == written:
        chord = score.chords
    else:
        melodic = program != DRUMS
        chord = analyse_bars(
            onset[melodic], duration[melodic], pitch[melodic], velocity[melodic], start, start + length
        )
    return Score(
        ticks_per_quarter=STEPS_PER_QUARTER,
        onset_ticks=onset,
        duration_ticks=duration,
        pitch=pitch,
        velocity=velocity,
        program=program,
        tempo_ticks=start[new_tempo],
        tempo_us=TEMPO_US[tempo[new_tempo]],
        meter_ticks=start[new_meter],
        meter_numerator=meters[:, 0],
        meter_denominator=meters[:, 1],
        end_ticks=int(start[-1] + length[-1]),
        chords=chord,
        num_tracks=score.num_tracks,
    )


def _changes(values: np.ndarray) -> np.ndarray:
    """(B,) bool: the first value, and every one that differs from the one before."""
    changes = np.ones(len(values), dtype=bool)
    np.not_equal(values[1:], values[:-1], out=changes[1:])
    return changes


def _unique_notes(
    onset: np.ndarray, duration: np.ndarray, pitch: np.ndarray, velocity: np.ndarray, program: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Notes in the order (onset, program, pitch); of several at one place the longest and loudest."""
    key = (onset * (DRUMS + 1) + program) * 128 + pitch
    if (key[1:] > key[:-1]).all():  # as most scores are that were written on a grid
        return onset, duration, pitch, velocity, program
    order = np.argsort(key, kind="stable")
    first = np.flatnonzero(_changes(key[order]))
    duration, velocity = duration[order], velocity[order]
    if len(first) < len(order):
        duration, velocity = np.maximum.reduceat(duration, first), np.maximum.reduceat(velocity, first)
        order = order[first]
    return onset[order], duration, pitch[order], velocity, program[order]


def _bars(score: Score, end: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Number of bars before splitting, then (B,) start, length in steps and meter number of the bars of HID."""
    meter_steps = ticks_to_steps(score.meter_ticks, score.ticks_per_quarter)
    last_at_step = np.append(meter_steps[1:] != meter_steps[:-1], True)
    grid = bar_grid(
        meter_steps[last_at_step],
        score.meter_numerator[last_at_step],
        score.meter_denominator[last_at_step],
        ticks_per_quarter=STEPS_PER_QUARTER,
        end_ticks=end,
    )
    parts, length, meter = _writable(grid)
    if (parts == 1).all():
        return len(grid), grid.start_ticks, length, meter
    of_bar = np.repeat(np.arange(len(grid)), parts)
    index = np.arange(len(of_bar)) - np.repeat(np.cumsum(parts) - parts, parts)
    return len(grid), grid.start_ticks[of_bar] + index * length[of_bar], length[of_bar], meter[of_bar]


def _writable(grid: BarGrid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(B,) into how many equal bars each bar is split, the length of each, and the meter number of each."""
    shapes = grid.numerator, grid.denominator, grid.length_ticks
    first = np.flatnonzero(_changes(shapes[0]) | _changes(shapes[1]) | _changes(shapes[2])).tolist()
    written = [_written_bar(*(int(column[bar]) for column in shapes)) for bar in first]
    alike = [following - bar for bar, following in pairwise([*first, len(grid)])]
    parts, length, meter = np.repeat(np.array(written).T, alike, axis=1)
    return parts, length, meter


def _written_bar(numerator: int, denominator: int, steps: int) -> tuple[int, int, int]:
    """How HID writes a bar of ``steps``: number of equal bars, steps of each, their meter number.

    A bar that has the length of its meter keeps it. A shorter one, cut by the next meter, gets the meter of its true
    length, with its beat unit where that divides it.
    """
    full = 4 * STEPS_PER_QUARTER * numerator == steps * denominator
    if full and (numerator, denominator) in METER_NUMBER:
        return 1, steps, METER_NUMBER[numerator, denominator]
    shortest = 4 * STEPS_PER_QUARTER // METER_DENOMINATORS[-1]
    if steps % shortest:
        raise RejectError(
            "unsupported-meter",
            f"a bar of {steps}/{STEPS_PER_QUARTER} quarters ({numerator}/{denominator}) has no meter",
        )
    unit = 4 * STEPS_PER_QUARTER // denominator if denominator in METER_DENOMINATORS else shortest
    fewest = -(-steps // MAX_BAR_STEPS)
    in_same_unit = [k for k in range(fewest, MAX_SPLIT_IN_SAME_UNIT + 1) if steps % (k * unit) == 0]
    parts = in_same_unit[0] if in_same_unit else fewest
    while steps % (parts * shortest):
        parts += 1
    part = steps // parts
    for unit_denominator in (denominator, 4, 8, 16):
        if unit_denominator in METER_DENOMINATORS and part * unit_denominator % (4 * STEPS_PER_QUARTER) == 0:
            meter = part * unit_denominator // (4 * STEPS_PER_QUARTER), unit_denominator
            return parts, part, METER_NUMBER[meter]
    raise AssertionError("every multiple of a sixteenth is some number of sixteenths")


def _tempo_of_bars(score: Score, start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """(B,) tempo bin of every bar: of the one tempo under which the bar lasts as long as it does."""
    if len(score.tempo_us) == 1:
        return np.full(len(start), nearest_tempo(score.tempo_us[0]), dtype=np.int64)
    edges = np.append(start, start[-1] + length[-1]) * (score.ticks_per_quarter / STEPS_PER_QUARTER)
    seconds = seconds_of(score, edges)
    return nearest_tempo(np.diff(seconds) * 1e6 * STEPS_PER_QUARTER / length)

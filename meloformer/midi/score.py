"""A piece of music in memory: notes, tempo map, meters and, where they are known, the chord of every bar."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

DRUMS = 128
"""The ``program`` of percussion notes; 0-127 are the General MIDI programs."""

DEFAULT_TEMPO_US = 500_000
"""Microseconds per quarter where a file names no tempo: 120 bpm (Standard MIDI Files 1.0, "Set Tempo")."""

MAX_TEMPO_US = 2**24 - 1
"""The slowest tempo that MIDI can say: 3.6 quarters a minute."""


def _column(values: object = ()) -> np.ndarray:
    return np.asarray(values, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Score:
    """One piece. Notes are columns of equal length, in the order (onset, program, pitch, duration, velocity).

    Build one with :func:`make_score`, which sorts and fills in the defaults. Two scores are equal when every musical
    field is; ``num_tracks`` and ``recovered`` are facts about the file and do not count.
    """

    ticks_per_quarter: int
    """Resolution (PPQN), > 0. A quantised score has 12: one tick is one grid step."""
    onset_ticks: np.ndarray
    """(N,) int64, >= 0, ascending."""
    duration_ticks: np.ndarray
    """(N,) int64, >= 0."""
    pitch: np.ndarray
    """(N,) int64, 0-127."""
    velocity: np.ndarray
    """(N,) int64, 1-127."""
    program: np.ndarray
    """(N,) int64, 0-127, or ``DRUMS``."""
    tempo_ticks: np.ndarray
    """(K,) int64, strictly ascending, the first is 0."""
    tempo_us: np.ndarray
    """(K,) int64, microseconds per quarter from the tick beside it on."""
    meter_ticks: np.ndarray
    """(M,) int64, strictly ascending, the first is 0."""
    meter_numerator: np.ndarray
    """(M,) int64."""
    meter_denominator: np.ndarray
    """(M,) int64, a power of two."""
    end_ticks: int
    """The piece ends here: past every onset; bars cover [0, end_ticks). Notes may ring on."""
    chords: np.ndarray | None = None
    """(B,) int64 chord number of every bar (see ``midi.chords.CHORD_NAMES``), or ``None`` where it is not known."""
    num_tracks: int = field(default=0)
    """How many tracks of the file hold notes; 0 for a score that does not come from a file."""
    recovered: str | None = None
    """What was wrong with the file, where notes or times may be lost or guessed; ``None`` where nothing is."""

    @property
    def num_notes(self) -> int:
        """Number of notes, drum hits included."""
        return len(self.pitch)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Score):
            return NotImplemented
        if (self.ticks_per_quarter, self.end_ticks) != (other.ticks_per_quarter, other.end_ticks):
            return False
        if (self.chords is None) != (other.chords is None):
            return False
        return all(
            np.array_equal(getattr(self, name), getattr(other, name))
            for name in (*NOTE_COLUMNS, *MAP_COLUMNS, "chords")
            if getattr(self, name) is not None
        )

    __hash__ = None  # type: ignore[assignment]

    def with_changes(self, **changes: object) -> Score:
        """A copy with some fields replaced; the notes are not sorted again."""
        return replace(self, **changes)  # type: ignore[arg-type]


NOTE_COLUMNS = ("onset_ticks", "duration_ticks", "pitch", "velocity", "program")
MAP_COLUMNS = ("tempo_ticks", "tempo_us", "meter_ticks", "meter_numerator", "meter_denominator")


def make_score(
    *,
    ticks_per_quarter: int,
    onset_ticks: object = (),
    duration_ticks: object = (),
    pitch: object = (),
    velocity: object = (),
    program: object = (),
    tempos: object = (),
    meters: object = (),
    end_ticks: int | None = None,
    chords: object = None,
    num_tracks: int = 0,
    recovered: str | None = None,
) -> Score:
    """Build a :class:`Score`: sorts notes and maps, and fills in 4/4 and 120 bpm where the start has none.

    Args:
        ticks_per_quarter: Resolution (PPQN), > 0.
        onset_ticks: (N,) like the other note columns, any order.
        tempos: Pairs (tick, microseconds per quarter), any order; of several at one tick the last one counts.
        meters: Triples (tick, numerator, denominator), likewise.
        end_ticks: End of the piece; by default the end of the last note. Raised to lie past every onset.
        chords: (B,) chord numbers, or ``None``.
        num_tracks: How many tracks of the file hold notes.
        recovered: What was wrong with the file, in one sentence.
    Raises:
        ValueError: The resolution is not positive, columns differ in length, or a tick is negative.
    """
    if ticks_per_quarter <= 0:
        raise ValueError(f"ticks_per_quarter must be positive, not {ticks_per_quarter}")
    columns = [_column(values) for values in (onset_ticks, duration_ticks, pitch, velocity, program)]
    if len({len(column) for column in columns}) != 1:
        raise ValueError(f"note columns differ in length: {[len(column) for column in columns]}")
    onsets, durations, pitches, velocities, programs = columns
    onsets, programs, pitches, durations, velocities = _sorted_rows(onsets, programs, pitches, durations, velocities)
    if len(onsets) and int(onsets[0]) < 0:
        raise ValueError("an onset is negative")
    last_onset = int(onsets[-1]) if len(onsets) else -1
    if end_ticks is None:
        end_ticks = int((onsets + durations).max()) if len(onsets) else 0
    tempo_map = _sorted_map(tempos, width=2, default=(DEFAULT_TEMPO_US,))
    meter_map = _sorted_map(meters, width=3, default=(4, 4))
    return Score(
        ticks_per_quarter=int(ticks_per_quarter),
        onset_ticks=onsets,
        duration_ticks=durations,
        pitch=pitches,
        velocity=velocities,
        program=programs,
        tempo_ticks=tempo_map[:, 0],
        tempo_us=tempo_map[:, 1],
        meter_ticks=meter_map[:, 0],
        meter_numerator=meter_map[:, 1],
        meter_denominator=meter_map[:, 2],
        end_ticks=max(int(end_ticks), last_onset + 1, 1),
        chords=None if chords is None else _column(chords),
        num_tracks=num_tracks,
        recovered=recovered,
    )


def ending_with_its_bars(score: Score) -> Score:
    """The score with every note that would ring past its end cut there."""
    return score.with_changes(duration_ticks=np.minimum(score.duration_ticks, score.end_ticks - score.onset_ticks))


def _sorted_rows(*columns: np.ndarray) -> list[np.ndarray]:
    """The (N,) columns with their rows in ascending order.

    A row of a real piece fits into one 64-bit number, of which each column takes as many bits as it needs; such numbers
    are sorted ten times faster than rows.
    """
    masks = [int(np.bitwise_or.reduce(column)) for column in columns]
    widths = [mask.bit_length() for mask in masks]
    if min(masks) < 0 or sum(widths) > 63:
        order = np.lexsort(columns[::-1])
        return [column[order] for column in columns]
    rows = columns[0]
    for column, width in zip(columns[1:], widths[1:], strict=True):
        rows = rows << width | column
    rows = np.sort(rows)
    parts = []
    for width in reversed(widths):
        parts.append(rows & (1 << width) - 1)
        rows = rows >> width
    return parts[::-1]


def _sorted_map(events: object, *, width: int, default: tuple[int, ...]) -> np.ndarray:
    """(K, width) int64 events with strictly ascending ticks from 0 on; the last of several at one tick counts."""
    table = np.asarray(events, dtype=np.int64).reshape(-1, width)
    if len(table) and table[0, 0] == 0 and (table[1:, 0] > table[:-1, 0]).all():
        return table
    if len(table) and int(table[:, 0].min()) < 0:
        raise ValueError("a tempo or meter stands at a negative tick")
    if not len(table) or int(table[:, 0].min()) > 0:
        table = np.concatenate([np.array([[0, *default]], dtype=np.int64), table])
    table = table[np.argsort(table[:, 0], kind="stable")]
    is_last_at_tick = np.ones(len(table), dtype=bool)
    np.not_equal(table[1:, 0], table[:-1, 0], out=is_last_at_tick[:-1])
    return table[is_last_at_tick]

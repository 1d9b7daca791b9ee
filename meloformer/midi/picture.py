"""A piece as a picture: the piano roll, in rows like sheet music."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from meloformer.files import whole_file
from meloformer.midi.bars import BarGrid, grid_of
from meloformer.midi.chords import CHORD_NAMES, NO_CHORD
from meloformer.midi.programs import drum_name, program_name
from meloformer.midi.score import DRUMS, Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = (
    "#3b6fb6", "#d1495b", "#2a9d8f", "#e9a23b", "#7b5ea7", "#5c8a3a", "#8c564b", "#4aa3c7", "#d670ad", "#6b7280",
    "#1f3a5f", "#f2838f", "#135e54", "#b8860b", "#b39ddb", "#a3c586", "#c77b4f", "#a5d8e6", "#86194f", "#a9a9a9",
)  # fmt: skip
"""Twenty that can be told apart, light ones after dark ones."""
DRUM_COLOUR = "#333333"
LINE_COLOUR = "#d8d8d8"

WIDTH_INCHES = 13.0
BARS_PER_ROW = 24
MAX_ROWS = 12
"""A longer piece gets longer rows instead of more of them."""
INCHES_PER_BAR = 0.55
CHARACTER_INCHES = 0.068
"""Width of a character of a chord name at its size."""
MAX_NAMED_DRUMS = 12
"""A strip with more drums has no room for their names."""


@dataclass(frozen=True)
class Row:
    """Some bars of the piece side by side."""

    first_bar: int
    last_bar: int
    start: int
    """Where the first bar begins, in ticks."""
    music_end: int
    """Where the last bar ends."""
    end: int
    """Where the row ends on paper: the same width for every row."""


def piano_roll(score: Score, path: Path, *, title: str = "") -> None:
    """Draw a piece as a PNG: instruments in colours, bar lines, chords on top, drums in a strip of their own.

    Args:
        score: With or without chords.
        path: The PNG to write; it appears only when it is whole.
        title: Printed above, with meter and tempo.
    Raises:
        OutputError: The path cannot be written.
    """
    from matplotlib.figure import Figure

    grid = grid_of(score)
    rows = _rows(grid)
    pitched, drums = score.program != DRUMS, np.unique(score.pitch[score.program == DRUMS])
    low, high = (int(score.pitch[pitched].min()), int(score.pitch[pitched].max())) if pitched.any() else (60, 72)
    heights = [min(max(0.06 * (high - low), 2.0), 4.2 if len(rows) == 1 else 2.8)]
    if len(drums):
        heights.append(min(0.3 + 0.11 * len(drums), 1.6))
    width = WIDTH_INCHES if len(rows) > 1 else min(max(INCHES_PER_BAR * len(grid) + 3, 9), WIDTH_INCHES)
    size = (width, len(rows) * (sum(heights) + 0.35) + 0.5)
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    strips = figure.subplots(len(rows) * len(heights), 1, height_ratios=heights * len(rows), squeeze=False)[:, 0]
    for number, row in enumerate(rows):
        notes = strips[number * len(heights)]
        _draw_notes(notes, score, row, low=low, high=high)
        _write_chords(notes, score, grid, row, width=width)
        if len(drums):
            _draw_drums(strips[number * len(heights) + 1], score, row, drums)
        for strip in strips[number * len(heights) : (number + 1) * len(heights)]:
            _draw_bar_lines(strip, grid, row)
        _write_bar_numbers(strips[(number + 1) * len(heights) - 1], grid, row)
    programs = np.unique(score.program[pitched]).tolist()
    if programs:
        from matplotlib.patches import Patch

        colours = [Patch(color=_colour(score, program), label=program_name(program)) for program in programs]
        figure.legend(handles=colours, loc="outside right upper", frameon=False, fontsize=8)
    bpm = 60e6 / float(score.tempo_us[0])
    facts = f"{_main_meter(grid)}, {bpm:.0f} bpm, {len(grid)} bars"
    figure.suptitle(f"{title}   ({facts})" if title else facts, fontsize=10)
    with whole_file(path) as beside:
        figure.savefig(beside, format="png")


def _rows(grid: BarGrid) -> list[Row]:
    """The piece in rows of equally many bars, the last one excepted."""
    per_row = max(BARS_PER_ROW, -(-len(grid) // MAX_ROWS))
    first_bars = range(0, len(grid), per_row)
    starts = [int(grid.start_ticks[first]) for first in first_bars]
    ends = [*starts[1:], grid.end_ticks]
    longest = max(end - start for start, end in zip(starts, ends, strict=True))
    return [
        Row(first, min(first + per_row, len(grid)) - 1, start, end, start + longest)
        for first, start, end in zip(first_bars, starts, ends, strict=True)
    ]


def _main_meter(grid: BarGrid) -> str:
    """The meter of most bars; a pickup often has another."""
    meters = Counter(zip(grid.numerator.tolist(), grid.denominator.tolist(), strict=True))
    numerator, denominator = meters.most_common(1)[0][0]
    return f"{numerator}/{denominator}"


def _colour(score: Score, program: int) -> str:
    return COLOURS[int(np.searchsorted(np.unique(score.program), program)) % len(COLOURS)]


def _draw_notes(axes: Axes, score: Score, row: Row, *, low: int, high: int) -> None:
    """Pitched notes as bars whose opacity is their velocity."""
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba

    end = score.onset_ticks + np.maximum(score.duration_ticks, 1)
    within = np.flatnonzero((score.program != DRUMS) & (score.onset_ticks < row.music_end) & (end > row.start))
    left, right = np.maximum(score.onset_ticks[within], row.start), np.minimum(end[within], row.music_end)
    bottom, top = score.pitch[within] - 0.43, score.pitch[within] + 0.43
    corners = np.stack([left, bottom, left, top, right, top, right, bottom], axis=1).reshape(-1, 4, 2)
    opacity = 0.45 + 0.55 * score.velocity[within] / 127
    colour_of = {program: _colour(score, program) for program in np.unique(score.program[within]).tolist()}
    colours = [
        to_rgba(colour_of[program], alpha)
        for program, alpha in zip(score.program[within].tolist(), opacity.tolist(), strict=True)
    ]
    axes.add_collection(PolyCollection(list(corners), facecolors=colours, linewidths=0))
    axes.set_ylim(low - 2, high + 2)
    octaves = [pitch for pitch in range(0, 128, 12) if low - 2 <= pitch <= high + 2]
    axes.set_yticks(octaves, [f"C{pitch // 12 - 1}" for pitch in octaves], fontsize=7)
    axes.hlines([pitch - 0.5 for pitch in octaves], row.start, row.music_end, color=LINE_COLOUR, lw=0.7, zorder=0)


def _draw_drums(axes: Axes, score: Score, row: Row, drums: np.ndarray) -> None:
    """A line for every drum of the piece, a tick for every hit."""
    own = (score.program == DRUMS) & (score.onset_ticks >= row.start) & (score.onset_ticks < row.music_end)
    line = np.searchsorted(drums, score.pitch[own])
    axes.scatter(score.onset_ticks[own], line, marker="|", s=16, color=DRUM_COLOUR, linewidths=1.0)
    axes.set_ylim(-0.8, len(drums) - 0.2)
    named = len(drums) <= MAX_NAMED_DRUMS
    axes.set_yticks(
        range(len(drums)) if named else [], [drum_name(drum) for drum in drums.tolist()] if named else [], fontsize=5.5
    )
    if not named:
        axes.set_ylabel("drums", fontsize=7)


def _draw_bar_lines(axes: Axes, grid: BarGrid, row: Row) -> None:
    """A line where every bar begins, and one where the last ends."""
    axes.set_xlim(row.start, row.end)
    starts = grid.start_ticks[row.first_bar : row.last_bar + 1]
    last = int(starts[-1] + grid.length_ticks[row.last_bar])
    axes.vlines(
        [*starts.tolist(), last], 0, 1, transform=axes.get_xaxis_transform(), color=LINE_COLOUR, lw=0.7, zorder=0
    )
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks([])


def _write_bar_numbers(axes: Axes, grid: BarGrid, row: Row) -> None:
    every = -(-(row.last_bar - row.first_bar + 1) // 32)
    bars = range(row.first_bar, row.last_bar + 1, every)
    axes.set_xticks([int(grid.start_ticks[bar]) for bar in bars], [str(bar + 1) for bar in bars], fontsize=6.5)


def _write_chords(axes: Axes, score: Score, grid: BarGrid, row: Row, *, width: float) -> None:
    """The name of every chord where it changes, unless the name before it reaches that far."""
    if score.chords is None:
        return
    ticks_per_inch = (row.end - row.start) / (0.8 * width)
    free_from, before = row.start, NO_CHORD
    for bar in range(row.first_bar, row.last_bar + 1):
        start, chord = int(grid.start_ticks[bar]), int(score.chords[bar])
        if chord not in (before, NO_CHORD) and start >= free_from:
            name = _symbol(chord)
            axes.annotate(name, (start, 1), (2, 2), xycoords=("data", "axes fraction"), textcoords="offset points",
                          fontsize=7, color=DRUM_COLOUR, annotation_clip=False)  # fmt: skip
            free_from = start + (len(name) + 1) * CHARACTER_INCHES * ticks_per_inch
            before = chord


def _symbol(chord: int) -> str:
    """A chord as musicians write it: ``C``, ``Am7``, ``Fmaj7``."""
    root, _, quality = CHORD_NAMES[chord].partition(":")
    if quality == "maj":
        return root
    return f"{root}m{quality.removeprefix('min')}" if quality.startswith("min") else root + quality

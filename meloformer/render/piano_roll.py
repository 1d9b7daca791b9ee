"""A piece as a picture: the piano roll, in rows like sheet music."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from meloformer.files import whole_file
from meloformer.midi.bars import BarGrid, grid_of
from meloformer.midi.programs import drum_name, program_name
from meloformer.midi.score import DRUMS, Score
from meloformer.render.labels import DRUM_COLOUR, chord_symbol, colour_of_programs, facts_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE_COLOUR = "#cfcfcf"
BEAT_COLOUR = "#ececec"
SHADE_COLOUR = "#f5f6f8"
"""Behind the black keys."""
CHORD_COLOUR = "#1a1a1a"
BLACK_KEYS = (1, 3, 6, 8, 10)

DOTS_PER_INCH = 110
WIDTH_INCHES = 13.0
BARS_PER_ROW = 16
MAX_ROWS = 16
"""A longer piece gets longer rows instead of more of them."""
INCHES_PER_BAR = 0.75
INCHES_PER_SEMITONE = 0.062
CHORD_INCHES = 0.085
"""Width of a character of a chord name at its size."""
NUMBER_INCHES = 0.075
"""Width of a character of a bar number at its size."""
MAX_NAMED_DRUMS = 16
"""A strip with more drums has no room for their names."""
INNER_HEIGHT = 0.55
"""A note that covers another one is drawn this much thinner, so that both are seen."""


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
        title: Printed above, with meter, tempo and length.
    Raises:
        OutputError: The path cannot be written.
        RejectError: The score has a meter whose bars are no whole number of ticks, or too many bars.
    """
    from matplotlib.figure import Figure

    grid = grid_of(score)
    rows = rows_of(grid)
    pitched, drums = score.program != DRUMS, np.unique(score.pitch[score.program == DRUMS])
    low, high = (int(score.pitch[pitched].min()), int(score.pitch[pitched].max())) if pitched.any() else (60, 72)
    heights = [min(max(INCHES_PER_SEMITONE * (high - low + 4), 1.6), 4.6 if len(rows) == 1 else 3.4)]
    if len(drums):
        heights.append(min(0.25 + 0.13 * len(drums), 2.2))
    width = WIDTH_INCHES if len(rows) > 1 else min(max(INCHES_PER_BAR * len(grid) + 3, 9), WIDTH_INCHES)
    size = (width, len(rows) * (sum(heights) + 0.5) + 0.5)
    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained")
    strips = figure.subplots(len(rows) * len(heights), 1, height_ratios=heights * len(rows), squeeze=False)[:, 0]
    depth = depth_of_cover(score)
    for number, row in enumerate(rows):
        notes, *below = strips[number * len(heights) : (number + 1) * len(heights)]
        _draw_notes(notes, score, row, depth, low=low, high=high)
        _write_chords(notes, score, grid, row, width=width)
        for strip in below:
            _draw_drums(strip, score, row, drums)
        for strip in (notes, *below):
            _draw_bar_lines(strip, score, grid, row)
        _write_bar_numbers(below[-1] if below else notes, grid, row, width=width)
    _write_legend(figure, score)
    facts = facts_of(score, grid)
    figure.suptitle(f"{_plain(title)}   ({facts})" if title else facts, fontsize=11)
    with whole_file(path) as beside:
        figure.savefig(beside, format="png")


def _plain(title: str) -> str:
    """A title in which no dollar sign begins a formula."""
    return title.replace("$", r"\$")


def _write_legend(figure: Figure, score: Score) -> None:
    from matplotlib.patches import Patch

    colours = [
        Patch(color=colour, label=program_name(program)) for program, colour in colour_of_programs(score).items()
    ]
    if colours:
        figure.legend(handles=colours, loc="outside right upper", frameon=False, fontsize=9)


def rows_of(grid: BarGrid) -> list[Row]:
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


def depth_of_cover(score: Score) -> np.ndarray:
    """(N,) how many notes of other instruments a note lies upon: 0 for a note that covers none.

    Of notes that sound at one pitch at one time, the first lies lowest.
    """
    depth = np.zeros(score.num_notes, dtype=np.int64)
    sounding: dict[int, list[tuple[int, int, int]]] = {}
    end = (score.onset_ticks + score.duration_ticks).tolist()
    for index, (onset, pitch, program) in enumerate(
        zip(score.onset_ticks.tolist(), score.pitch.tolist(), score.program.tolist(), strict=True)
    ):
        if program == DRUMS:
            continue
        there = [note for note in sounding.get(pitch, []) if note[0] > onset]
        taken = {level for _, level, other in there if other != program}
        level = next(free for free in range(len(taken) + 1) if free not in taken)
        depth[index] = level
        sounding[pitch] = [*there, (end[index], level, program)]
    return depth


def _draw_notes(axes: Axes, score: Score, row: Row, depth: np.ndarray, *, low: int, high: int) -> None:
    """Pitched notes as bars, paler where they are softer; a hair of paper is left before the next note."""
    from matplotlib.collections import PolyCollection

    black = [pitch for pitch in range(low - 2, high + 3) if pitch % 12 in BLACK_KEYS]
    axes.barh(black, row.music_end - row.start, left=row.start, height=1, color=SHADE_COLOUR, lw=0, zorder=0)
    end = score.onset_ticks + np.maximum(score.duration_ticks, 1)
    within = np.flatnonzero((score.program != DRUMS) & (score.onset_ticks < row.music_end) & (end > row.start))
    within = within[np.argsort(depth[within], kind="stable")]
    hair = (row.end - row.start) / (WIDTH_INCHES * DOTS_PER_INCH)
    left = np.maximum(score.onset_ticks[within], row.start)
    right = np.minimum(end[within], row.music_end)
    right = np.maximum(right - hair, left + 0.5 * (right - left))
    half = 0.44 * INNER_HEIGHT ** np.minimum(depth[within], 3)
    bottom, top = score.pitch[within] - half, score.pitch[within] + half
    corners = np.stack([left, bottom, left, top, right, top, right, bottom], axis=1).reshape(-1, 4, 2)
    colour_of = colour_of_programs(score)
    loudness = zip(score.program[within].tolist(), score.velocity[within].tolist(), strict=True)
    colours = [_tinted(colour_of[program], velocity) for program, velocity in loudness]
    axes.add_collection(PolyCollection(list(corners), facecolors=colours, linewidths=0, zorder=2))
    axes.set_ylim(low - 2, high + 2)
    octaves = [pitch for pitch in range(0, 128, 12) if low - 2 <= pitch <= high + 2]
    axes.set_yticks(octaves, [f"C{pitch // 12 - 1}" for pitch in octaves], fontsize=8)
    axes.hlines([pitch - 0.5 for pitch in octaves], row.start, row.music_end, color=LINE_COLOUR, lw=0.7, zorder=1)


def _tinted(colour: str, velocity: int) -> tuple[float, ...]:
    """Red, green and blue of a colour, half mixed with paper for the softest note."""
    from matplotlib.colors import to_rgb

    share = 0.5 + 0.5 * velocity / 127
    return tuple(share * part + 1 - share for part in to_rgb(colour))


def _draw_drums(axes: Axes, score: Score, row: Row, drums: np.ndarray) -> None:
    """A line for every drum of the piece, a mark for every hit, darker where it is louder."""
    own = (score.program == DRUMS) & (score.onset_ticks >= row.start) & (score.onset_ticks < row.music_end)
    line = np.searchsorted(drums, score.pitch[own])
    colours = [_tinted(DRUM_COLOUR, velocity) for velocity in score.velocity[own].tolist()]
    axes.hlines(range(len(drums)), row.start, row.music_end, color=BEAT_COLOUR, lw=0.6, zorder=0)
    axes.vlines(score.onset_ticks[own], line - 0.36, line + 0.36, color=colours, lw=1.8, zorder=2)
    axes.set_ylim(-0.8, len(drums) - 0.2)
    if len(drums) <= MAX_NAMED_DRUMS:
        axes.set_yticks(range(len(drums)), [drum_name(drum) for drum in drums.tolist()], fontsize=6.5)
    else:
        axes.set_yticks([])
        axes.set_ylabel("drums", fontsize=8)


def _draw_bar_lines(axes: Axes, score: Score, grid: BarGrid, row: Row) -> None:
    """A line where every bar begins, and one where the last ends; fainter ones on the beats where there is room."""
    axes.set_xlim(row.start, row.end)
    bars = slice(row.first_bar, row.last_bar + 1)
    starts, lengths = grid.start_ticks[bars], grid.length_ticks[bars]
    across = axes.get_xaxis_transform()
    if len(starts) <= BARS_PER_ROW:
        beat = 4 * score.ticks_per_quarter / grid.denominator[bars]
        beats = [
            np.arange(1, -(-length // size)) * size + start
            for start, length, size in zip(starts, lengths, beat, strict=True)
        ]
        axes.vlines(np.concatenate(beats), 0, 1, transform=across, color=BEAT_COLOUR, lw=0.6, zorder=1)
    axes.vlines([*starts.tolist(), row.music_end], 0, 1, transform=across, color=LINE_COLOUR, lw=1.0, zorder=1)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks([])


def _write_bar_numbers(axes: Axes, grid: BarGrid, row: Row, *, width: float) -> None:
    """The number of every bar below its line, unless the one before reaches that far."""
    per_inch = (row.end - row.start) / (0.8 * width)
    free_from, shown = row.start, []
    for bar in range(row.first_bar, row.last_bar + 1):
        start = int(grid.start_ticks[bar])
        if start >= free_from:
            shown.append(bar)
            free_from = start + (len(str(bar + 1)) + 1) * NUMBER_INCHES * per_inch
    axes.set_xticks([int(grid.start_ticks[bar]) for bar in shown], [str(bar + 1) for bar in shown], fontsize=7.5)


def _write_chords(axes: Axes, score: Score, grid: BarGrid, row: Row, *, width: float) -> None:
    """The name of every chord where it begins, or at the first of its bars that the name before leaves free.

    A name that reaches into a longer chord is left out, as that of a pickup would hide the first bar's.
    """
    if score.chords is None:
        return
    per_inch = (row.end - row.start) / (0.8 * width)
    bars = np.arange(row.first_bar, row.last_bar + 1)
    chords = np.asarray(score.chords)[bars]
    begins = np.flatnonzero(np.append(True, chords[1:] != chords[:-1]))
    edges = np.append(grid.start_ticks[bars[begins]], row.music_end)
    lengths = np.append(np.diff(edges), 0)
    free_from = row.start
    for number, own in enumerate(np.split(bars, begins[1:])):
        name = chord_symbol(int(score.chords[own[0]]))
        reach = (len(name) + 1) * CHORD_INCHES * per_inch
        is_free = grid.start_ticks[own] >= free_from
        hides_next = edges[number] + reach > edges[number + 1] and lengths[number] < lengths[number + 1]
        if name and is_free.any() and not hides_next:
            start = int(grid.start_ticks[own][is_free.argmax()])
            axes.annotate(name, (start, 1), (2, 3), xycoords=("data", "axes fraction"), textcoords="offset points",
                          fontsize=8.5, color=CHORD_COLOUR, annotation_clip=False)  # fmt: skip
            free_from = start + reach

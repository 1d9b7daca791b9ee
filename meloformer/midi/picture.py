"""A piece as a picture: the piano roll."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from meloformer.midi.bars import BarGrid, bar_grid
from meloformer.midi.chords import CHORD_NAMES, NO_CHORD
from meloformer.midi.programs import program_name
from meloformer.midi.score import DRUMS, Score

COLOURS = ("#3b6fb6", "#d1495b", "#2a9d8f", "#e9a23b", "#7b5ea7", "#5c8a3a", "#c77b4f", "#4aa3c7", "#a23e72", "#6b7280")
MAX_CHORD_NAMES = 40
"""More bars than this, and only every second, fourth ... bar has its number and chord written above it."""


def piano_roll(score: Score, path: Path, *, title: str = "") -> None:
    """Draw a piece as a PNG: instruments in colours, bar lines, chords on top, drums in a strip of their own.

    Args:
        score: With or without chords.
        path: The PNG to write; it appears only when it is whole.
        title: Printed above, with meter and tempo.
    """
    from matplotlib.figure import Figure

    grid = bar_grid(
        score.meter_ticks,
        score.meter_numerator,
        score.meter_denominator,
        ticks_per_quarter=score.ticks_per_quarter,
        end_ticks=score.end_ticks,
    )
    has_drums = bool((score.program == DRUMS).any())
    figure = Figure(figsize=(min(max(0.42 * len(grid) + 3, 9), 24), 5.4), dpi=110, layout="constrained")
    if has_drums:
        notes, drums = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    else:
        notes, drums = figure.subplots(), None
    _draw_notes(notes, score)
    if drums is not None:
        _draw_drums(drums, score)
    for axes in (notes, drums):
        if axes is not None:
            _draw_bar_lines(axes, grid)
    _write_chords(notes, score, grid)
    bpm = 60e6 / float(score.tempo_us[0])
    facts = f"{_main_meter(grid)}, {bpm:.0f} bpm, {len(grid)} bars"
    figure.suptitle(f"{title}   ({facts})" if title else facts, fontsize=10)
    (drums or notes).set_xlabel("bar")
    beside = path.with_name(f".{path.name}.part")
    figure.savefig(beside, format="png")
    beside.replace(path)


def _main_meter(grid: BarGrid) -> str:
    """The meter of most bars; a pickup often has another."""
    meters = Counter(zip(grid.numerator.tolist(), grid.denominator.tolist(), strict=True))
    numerator, denominator = meters.most_common(1)[0][0]
    return f"{numerator}/{denominator}"


def _draw_notes(axes, score: Score) -> None:
    """Pitched notes as bars whose opacity is their velocity."""
    from matplotlib.colors import to_rgba

    programs = [program for program in np.unique(score.program).tolist() if program != DRUMS]
    for number, program in enumerate(programs):
        own = np.flatnonzero(score.program == program)
        colour = COLOURS[number % len(COLOURS)]
        colours = [to_rgba(colour, 0.45 + 0.55 * velocity / 127) for velocity in score.velocity[own].tolist()]
        lengths = np.maximum(score.duration_ticks[own], 1)
        axes.barh(score.pitch[own], lengths, left=score.onset_ticks[own], height=0.85, color=colours, linewidth=0)
        axes.barh([0], [0], color=colour, label=program_name(program))
    pitched = score.pitch[score.program != DRUMS]
    low, high = (int(pitched.min()), int(pitched.max())) if len(pitched) else (60, 72)
    axes.set_ylim(low - 3, high + 3)
    octaves = [pitch for pitch in range(0, 128, 12) if low - 3 <= pitch <= high + 3]
    axes.set_yticks(octaves, [f"C{pitch // 12 - 1}" for pitch in octaves])
    for pitch in octaves:
        axes.axhline(pitch - 0.5, color="#e6e6e6", linewidth=0.7, zorder=0)
    if programs:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)


def _draw_drums(axes, score: Score) -> None:
    """A row for every drum, a tick for every hit."""
    own = score.program == DRUMS
    drums = np.unique(score.pitch[own])
    row = np.searchsorted(drums, score.pitch[own])
    axes.scatter(score.onset_ticks[own], row, marker="|", s=22, color="#333333", linewidths=1.1)
    axes.set_ylim(-0.8, len(drums) - 0.2)
    axes.set_yticks([])
    axes.set_ylabel("drums", fontsize=8)


def _draw_bar_lines(axes, grid: BarGrid) -> None:
    every = -(-len(grid) // MAX_CHORD_NAMES)
    axes.set_xlim(0, grid.end_ticks)
    for start in grid.start_ticks.tolist():
        axes.axvline(start, color="#d0d0d0", linewidth=0.6, zorder=0)
    axes.set_xticks(grid.start_ticks[::every], [str(number + 1) for number in range(0, len(grid), every)], fontsize=7)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0)


def _write_chords(axes, score: Score, grid: BarGrid) -> None:
    if score.chords is None:
        return
    every = -(-len(grid) // MAX_CHORD_NAMES)
    top = axes.get_ylim()[1]
    for bar in range(0, len(grid), every):
        if score.chords[bar] != NO_CHORD:
            name = CHORD_NAMES[int(score.chords[bar])].replace(":maj", "").replace(":", "")
            place = float(grid.start_ticks[bar])
            axes.text(place, top, f" {name}", fontsize=7, rotation=35, ha="left", va="bottom", color="#333333")

"""What is written on a picture or a page: chords, bars, facts; and the colour of every instrument."""

from __future__ import annotations

from collections import Counter

import numpy as np

from meloformer.midi.bars import BarGrid
from meloformer.midi.chords import CHORD_NAMES, NO_CHORD
from meloformer.midi.score import DRUMS, Score

COLOURS = (
    "#3b6fb6", "#d1495b", "#2a9d8f", "#e9a23b", "#7b5ea7", "#5c8a3a", "#8c564b", "#4aa3c7", "#d670ad", "#6b7280",
    "#1f3a5f", "#f2838f", "#135e54", "#b8860b", "#b39ddb", "#a3c586", "#c77b4f", "#a5d8e6", "#86194f", "#a9a9a9",
)  # fmt: skip
"""Twenty that can be told apart, light ones after dark ones."""
DRUM_COLOUR = "#444444"


def colour_of_programs(score: Score) -> dict[int, str]:
    """Program -> colour, in ascending order of the programs; drums come last."""
    programs = np.unique(score.program).tolist()
    return {
        program: DRUM_COLOUR if program == DRUMS else COLOURS[number % len(COLOURS)]
        for number, program in enumerate(programs)
    }


def chord_symbol(chord: int) -> str:
    """A chord as musicians write it: ``C``, ``Am7``, ``Fmaj7``; nothing for ``N``."""
    if chord == NO_CHORD:
        return ""
    root, _, quality = CHORD_NAMES[chord].partition(":")
    if quality == "maj":
        return root
    return f"{root}m{quality.removeprefix('min')}" if quality.startswith("min") else root + quality


def facts_of(score: Score, grid: BarGrid) -> str:
    """Meter, tempo and length in a few words, such as ``4/4, 100 bpm, 16 bars``."""
    tempos = 60e6 / score.tempo_us
    slowest, fastest = f"{tempos.min():.0f}", f"{tempos.max():.0f}"
    tempo = slowest if slowest == fastest else f"{slowest}-{fastest}"
    return f"{_main_meter(grid)}, {tempo} bpm, {len(grid)} {'bar' if len(grid) == 1 else 'bars'}"


def _main_meter(grid: BarGrid) -> str:
    """The meter of most bars; a pickup often has another."""
    meters = Counter(zip(grid.numerator.tolist(), grid.denominator.tolist(), strict=True))
    numerator, denominator = meters.most_common(1)[0][0]
    return f"{numerator}/{denominator}"

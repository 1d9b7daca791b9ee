"""Random wishes, and whether a piece fulfils them, by what its score says."""

from __future__ import annotations

from typing import Any

import numpy as np

from meloformer.generation.constraints import OPENING_BARS
from meloformer.midi.bars import grid_of
from meloformer.midi.chords import CHORD_NAMES
from meloformer.midi.programs import programs_of
from meloformer.midi.score import DRUMS, Score
from meloformer.settings import GenerationSettings
from meloformer.tokens.decode import decode
from meloformer.tokens.grammar import grammar_errors
from meloformer.tokens.grid import TEMPO_BPM
from meloformer.tokens.vocabulary import Vocabulary

INSTRUMENTS = ("drums", "bass", "piano", "strings", "#127", "violin", "pad", "Acoustic Guitar (nylon)", "brass", "64")
METERS = ("4/4", "3/4", "7/8", "1/16", "2/1", "6/8", "5/4")


def random_controls(rng: np.random.Generator) -> dict[str, Any]:
    """Fields of ``GenerationSettings``; each is there as often as not."""
    bars = int(rng.integers(1, 9))
    controls: dict[str, Any] = {
        "tempo": float(rng.uniform(40, 250)),
        "meter": _random_meters(rng, bars),
        "instruments": ",".join(rng.choice(INSTRUMENTS, size=int(rng.integers(1, 5)), replace=False)),
        "chords": " ".join(rng.choice(CHORD_NAMES, size=int(rng.integers(1, 6)))),
        "max_polyphony": int(rng.integers(1, 4)),
        "pitch_range": "{}-{}".format(*np.sort(rng.integers(0, 128, size=2))),
        "density": float(rng.uniform(1, 12)),
        "top_k": int(rng.integers(1, 100)),
        "top_p": float(rng.uniform(0.3, 1)),
        "min_p": float(rng.uniform(0, 0.5)),
        "temperature_of": {"pitch": float(rng.uniform(0, 3)), "instrument": float(rng.uniform(0.5, 3))},
        "new_instrument_penalty": float(rng.uniform(0, 8)),
        "instrument_change_penalty": float(rng.uniform(0, 8)),
        "max_rest": int(rng.integers(0, 4)),
    }
    wished = {name: value for name, value in controls.items() if rng.random() < 0.5}
    return {"bars": bars, "temperature": float(rng.choice([0.0, 0.7, 1.0, 1.5])), **wished}


def _random_meters(rng: np.random.Generator, bars: int) -> str:
    if rng.random() < 0.5:
        return str(rng.choice(METERS))
    starts = np.unique(rng.integers(1, bars + 1, size=3))
    return " ".join(f"{start}:{rng.choice(METERS)}" for start in starts)


def broken_controls(ids: np.ndarray, controls: dict[str, Any], vocabulary: Vocabulary) -> list[str]:
    """What of the hard controls a piece does not obey, in words; empty where it obeys all."""
    problems = [f"grammar: {problem}" for problem in grammar_errors(ids, vocabulary)]
    if problems:
        return problems
    score = decode(ids, vocabulary)
    checks = {
        "bars": _bars, "tempo": _tempo, "meter": _meter, "chords": _chords,
        "instruments": lambda score, wished: _instruments(score, wished, max_rest),
        "max_polyphony": _polyphony, "pitch_range": _pitches,
    }  # fmt: skip
    max_rest = controls.get("max_rest", GenerationSettings().max_rest)
    return [
        f"{name}={controls[name]}: found {found}"
        for name, check in checks.items()
        if controls.get(name) is not None and (found := check(score, controls[name])) is not None
    ]


def _bars(score: Score, wished: int) -> object:
    assert score.chords is not None
    return None if len(score.chords) == wished == len(grid_of(score)) else len(score.chords)


def _tempo(score: Score, wished: float) -> object:
    nearest = TEMPO_BPM[np.abs(np.log(TEMPO_BPM / wished)).argmin()]
    found = 60e6 / score.tempo_us
    # Near the middle of two bins either is the nearest, as bins are kept in microseconds.
    return None if len(found) == 1 and abs(np.log(found[0] / nearest)) < 0.06 else found.tolist()


def _meter(score: Score, wished: str) -> object:
    grid = grid_of(score)
    found = [f"{n}/{d}" for n, d in zip(grid.numerator, grid.denominator, strict=True)]
    for part in wished.split():
        start, _, meter = part.rpartition(":")
        later = [int(other.partition(":")[0]) for other in wished.split() if ":" in other]
        stop = min((bar - 1 for bar in later if bar > int(start or 1)), default=len(found))
        if set(found[int(start or 1) - 1 : stop]) != {meter}:
            return found
    return None


def _instruments(score: Score, wished: str, max_rest: int) -> object:
    used, names = set(score.program.tolist()), [set(programs_of(name)) for name in wished.split(",")]
    if not used <= set().union(*names) or not all(used & programs for programs in names):
        return used
    rests = {name: rests_of(score, programs) for name, programs in zip(wished.split(","), names, strict=True)}
    return None if all(first < OPENING_BARS and max(later) <= max_rest for first, *later in rests.values()) else rests


def rests_of(score: Score, programs: set[int]) -> list[int]:
    """How many bars in a row none of the programs sounds: before the first bar in which one does, and after each."""
    bars, own = grid_of(score), np.isin(score.program, list(programs))
    start, end = score.onset_ticks[own], (score.onset_ticks + score.duration_ticks)[own]
    bar_end = np.append(bars.start_ticks[1:], bars.end_ticks)
    sounds = ((start[:, None] < bar_end) & (end[:, None] > bars.start_ticks)).any(axis=0)
    return (np.diff(np.flatnonzero(sounds), prepend=-1, append=len(bars)) - 1).tolist()


def _chords(score: Score, wished: str) -> object:
    assert score.chords is not None
    names = wished.split()
    found = [CHORD_NAMES[chord] for chord in score.chords]
    return None if found == [names[bar % len(names)] for bar in range(len(found))] else found


def _polyphony(score: Score, wished: int) -> object:
    most = most_at_once(score)
    return None if most <= wished else most


def most_at_once(score: Score) -> int:
    """Notes of one instrument that sound at once, at the most."""
    most = 0
    for program in set(score.program.tolist()):
        own = score.program == program
        start, end = score.onset_ticks[own], (score.onset_ticks + score.duration_ticks)[own]
        most = max(most, int(((start[:, None] <= start) & (end[:, None] > start)).sum(axis=0).max()))
    return most


def _pitches(score: Score, wished: str) -> object:
    low, high = map(int, wished.split("-"))
    pitches = score.pitch[score.program != DRUMS]
    return None if ((pitches >= low) & (pitches <= high)).all() else pitches.tolist()

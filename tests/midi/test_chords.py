"""The harmony of a bar: against a slow oracle written from the definition, and against music21's names."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meloformer.midi.bars import bar_grid
from meloformer.midi.chords import (
    BASS_BONUS,
    CHORD_NAMES,
    NAME_BONUS,
    NO_CHORD,
    QUALITIES,
    QUALITY_COST,
    QUALITY_TONES,
    ROOTS,
    analyse_bars,
    load_name_table,
)
from meloformer.midi.read import read_midi
from meloformer.midi.score import DRUMS
from scripts.build_chord_table import QUALITY_OF_MUSIC21, name_of

Note = tuple[int, int, int, int]
"""(onset, duration, pitch, velocity)."""


def oracle(notes: list[Note], start: int, end: int) -> str:
    """The chord of the bar [start, end) by the rule in the docstring of ``analyse_bars``, one note after another."""
    weight = [0] * 12
    bass = None
    for onset, duration, pitch, velocity in notes:
        steps = min(onset + duration, end) - max(onset, start)
        if steps > 0:
            weight[pitch % 12] += steps * velocity
            bass = pitch if bass is None else min(bass, pitch)
    if bass is None:
        return "N"
    bass %= 12
    total = sum(weight)
    sounding = sum(1 << (pitch_class - bass) % 12 for pitch_class in range(12) if weight[pitch_class])
    named = int(load_name_table()[sounding])
    best_score, best_name = None, ""
    for above_bass in range(12):
        root = (bass + above_bass) % 12
        for quality in QUALITIES:
            tones = QUALITY_TONES[quality]
            score = 100 * sum(weight[(root + tone) % 12] for tone in tones) - QUALITY_COST[quality] * total
            if root == bass:
                score += BASS_BONUS * total
            if named == 1 + len(QUALITIES) * above_bass + QUALITIES.index(quality):
                score += NAME_BONUS * total
            if best_score is None or score > best_score:
                best_score, best_name = score, f"{ROOTS[root]}:{quality}"
    return best_name


def chords_of(notes: list[Note], bounds: list[int]) -> list[str]:
    """Names of the chords of the bars between consecutive ``bounds``."""
    onset, duration, pitch, velocity = np.array(notes, dtype=np.int64).reshape(-1, 4).T
    numbers = analyse_bars(onset, duration, pitch, velocity, np.array(bounds[:-1]), np.array(bounds[1:]))
    assert numbers.dtype == np.int64
    return [CHORD_NAMES[number] for number in numbers]


def chord_of(pitches: list[int]) -> str:
    """Name of the chord of pitches that sound for one bar."""
    return chords_of([(0, 48, pitch, 80) for pitch in pitches], [0, 48])[0]


NOTES = st.lists(
    st.tuples(st.integers(0, 200), st.integers(0, 150), st.integers(0, 127), st.integers(1, 127)), max_size=24
)


@given(NOTES)
def test_every_bar_has_the_chord_that_the_oracle_finds(notes: list[Note]) -> None:
    bounds = [0, 48, 84, 96, 97, 192]
    expected = [oracle(notes, start, end) for start, end in pairwise(bounds)]
    assert chords_of(notes, bounds) == expected


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from((0, 3, 4, 7, 8, 9, 11))), min_size=1, max_size=8))
def test_equal_weights_that_tie_are_settled_as_the_oracle_settles_them(chord: list[tuple[int, int]]) -> None:
    notes = [(0, 48, 48 + 12 * octave + pitch_class, 64) for octave, pitch_class in chord]
    assert chords_of(notes, [0, 48]) == [oracle(notes, 0, 48)]


@pytest.mark.parametrize(
    ("every_file", "every_bar", "at_least"), [(12, 10, 400), pytest.param(3, 4, 5000, marks=pytest.mark.slow)]
)
def test_real_bars_have_the_chords_that_the_oracle_finds(
    dev_files: list[Path], every_file: int, every_bar: int, at_least: int
) -> None:
    agreed = bars = 0
    for path in [path for path in dev_files if path.stat().st_size < 60_000][::every_file]:
        score = read_midi(path)
        pitched = score.program != DRUMS
        onset, duration = score.onset_ticks[pitched], score.duration_ticks[pitched]
        pitch, velocity = score.pitch[pitched], score.velocity[pitched]
        meter = (score.meter_ticks, score.meter_numerator, score.meter_denominator)
        grid = bar_grid(*meter, ticks_per_quarter=score.ticks_per_quarter, end_ticks=score.end_ticks)
        found = analyse_bars(onset, duration, pitch, velocity, grid.start_ticks, grid.start_ticks + grid.length_ticks)
        notes = list(zip(onset.tolist(), duration.tolist(), pitch.tolist(), velocity.tolist(), strict=True))
        for bar in range(0, len(grid), every_bar):
            start, end = int(grid.start_ticks[bar]), int(grid.start_ticks[bar] + grid.length_ticks[bar])
            near = [note for note in notes if note[0] < end and note[0] + note[1] > start]
            agreed += CHORD_NAMES[found[bar]] == oracle(near, start, end)
            bars += 1
    assert bars > at_least
    assert agreed == bars


@given(NOTES, st.integers(-12, 12))
def test_chords_move_with_the_music(notes: list[Note], semitones: int) -> None:
    notes = [note for note in notes if 0 <= note[2] + semitones < 128]
    moved = [(onset, duration, pitch + semitones, velocity) for onset, duration, pitch, velocity in notes]
    for name, moved_name in zip(chords_of(notes, [0, 96, 192]), chords_of(moved, [0, 96, 192]), strict=True):
        root, _, quality = name.partition(":")
        if root != "N":
            name = f"{ROOTS[(ROOTS.index(root) + semitones) % 12]}:{quality}"
        assert moved_name == name


@given(NOTES, st.randoms())
def test_the_order_of_the_notes_does_not_matter(notes: list[Note], random: Random) -> None:
    shuffled = list(notes)
    random.shuffle(shuffled)
    assert chords_of(shuffled, [0, 48, 200]) == chords_of(notes, [0, 48, 200])


def test_a_bar_in_which_nothing_sounds_has_no_chord() -> None:
    assert chords_of([], [0, 48, 96]) == ["N", "N"]
    assert chords_of([(48, 48, 60, 80)], [0, 48, 96, 144]) == ["N", "C:5", "N"]
    assert chords_of([(48, 0, 60, 80)], [0, 48, 96]) == ["N", "N"]
    assert analyse_bars(*(np.zeros(0, dtype=np.int64) for _ in range(6))).shape == (0,)
    assert CHORD_NAMES[NO_CHORD] == "N"


def test_a_note_counts_in_every_bar_that_it_sounds_in() -> None:
    held = [(0, 144, pitch, 80) for pitch in (48, 52, 55)]
    assert chords_of(held, [0, 48, 96, 144, 192]) == ["C:maj", "C:maj", "C:maj", "N"]


@pytest.mark.parametrize(
    ("pitches", "name"),
    [
        ([48, 52, 55, 57], "C:6"),
        ([45, 48, 52, 55], "A:min7"),
        ([50, 53, 57, 59], "D:min6"),
        ([47, 50, 53, 57], "B:hdim7"),
        ([48, 53, 55], "C:sus4"),
        ([53, 55, 60], "F:sus2"),
        ([52, 56, 60], "E:aug"),
        ([54, 57, 60, 63], "F#:dim7"),
    ],
)
def test_of_two_names_for_the_same_notes_the_bass_chooses(pitches: list[int], name: str) -> None:
    assert chord_of(pitches) == name


@pytest.mark.parametrize(
    ("pitches", "name"),
    [([52, 55, 60], "C:maj"), ([55, 60, 64], "C:maj"), ([53, 57, 62], "D:min"), ([52, 60], "C:maj")],
)
def test_an_inversion_keeps_its_root(pitches: list[int], name: str) -> None:
    assert chord_of(pitches) == name


def test_a_passing_note_changes_no_chord_and_a_held_seventh_does() -> None:
    triad = [(0, 48, pitch, 80) for pitch in (48, 52, 55)]
    assert chords_of([*triad, (24, 6, 58, 80), (30, 6, 57, 80)], [0, 48]) == ["C:maj"]
    assert chords_of([*triad, (0, 48, 58, 80)], [0, 48]) == ["C:7"]


def test_passing_notes_make_no_suspension_and_no_ninth() -> None:
    scale = [(start, 12, pitch, 80) for start, pitch in ((0, 64), (12, 65), (24, 67), (36, 74))]
    assert chords_of([(0, 48, 48, 80), (0, 48, 55, 80), *scale], [0, 48]) == ["C:maj"]
    assert chord_of([48, 55, 62, 64]) == "C:maj"
    assert chord_of([48, 55, 58, 62, 64]) == "C:9"


def test_a_short_third_makes_a_power_chord_a_triad() -> None:
    power = [(0, 48, pitch, 80) for pitch in (36, 43, 48)]
    assert chords_of(power, [0, 48]) == ["C:5"]
    assert chords_of([*power, (0, 6, 63, 80)], [0, 48]) == ["C:min"]


# music21 as the authority on names


def test_music21_gives_clean_chords_in_root_position_the_same_names() -> None:
    from music21 import chord, harmony

    asked = 0
    for quality in QUALITIES:
        if quality in ("7sus4", "6", "min6"):  # music21 knows the first not, and the others as inversions
            continue
        for root in (0, 1, 6, 10):
            pitches = [48 + root + tone for tone in QUALITY_TONES[quality]]
            sounding = chord.Chord(pitches)
            _, kind = harmony.chordSymbolFigureFromChord(sounding, True)
            assert QUALITY_OF_MUSIC21[kind] == quality
            assert chord_of(pitches) == f"{ROOTS[root]}:{quality}"
            if quality not in ("aug", "dim7"):  # of these any tone is as good a root as another
                assert sounding.root().pitchClass == root
            asked += 1
    assert asked == 60


def test_the_name_table_names_no_chord_without_one_of_the_sounding_pitch_classes() -> None:
    table = load_name_table()
    assert table.shape == (4096,)
    assert (table > 0).sum() == 85
    for bits in np.flatnonzero(table):
        root, quality = divmod(int(table[bits]) - 1, len(QUALITIES))
        tones = {(root + tone) % 12 for tone in QUALITY_TONES[QUALITIES[quality]]}
        assert {pitch_class for pitch_class in range(12) if bits >> pitch_class & 1} <= tones


def test_the_script_would_build_the_same_table() -> None:
    table = load_name_table()
    for above_bass in ((0, 4, 7), (0, 5, 9), (0, 4, 8), (0, 4, 10), (0, 1, 2), (0, 3, 6, 9), (0, 2, 4, 7, 11)):
        assert table[sum(1 << semitones for semitones in above_bass)] == name_of(above_bass)

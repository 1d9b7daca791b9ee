"""The longest copied run, beside a slow search, and what counts as a copy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meloformer.evaluation.copies import LONGEST_GAP, CopyIndex, Reading
from meloformer.evaluation.pieces import Piece
from meloformer.evaluation.structure import READINGS
from meloformer.midi.score import DRUMS
from tests.evaluation.music import Note, moved, piece_of, pieces

TUNE: list[Note] = [(12 * beat, 12, pitch, 0) for beat, pitch in enumerate([60, 62, 64, 65, 67, 60, 67, 65])]


def runs_of(piece: Piece, source: Piece, reading: Reading) -> int:
    return int(CopyIndex([source], reading).longest_runs([piece])[0])


def slow_run(piece: Piece, source: Piece, reading: Reading) -> int:
    """Every start with every start, note by note."""

    def lines(each: Piece) -> list[list[tuple[int, ...]]]:
        columns = np.stack([each.onset, each.pitch, each.program, each.duration], axis=1)[each.is_pitched]
        if reading == "texture":
            return [steps_of(columns)]
        programs = np.unique(columns[:, 2])
        own = [columns[columns[:, 2] == program] for program in programs]
        return [steps_of(line[np.lexsort((line[:, 1], line[:, 0]))]) for line in own]

    def steps_of(columns: np.ndarray) -> list[tuple[int, ...]]:
        """Duration and program, interval and steps from the note before; and without repeats those that are none."""
        onsets = np.unique(columns[:, 0])
        chords = [[tuple(row) for row in columns[columns[:, 0] == onset].tolist()] for onset in onsets]
        sounds = [[(row[1], row[3]) for row in chord] for chord in chords]
        before = np.vstack([columns[:1], columns[:-1]])
        found, number = [], 0
        for place, chord in enumerate(chords):
            for onset, pitch, program, duration in chord:
                gap = min(onset - int(before[number, 0]), LONGEST_GAP)
                voice = program if reading == "texture" else 0
                if not (reading == "line without repeats" and place and sounds[place] == sounds[place - 1]):
                    found.append((duration, voice, pitch - int(before[number, 1]), gap))
                number += 1
        return found

    def equal(a: tuple[int, ...], b: tuple[int, ...], is_first: bool) -> bool:
        return a[:2] == b[:2] and (is_first or a == b)

    best = 0
    for a in lines(piece):
        for b in lines(source):
            for i in range(len(a)):
                for j in range(len(b)):
                    n = 0
                    while i + n < len(a) and j + n < len(b) and equal(a[i + n], b[j + n], n == 0):
                        n += 1
                    best = max(best, n)
    return best


@given(pieces(max_tokens=60), pieces(max_tokens=60), st.sampled_from(READINGS))
def test_the_longest_run_is_what_a_slow_search_finds(piece: Piece, source: Piece, reading: Reading) -> None:
    assert runs_of(piece, source, reading) == slow_run(piece, source, reading)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["texture", "line"]))
def test_a_planted_run_is_found_at_its_length(seed: int, reading: Reading) -> None:
    """Notes at random share short runs; a stretch of one piece is written into the other, in another key."""
    rng = np.random.default_rng(seed)

    def notes(count: int) -> np.ndarray:
        onset = np.cumsum(rng.integers(1, 7, count))
        return np.stack([onset, rng.integers(1, 5, count), rng.integers(50, 70, count), np.zeros(count, int)], axis=1)

    source, host, length = notes(60), notes(60), int(rng.integers(20, 50))
    stretch = source[5 : 5 + length] + np.array([0, 0, 4, 0])
    stretch[:, 0] += host[10, 0] + 8 - stretch[0, 0]
    behind = host[10:] + np.array([stretch[-1, 0] + 8 - host[10, 0], 0, 0, 0])
    written = np.concatenate([host[:10], stretch, behind])
    bars = int(written[-1, 0]) // 48 + 2
    found = runs_of(piece_of(written.tolist(), bars=bars), piece_of(source.tolist(), bars=12), reading)
    assert found == length  # 8 steps before and behind occur nowhere in the source


@pytest.mark.parametrize("reading", READINGS)
def test_a_copy_in_another_key_is_a_copy_and_a_piece_copies_itself(reading: Reading) -> None:
    tune = piece_of(TUNE, bars=2)
    assert runs_of(tune, tune, reading) == 8
    assert runs_of(moved(tune, 5), tune, reading) == 8


def test_an_accompaniment_breaks_a_run_of_the_texture_and_not_of_the_line() -> None:
    tune = piece_of(TUNE, bars=2)
    with_bass = piece_of([*TUNE, (48, 48, 36, 33)], bars=2)
    assert runs_of(with_bass, tune, "line") == 8
    assert runs_of(with_bass, tune, "texture") == 5  # the bass sounds behind the fifth note
    on_the_flute = piece_of([(*note[:3], 73) for note in TUNE], bars=2)
    assert runs_of(on_the_flute, tune, "line") == 8
    assert runs_of(on_the_flute, tune, "texture") == 0


def test_drums_do_not_count_and_other_rhythm_or_length_does() -> None:
    tune = piece_of(TUNE, bars=2)
    drums = piece_of([(12 * beat, 1, 36, DRUMS) for beat in range(8)], bars=2)
    assert runs_of(drums, drums, "line") == 0
    short = [
        (onset, 6, pitch, program) if k == 3 else (onset, 12, pitch, program)
        for k, (onset, _, pitch, program) in enumerate(TUNE)
    ]
    assert runs_of(piece_of(short, bars=2), tune, "line") == 4
    late = [
        (onset + (3 if k >= 6 else 0), length, pitch, program) for k, (onset, length, pitch, program) in enumerate(TUNE)
    ]
    assert runs_of(piece_of(late, bars=3), tune, "line") == 6


def test_no_run_goes_from_one_piece_into_the_next() -> None:
    first, second = piece_of(TUNE[:4], bars=1), piece_of([(onset - 48, *rest) for onset, *rest in TUNE[4:]], bars=1)  # type: ignore[misc]
    index = CopyIndex([first, second], "line")
    assert index.longest_runs([piece_of(TUNE, bars=2), second]).tolist() == [4, 4]


def test_what_is_struck_again_counts_once_in_a_line_without_repeats() -> None:
    bass: list[Note] = [(6 * step, 6, pitch, 33) for step in range(32) for pitch in (36, 43)]
    riff: list[Note] = [(6 * step, 6, 36 + step % 2, 33) for step in range(32)]
    for notes, found in ((bass, 2), (riff, 32), ([*bass, (192, 6, 38, 33)], 3)):
        piece = piece_of(notes, bars=5)
        assert runs_of(piece, piece, "line without repeats") == found
        assert runs_of(piece, piece, "line") == len(notes)

"""Figures of how pieces sound are what they are called."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.pieces import fit_of, harmony_table, notes_a_cell, range_table
from meloformer.evaluation.pieces import Piece, pieces_of
from meloformer.midi.chords import CHORD_NAMES, CHORD_TONES
from meloformer.tokens.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def piece() -> Piece:
    """Four bars, the last of them empty and without a chord."""
    text = (
        "BOS C:maj 4/4 120 #D T0 P36 V9 #0 T0 P60 D12 V9 P64 A:min #0 T0 P57 D12 V9 P62 F:maj #40 T0 P65 D12 V9 N EOS"
    )
    vocabulary = Vocabulary.default()
    (made,) = pieces_of([np.array([vocabulary.id_of(name) for name in text.split()])], vocabulary)
    return made


def test_a_chord_has_its_tones() -> None:
    for name, expected in (("C:maj", [0, 4, 7]), ("A:min", [0, 4, 9]), ("G:7", [2, 5, 7, 11]), ("N", [])):
        assert np.flatnonzero(CHORD_TONES[CHORD_NAMES.index(name)]).tolist() == expected


def test_notes_are_held_against_the_chord_of_their_bar_and_that_of_another(piece: Piece) -> None:
    fit = fit_of([piece])
    assert fit.own == 3 / 3  # A:min meets the bar without a chord, so its two notes do not count
    assert fit.other == 1 / 3  # C of C and E in F, F in C


def test_the_tables_count_bars_notes_and_ranges(piece: Piece) -> None:
    assert sorted(notes_a_cell([piece])) == [1, 1, 2, 2]
    *_, row = harmony_table({"ours": [piece, piece]}).splitlines()
    assert row == "| ours | 2 | 8 | 12 | 100 % | 33 % | 25.0 % | 1.5 |"
    assert range_table({"ours": [piece], "theirs": [piece]}).splitlines()[2:] == [
        "| Acoustic Grand Piano | A3-E4 (A3-E4) | A3-E4 (A3-E4) |",
        "| Violin | F4-F4 (F4-F4) | F4-F4 (F4-F4) |",
    ]

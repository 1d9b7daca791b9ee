"""Metrics of one piece or of two distributions, beside examples reckoned by hand and slow readings of the text."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meloformer.errors import InputError
from meloformer.evaluation.distributions import (
    CHORD_LABELS,
    DISTRIBUTIONS,
    chord_shares,
    duration_shares,
    overlapped_area,
    velocity_shares,
)
from meloformer.evaluation.harmony import chord_share, pitch_class_entropy
from meloformer.evaluation.pieces import Piece, pieces_of, read_pieces
from meloformer.evaluation.rhythm import empty_bar_share, groove_consistency
from meloformer.evaluation.similarity import bar_similarity, similarity_curve, similarity_error
from meloformer.evaluation.texture import (
    instrument_changes,
    instruments_of,
    mean_range,
    num_passing,
    pitch_range,
    polyphony,
)
from meloformer.midi.chords import CHORD_NAMES
from meloformer.midi.score import DRUMS
from meloformer.midi.write import write_midi
from meloformer.tokens.decode import decode
from meloformer.tokens.vocabulary import Vocabulary
from tests.evaluation.music import moved, piece_of, pieces
from tests.strategies import random_document

C_MAJOR = CHORD_NAMES.index("C:maj")
A_MINOR = CHORD_NAMES.index("A:min")
BEAT = [(0, 12, 60, 0), (12, 12, 64, 0)]
"""Two quarters of a piano, on the first two beats of bar 0."""


def in_bar(bar: int, notes: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    return [(48 * bar + onset, *rest) for onset, *rest in notes]  # type: ignore[misc]


def slow_similarity(piece: Piece, distance: int) -> float:
    """As the text says it, with sets."""
    bars: list[set[tuple[int, ...]]] = [set() for _ in range(piece.num_bars)]
    rows = zip(piece.bar, piece.program, piece.pitch, piece.duration, piece.onset_in_bar, strict=True)
    for bar, *note in rows:
        bars[bar].add(tuple(note))
    pairs = [(one, bars[number + distance]) for number, one in enumerate(bars) if number + distance < len(bars)]
    values = [len(one & other) / len(one | other) for one, other in pairs if one | other]
    return float(np.mean(values)) if values else math.nan


@given(pieces(max_bars=9))
def test_the_similarity_of_bars_is_what_sets_of_notes_say(piece: Piece) -> None:
    expected = [slow_similarity(piece, distance) for distance in range(1, 41)]
    np.testing.assert_allclose(bar_similarity(piece), expected, rtol=1e-12)


def test_similarity_by_hand() -> None:
    """Bars A, A with one note more, silence, A on another instrument: 2/3 and 0 and 0; 0 and 0; 0."""
    bars = in_bar(0, BEAT) + in_bar(1, [*BEAT, (24, 12, 67, 0)]) + in_bar(3, [(0, 12, 60, 1), (12, 12, 64, 1)])
    curve = bar_similarity(piece_of(bars, bars=4))
    assert curve[:3] == pytest.approx([(2 / 3 + 0 + 0) / 3, 0, 0])
    assert np.isnan(curve[3:]).all()


def test_two_empty_bars_are_no_structure_and_a_silent_track_changes_nothing() -> None:
    alone = piece_of(in_bar(0, BEAT) + in_bar(1, BEAT), bars=4)
    assert bar_similarity(alone)[0] == pytest.approx((1 + 0) / 2)  # bars 2 and 3 are both empty and left out
    with_drums_once = piece_of(in_bar(0, BEAT) + in_bar(1, BEAT) + [(0, 1, 36, DRUMS)], bars=2)
    assert bar_similarity(with_drums_once)[0] == pytest.approx(2 / 3)


def test_the_similarity_error_is_the_mean_over_distances_that_both_know() -> None:
    short, long = np.full(40, np.nan), np.full(40, 0.5)
    short[:2] = 0.3, 0.6
    assert similarity_error(short, long) == pytest.approx((0.2 + 0.1) / 2)
    assert math.isnan(similarity_error(np.full(40, np.nan), long))


@given(st.lists(pieces(), min_size=1, max_size=4))
def test_a_set_of_pieces_has_no_similarity_error_against_itself(some: list[Piece]) -> None:
    curve = similarity_curve(some)
    error = similarity_error(curve, similarity_curve([*some, *some]))
    assert math.isnan(error) or error == pytest.approx(0, abs=1e-12)
    known = curve[~np.isnan(curve)]
    assert ((known >= 0) & (known <= 1)).all()


def test_every_piece_weighs_the_same_whatever_its_length() -> None:
    repeats = piece_of(in_bar(0, BEAT) + in_bar(1, BEAT), bars=2)
    differs = piece_of([note for bar in range(9) for note in in_bar(bar, [(0, 12, 50 + bar, 0)])], bars=9)
    assert similarity_curve([repeats, differs])[0] == pytest.approx(0.5)


def test_pitch_class_entropy_by_hand() -> None:
    """Bar 0: C and G, 1 bit; bar 1: C thrice and E, 0.811 bits; both: C 4, G 1, E 1; drums do not count."""
    notes = [(0, 12, 60, 0), (12, 12, 67, 0), *in_bar(1, [(0, 3, 60, 0), (3, 3, 72, 0), (6, 3, 48, 0), (9, 3, 64, 0)])]
    piece = piece_of([*notes, (0, 1, 41, DRUMS)], bars=2)
    assert pitch_class_entropy(piece, 1) == pytest.approx((1 + 0.811278) / 2, abs=1e-6)
    both = -(4 / 6 * math.log2(4 / 6) + 2 / 6 * math.log2(1 / 6))
    assert pitch_class_entropy(piece, 4) == pytest.approx(both)
    assert math.isnan(pitch_class_entropy(piece_of([(0, 1, 36, DRUMS)], bars=1)))


@given(pieces(), st.integers(-3, 3))
def test_entropy_does_not_ask_for_the_key_and_stays_in_its_bounds(piece: Piece, semitones: int) -> None:
    value, other = (pitch_class_entropy(each, 4) for each in (piece, moved(piece, semitones)))
    assert math.isnan(value) or (0 <= value <= math.log2(12) + 1e-12 and value == pytest.approx(other))


def test_the_share_of_notes_in_the_chord_by_hand() -> None:
    """C E F over C, then C E over A minor, then F over no chord: 2 of 3, 2 of 2, and nothing to say."""
    notes = [(0, 3, 60, 0), (3, 3, 76, 0), (6, 3, 65, 0), *in_bar(1, BEAT), *in_bar(2, [(0, 3, 65, 0)])]
    piece = piece_of([*notes, (0, 1, 41, DRUMS)], bars=3, chords=[C_MAJOR, A_MINOR, 0])
    assert chord_share(piece) == pytest.approx(4 / 5)
    assert math.isnan(chord_share(piece_of(notes, bars=3, chords=[0, 0, 0])))


def slow_groove(piece: Piece) -> float:
    steps = np.diff(piece.bar_edges).tolist()
    onsets = [set(piece.onset_in_bar[piece.bar == bar].tolist()) for bar in range(piece.num_bars)]
    values = [
        1 - len(one ^ other) / length
        for (one, other), (length, next_length) in zip(pairwise(onsets), pairwise(steps), strict=True)
        if length == next_length and one | other
    ]
    return float(np.mean(values)) if values else math.nan


@given(pieces(max_bars=6))
def test_groove_consistency_is_what_sets_of_onsets_say(piece: Piece) -> None:
    assert groove_consistency(piece) == pytest.approx(slow_groove(piece), nan_ok=True)


def test_groove_consistency_by_hand() -> None:
    """Onsets at 0 and 12, then at 0 and 24, of 48 steps; a bar of 3/4 has no neighbour of its length."""
    piece = piece_of(BEAT + in_bar(1, [(0, 12, 60, 0), (24, 12, 60, 5)]), bars=2)
    assert groove_consistency(piece) == pytest.approx(1 - 2 / 48)
    other = piece_of(BEAT + in_bar(1, [(0, 12, 60, 0)]), bars=2, meters=[(0, 4, 4), (48, 3, 4)])
    assert math.isnan(groove_consistency(other)) or other.num_bars > 2


def test_a_bar_is_empty_where_nothing_sounds_and_a_long_note_fills_bars() -> None:
    assert empty_bar_share(piece_of([(0, 48, 60, 0)], bars=4)) == pytest.approx(3 / 4)
    assert empty_bar_share(piece_of([(0, 60, 60, 0)], bars=4)) == pytest.approx(2 / 4)
    assert empty_bar_share(piece_of([(96, 1, 36, DRUMS)], bars=3)) == pytest.approx(2 / 3)


@given(pieces())
def test_empty_bars_are_those_in_which_no_step_sounds(piece: Piece) -> None:
    sounds = np.zeros(int(piece.bar_edges[-1]), dtype=bool)
    for onset, duration in zip(piece.onset, piece.duration, strict=True):
        sounds[onset : onset + max(duration, 1)] = True
    empty = [not sounds[low:high].any() for low, high in pairwise(piece.bar_edges)]
    assert empty_bar_share(piece) == pytest.approx(np.mean(empty))


def test_polyphony_and_range_by_hand() -> None:
    """Piano: one note for 12 steps, two for 12, a rest, one for 6; the bass is another matter."""
    notes = [(0, 24, 60, 0), (12, 12, 67, 0), (36, 6, 48, 0), (0, 48, 33, 33)]
    piece = piece_of(notes, bars=1)
    assert polyphony(piece, 0) == pytest.approx((12 * 1 + 12 * 2 + 6 * 1) / 30)
    assert pitch_range(piece, 0) == (48, 67)
    assert mean_range(piece) == pytest.approx((19 + 0) / 2)
    assert math.isnan(polyphony(piece, 7))
    first, second = instruments_of([piece, piece_of([(0, 12, 62, 0)], bars=1)])
    assert (first.name, first.pieces, first.notes, first.lowest, first.highest) == (
        "Acoustic Grand Piano", 2, 4, 55, 64.5,
    )  # fmt: skip
    assert (second.program, second.pieces, second.polyphony) == (33, 1, 1)


def test_passing_instruments_play_in_fewer_than_an_eighth_of_the_bars() -> None:
    bars = [(bar * 48, 12, 60, program) for program, num in ((0, 16), (33, 2), (40, 1), (41, 1)) for bar in range(num)]
    piece = piece_of([*bars, (24, 12, 62, 41)], bars=16)
    assert num_passing(piece) == 2  # 40 and 41 play in one of 16 bars, the second twice
    assert math.isnan(num_passing(piece_of(bars[:1], bars=8)))


def test_instruments_change_where_they_come_in_or_drop_out() -> None:
    steady = [(bar * 48, 12, 60, 0) for bar in range(5)]
    assert instrument_changes(piece_of(steady, bars=5)) == 0
    assert instrument_changes(piece_of([*steady, (48, 96, 50, 48)], bars=5)) == 2 / 4  # it rings through bars 1 and 2
    assert instrument_changes(piece_of([*steady, (48, 168, 50, 48)], bars=5)) == 1 / 4  # and to the end
    assert instrument_changes(piece_of([(0, 12, 36, DRUMS), (48, 12, 60, 0)], bars=2)) == 2
    assert math.isnan(instrument_changes(piece_of([(0, 12, 60, 0)], bars=1)))


@given(pieces(max_bars=9))
def test_instrument_changes_are_what_sets_of_instruments_say(piece: Piece) -> None:
    bars: list[set[int]] = [set() for _ in range(piece.num_bars)]
    for onset, duration, program in zip(piece.onset, piece.duration, piece.program, strict=True):
        for number, (start, end) in enumerate(pairwise(piece.bar_edges)):
            if onset < end and onset + duration > start:
                bars[number].add(program)
    changes = [len(one ^ other) for one, other in pairwise(bars)]
    np.testing.assert_allclose(instrument_changes(piece), np.mean(changes) if changes else math.nan)


def test_distributions_by_hand() -> None:
    notes = [(0, 12, 60, 0), (12, 12, 64, 0), (24, 3, 64, 0), (0, 1, 36, DRUMS)]
    piece = piece_of(notes, bars=2, chords=[A_MINOR, 0], velocity=80)
    chords = dict(zip(CHORD_LABELS, chord_shares([piece]), strict=True))
    assert (chords["min"], chords["N"], sum(chords.values())) == (0.5, 0.5, 1)
    durations = duration_shares([piece])
    assert durations[[2, 11]] == pytest.approx([1 / 3, 2 / 3])  # 3 and 12 steps; drums have no duration
    assert velocity_shares([piece])[20] == 1
    assert overlapped_area(durations, duration_shares([piece_of([(0, 12, 60, 0)], bars=1)])) == pytest.approx(2 / 3)


@given(pieces(), pieces())
def test_overlap_is_even_handed_and_full_with_itself(one: Piece, other: Piece) -> None:
    for shares, labels in DISTRIBUTIONS.values():
        first, second = shares([one]), shares([other])
        assert len(first) == len(labels)
        assert overlapped_area(first, second) == overlapped_area(second, first)
        assert overlapped_area(first, first) == pytest.approx(first.sum())
        assert first.sum() == pytest.approx(1) or not first.any()


def test_pieces_from_files_are_the_pieces_from_their_ids_and_broken_files_are_told(tmp_path: Path) -> None:
    vocabulary = Vocabulary.default()
    ids = random_document(np.random.default_rng(3), vocabulary, num_bars=5, max_tokens=200)
    write_midi(decode(ids, vocabulary), tmp_path / "good.mid")
    (tmp_path / "bad.mid").write_bytes(b"no music")
    read = read_pieces([tmp_path], max_bytes=10_000)
    (expected,) = pieces_of([ids], vocabulary)
    (found,) = read.pieces
    for name in ("onset", "duration", "pitch", "velocity", "program", "bar", "bar_edges", "chord"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    assert (found.name, list(read.rejected)) == ("good.mid", ["bad.mid"])
    (tmp_path / "good.mid").unlink()
    with pytest.raises(InputError, match="none of 1 files"):
        read_pieces([tmp_path], max_bytes=10_000)

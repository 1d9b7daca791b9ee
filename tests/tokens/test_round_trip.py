"""score -> ids -> score and ids -> score -> ids, on scores and documents of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from meloformer.errors import RejectError
from meloformer.midi.read import parse_midi, read_midi
from meloformer.midi.score import Score
from meloformer.midi.write import to_midi_bytes
from meloformer.tokens.decode import decode
from meloformer.tokens.encode import encode
from meloformer.tokens.grammar import grammar_errors
from meloformer.tokens.quantise import quantise
from meloformer.tokens.text import from_text, to_text
from tests.strategies import documents, scores, scores_with_cut_bars


def check_round_trip(score: Score, *, text: bool = True) -> None:
    """Everything that the token language promises of one score."""
    quantised = quantise(score)
    ids = encode(score)
    assert grammar_errors(ids) == []
    assert decode(ids) == quantised
    assert quantise(quantised) == quantised
    assert np.array_equal(encode(decode(ids)), ids)
    if text:
        assert np.array_equal(from_text(to_text(ids)), ids)


@given(scores())
def test_decoding_what_was_encoded_gives_the_quantised_score(score: Score) -> None:
    try:
        quantise(score)
    except RejectError as error:
        assert error.reason == "unsupported-meter"  # noqa: PT017 (a resolution of 1 cannot hold a sixteenth)
        return
    check_round_trip(score)


@given(scores_with_cut_bars())
def test_bars_that_a_meter_change_cuts_round_trip_or_are_rejected(score: Score) -> None:
    try:
        quantise(score)
    except RejectError as error:
        assert error.reason == "unsupported-meter"  # noqa: PT017
        return
    check_round_trip(score)


@given(documents())
def test_encoding_what_was_decoded_gives_the_same_ids(ids: np.ndarray) -> None:
    assert grammar_errors(ids) == []
    assert np.array_equal(encode(decode(ids)), ids)
    assert np.array_equal(from_text(to_text(ids)), ids)


@given(documents())
def test_a_document_survives_a_midi_file(ids: np.ndarray) -> None:
    assert np.array_equal(encode(parse_midi(to_midi_bytes(decode(ids)))), ids)


@given(scores(on_grid=True))
def test_notes_on_the_grid_keep_onset_pitch_and_program(score: Score) -> None:
    quantised = quantise(score)
    step = score.ticks_per_quarter // 12
    before = set(zip(score.onset_ticks // step, score.pitch, score.program, strict=True))
    after = set(zip(quantised.onset_ticks, quantised.pitch, quantised.program, strict=True))
    assert before == after


def notes_in_48ths(score: Score) -> set[tuple[int, int, int]]:
    """(onset in 1/48 of a quarter, pitch, program): what of a note has to survive exactly. Unisons are one note."""
    onset = np.rint(score.onset_ticks * 48 / score.ticks_per_quarter).astype(np.int64)
    return set(zip(onset.tolist(), score.pitch.tolist(), score.program.tolist(), strict=True))


def note_f1_through_midi(score: Score) -> float:
    """F1 of onset, pitch and program after score -> HID -> MIDI -> score."""
    before = notes_in_48ths(score)
    after = notes_in_48ths(parse_midi(to_midi_bytes(decode(encode(score)))))
    return 2 * len(before & after) / max(len(before) + len(after), 1) if before or after else 1.0


@given(scores(on_grid=True))
def test_notes_on_the_grid_come_back_exactly_across_meters_tempos_and_triplets(score: Score) -> None:
    score = parse_midi(to_midi_bytes(score))
    assert not np.any(score.onset_ticks * 12 % score.ticks_per_quarter)
    assert note_f1_through_midi(score) == 1.0


@pytest.mark.slow
def test_every_note_of_the_real_files_on_the_grid_comes_back_exactly(dev_files: list[Path]) -> None:
    on_grid = 0
    for path in dev_files:
        score = read_midi(path)
        if not np.any(score.onset_ticks * 12 % score.ticks_per_quarter):
            on_grid += 1
            assert note_f1_through_midi(score) == 1.0, path.name
    assert on_grid == 263


def test_every_real_file_round_trips(dev_files: list[Path]) -> None:
    check_files(dev_files, text_of_every=12)


@pytest.mark.slow
def test_the_text_of_every_real_file_round_trips(dev_files: list[Path]) -> None:
    check_files(dev_files, text_of_every=1)


def check_files(paths: list[Path], *, text_of_every: int) -> None:
    rejected = {}
    for number, path in enumerate(paths):
        try:
            score = read_midi(path)
            quantise(score)
        except RejectError as error:
            rejected[path.name] = error.reason
            continue
        check_round_trip(score, text=number % text_of_every == 0)
    assert not rejected


@pytest.mark.parametrize("chords", [True, False])
def test_without_chords_every_bar_is_named_n(chords: bool) -> None:
    from meloformer.midi.score import make_score

    score = make_score(
        ticks_per_quarter=12,
        onset_ticks=[0, 0, 0],
        duration_ticks=[48, 48, 48],
        pitch=[60, 64, 67],
        velocity=[80, 80, 80],
        program=[0, 0, 0],
    )
    text = to_text(encode(score, chords=chords))
    assert f"bar 1 {'C:maj' if chords else 'N'} 4/4 120" in text

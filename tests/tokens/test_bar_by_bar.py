"""Bars read one by one are the piece."""

from __future__ import annotations

import numpy as np

from meloformer.bench.music import practice_piece
from meloformer.midi.score import NOTE_COLUMNS, make_score
from meloformer.tokens.bar_by_bar import BarDecoder
from meloformer.tokens.decode import decode
from meloformer.tokens.encode import encode
from meloformer.tokens.quantise import quantise
from meloformer.tokens.vocabulary import TokenType, Vocabulary


def bars_of(ids: np.ndarray, vocabulary: Vocabulary) -> list[np.ndarray]:
    """The document cut before every CHORD but the first."""
    chords = np.flatnonzero(vocabulary.types[ids] == TokenType.CHORD)
    return np.split(ids, chords[1:].tolist())


def test_bars_in_a_row_are_the_piece_with_its_meters_and_tempos() -> None:
    notes = quantise(practice_piece(2, num_bars=6))
    changes = {
        "chords": None,
        "meter_ticks": np.array([0, 96]),
        "meter_numerator": np.array([4, 3]),
        "meter_denominator": np.array([4, 4]),
        "tempo_ticks": np.array([0, 132]),
        "tempo_us": np.array([500_000, 400_000]),
    }
    score = quantise(notes.with_changes(**changes))
    vocabulary = Vocabulary.default()
    decoder, start = BarDecoder(vocabulary), 0
    bars = [decoder.decode(ids) for ids in bars_of(encode(score, vocabulary), vocabulary)]
    columns: dict[str, list[np.ndarray]] = {name: [] for name in NOTE_COLUMNS}
    for bar in bars:
        assert bar.chords is not None
        assert len(bar.chords) == 1
        for name in NOTE_COLUMNS:
            columns[name].append(getattr(bar, name) + (start if name == "onset_ticks" else 0))
        start += bar.end_ticks
    whole = decode(encode(score, vocabulary), vocabulary)
    assert start == whole.end_ticks
    for name in NOTE_COLUMNS:
        assert np.concatenate(columns[name]).tolist() == getattr(whole, name).tolist()
    assert [round(60e6 / int(bar.tempo_us[0])) for bar in bars[:4]] == [120, 120, 120, 153]  # the bin of 150
    assert [int(bar.meter_numerator[0]) for bar in bars[:4]] == [4, 4, 3, 3]


def test_an_empty_bar_and_a_pruned_vocabulary_are_read() -> None:
    score = quantise(
        make_score(ticks_per_quarter=12, onset_ticks=[96], duration_ticks=[12], pitch=[60], velocity=[80], program=[0])
    )
    full = Vocabulary.default()
    small = full.pruned(np.bincount(encode(score), minlength=len(full)))
    decoder = BarDecoder(small)
    assert len(small) < len(full)
    assert [decoder.decode(bar).num_notes for bar in bars_of(encode(score, small), small)] == [0, 0, 1]

"""One file: a piece or a reject, whatever happens."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from meloformer.midi.sources import Source
from meloformer.shards import process
from meloformer.shards.process import Piece, Reject, Work, process_source
from meloformer.tokens.encode import encode
from meloformer.tokens.vocabulary import TokenType, Vocabulary
from tests.shards.conftest import settings_with

WORK = Work(settings_with(), Vocabulary.default())


@pytest.fixture
def source(music: Path) -> Source:
    return Source("one", str(music / "good/1.mid"))


def test_a_good_file_becomes_a_piece_that_knows_where_it_came_from(source: Source) -> None:
    piece = process_source(source, WORK)
    assert isinstance(piece, Piece)
    assert piece.name == "one"
    assert piece.sha256 == hashlib.sha256(source.path.read_bytes()).hexdigest()
    assert (Vocabulary.default().types[piece.ids] == TokenType.PITCH).sum() == piece.statistics.notes
    assert piece.ids.dtype == np.uint16


@pytest.mark.parametrize("error", [ValueError("odd"), RecursionError(), AssertionError("x" * 1000)])
def test_any_exception_costs_that_one_file(source: Source, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_args: object, **_named: object) -> None:
        raise error

    monkeypatch.setattr(process, "parse_source", fail)
    reject = process_source(source, WORK)
    assert isinstance(reject, Reject)
    assert reject.reason == "crashed"
    assert reject.message.startswith(type(error).__name__)
    assert len(reject.message) <= 200
    assert reject.sha256 is not None


def test_a_file_that_needs_more_memory_than_there_is_is_too_large(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_named: object) -> None:
        raise MemoryError

    monkeypatch.setattr(process, "parse_source", fail)
    reject = process_source(source, WORK)
    assert isinstance(reject, Reject)
    assert reject.reason == "too-large"


def test_an_interrupt_is_not_taken_for_a_bad_file(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_args: object, **_named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(process, "parse_source", interrupt)
    with pytest.raises(KeyboardInterrupt):
        process_source(source, WORK)


def test_a_large_file_is_not_even_read(source: Source) -> None:
    reject = process_source(source, Work(settings_with("filter.max_file_bytes=100"), Vocabulary.default()))
    assert isinstance(reject, Reject)
    assert (reject.reason, reject.sha256) == ("too-large", None)


def test_a_piece_that_a_pruned_vocabulary_cannot_write_is_a_reject(source: Source, music: Path) -> None:
    full = Vocabulary.default()
    piece = process_source(source, WORK)
    assert isinstance(piece, Piece)
    own = full.pruned(np.bincount(piece.ids, minlength=len(full)))
    assert isinstance(process_source(source, Work(settings_with(), own)), Piece)
    other = process_source(Source("other", str(music / "good/3.mid")), Work(settings_with(), own))
    assert isinstance(other, Reject)
    assert other.reason == "not-in-vocabulary"


def test_settings_reach_the_tokens(source: Source) -> None:
    plain = process_source(source, Work(settings_with("tokens.chords=false"), Vocabulary.default()))
    assert isinstance(plain, Piece)
    chords = plain.ids[Vocabulary.default().types[plain.ids] == TokenType.CHORD]
    assert set(chords.tolist()) == {Vocabulary.default().id_of("N")}
    with_chords = process_source(source, WORK)
    assert isinstance(with_chords, Piece)
    assert len(with_chords.ids) == len(plain.ids)
    assert not np.array_equal(with_chords.ids, plain.ids)
    assert len(encode_names(with_chords)) > 1


def encode_names(piece: Piece) -> set[str]:
    vocabulary = Vocabulary.default()
    return {vocabulary.names[i] for i in piece.ids if vocabulary.types[i] == TokenType.CHORD}


def test_encoding_a_piece_here_equals_the_public_function(source: Source) -> None:
    from meloformer.midi.read import read_midi

    piece = process_source(source, WORK)
    assert isinstance(piece, Piece)
    assert np.array_equal(piece.ids, encode(read_midi(source.path)))

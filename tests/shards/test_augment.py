"""Augmentation: other keys, tempos and velocities of the same music, valid and in the shortest spelling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meloformer.bench.music import practice_piece
from meloformer.midi.score import DRUMS
from meloformer.shards.augment import SEMITONES, Augmentation
from meloformer.shards.batches import BatchLoader
from meloformer.tokens.decode import decode
from meloformer.tokens.encode import encode
from meloformer.tokens.grammar import grammar_errors
from meloformer.tokens.quantise import quantise
from meloformer.tokens.vocabulary import TokenType, Vocabulary
from tests.shards.conftest import Write
from tests.strategies import random_document

VOCABULARY = Vocabulary.default()


def augmentation(seed: int = 0, *, transpose: bool = True, tempo_bins: int = 2, velocity_bins: int = 3) -> Augmentation:
    return Augmentation(VOCABULARY, seed=seed, transpose=transpose, tempo_bins=tempo_bins, velocity_bins=velocity_bins)


def changed(ids: np.ndarray, by: Augmentation, epoch: int = 0) -> np.ndarray:
    return by.apply(ids, by.table(ids, epoch=epoch, document=0))


@given(st.integers(0, 2**32 - 1))
def test_any_document_stays_one_and_in_its_shortest_spelling(seed: int) -> None:
    ids = random_document(np.random.default_rng(seed), VOCABULARY, num_bars=6)
    other = changed(ids, augmentation(seed))
    assert not grammar_errors(other, VOCABULARY)
    assert np.array_equal(encode(decode(other)), other)
    assert np.array_equal(VOCABULARY.types[other], VOCABULARY.types[ids])


def test_a_transposed_document_is_that_of_the_transposed_piece_with_its_chords() -> None:
    score = practice_piece(3, num_bars=12)
    ids = encode(score)
    found = set()
    for epoch in range(60):
        other = changed(ids, augmentation(tempo_bins=0, velocity_bins=0), epoch)
        notes, moved = quantise(score), decode(other)
        is_drums = notes.program == DRUMS
        shift = set((moved.pitch - notes.pitch)[~is_drums].tolist())
        assert len(shift) == 1
        assert np.array_equal(moved.pitch[is_drums], notes.pitch[is_drums])
        found |= shift
        semitones = shift.pop()
        transposed = score.with_changes(pitch=score.pitch + np.where(score.program == DRUMS, 0, semitones), chords=None)
        assert np.array_equal(encode(transposed), other)
    assert found == set(SEMITONES)


def test_tempo_and_velocity_move_as_a_whole_and_nothing_else_does() -> None:
    ids = random_document(np.random.default_rng(1), VOCABULARY, num_bars=20)
    types, values = VOCABULARY.types[ids], VOCABULARY.values[ids]
    moves: dict[TokenType, set[int]] = {TokenType.TEMPO: set(), TokenType.VELOCITY: set()}
    for epoch in range(40):
        difference = VOCABULARY.values[changed(ids, augmentation(transpose=False), epoch)] - values
        for kind, found in moves.items():
            assert len(set(difference[types == kind].tolist())) == 1
            found.add(int(difference[types == kind][0]))
        assert not difference[(types != TokenType.TEMPO) & (types != TokenType.VELOCITY)].any()
    assert all(max(abs(move) for move in found) <= 3 for found in moves.values())
    assert all(0 in found for found in moves.values())


def test_a_pruned_vocabulary_is_not_left() -> None:
    ids = encode(practice_piece(0, num_bars=8))
    pruned = VOCABULARY.pruned(np.bincount(ids, minlength=len(VOCABULARY)))
    own = pruned.from_canonical(ids)
    by = Augmentation(pruned, seed=0, transpose=True, tempo_bins=3, velocity_bins=3)
    for epoch in range(20):
        other = by.apply(own, by.table(own, epoch=epoch, document=0))
        assert not grammar_errors(other, pruned)


@pytest.mark.parametrize("seq_len", [64, 4096])
def test_all_fragments_of_a_document_change_alike_and_anew_in_every_epoch(stored: Write, seq_len: int) -> None:
    originals = [encode(practice_piece(seed, num_bars=10)) for seed in range(3)]
    by = augmentation(seed=7)
    loader = BatchLoader(stored(originals), VOCABULARY, seq_len=seq_len, batch_size=2, augmentation=by)
    for epoch in range(2):
        wanted = [by.apply(ids, by.table(ids, epoch=epoch, document=number)) for number, ids in enumerate(originals)]
        rows = np.concatenate(list(loader.batches(epoch)))
        for row, fragments in zip(rows, loader.rows(epoch), strict=True):
            end = 0
            for fragment in (loader.fragments[number] for number in fragments):
                body, end = end + len(fragment.context), end + len(fragment)
                assert np.array_equal(row[body:end], wanted[fragment.document][fragment.start : fragment.stop])
                if len(fragment.context) > 1:  # what is in force or goes on: it stands in the document too
                    assert set(row[body - len(fragment.context) + 1 : body]) <= set(wanted[fragment.document])
    again = BatchLoader(stored(originals), VOCABULARY, seq_len=seq_len, batch_size=2, augmentation=augmentation(seed=7))
    for a, b in zip(loader.batches(1), again.batches(1), strict=True):
        assert np.array_equal(a, b)
    assert not all(np.array_equal(a, b) for a, b in zip(loader.batches(0), loader.batches(1), strict=True))

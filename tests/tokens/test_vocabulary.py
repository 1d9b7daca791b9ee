"""The vocabulary: its order, its hash, its file, pruning."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from meloformer.errors import InputError, VocabularyError
from meloformer.tokens.vocabulary import CANONICAL_VALUE, FIRST_ID, TokenType, Vocabulary

GOLDEN_SHA256 = "ba6dc2eaf7960ea24ab54f4bc08676124a097a92e09cf9f3251f707b48d07715"


def test_ids_are_in_the_order_of_the_format_and_never_change() -> None:
    vocabulary = Vocabulary.default()
    assert len(vocabulary) == 744
    assert vocabulary.names[:8] == ("PAD", "BOS", "EOS", "MASK", "SEP", "UNK", "N", "C:maj")
    assert vocabulary.names[-1] == "V31"
    assert (np.diff(vocabulary.types) >= 0).all()
    assert vocabulary.sha256 == GOLDEN_SHA256


def test_all_but_durations_count_up_from_the_first_id_of_their_type() -> None:
    types = Vocabulary.default().types
    for token_type in TokenType:
        values = CANONICAL_VALUE[types == token_type]
        if token_type != TokenType.DURATION:
            assert values.tolist() == list(range(len(values)))
        assert types[FIRST_ID[token_type]] == token_type


def test_a_vocabulary_survives_its_file(tmp_path: Path) -> None:
    counts = np.arange(744) % 3
    pruned = Vocabulary.default().pruned(counts)
    path = tmp_path / "vocab.json"
    path.write_text(pruned.to_json())
    loaded = Vocabulary.load(path)
    assert loaded == pruned
    assert loaded.counts == pruned.counts
    assert loaded.sha256 == pruned.sha256 != Vocabulary.default().sha256


def test_pruning_keeps_special_tokens_and_what_occurs() -> None:
    full = Vocabulary.default()
    counts = np.zeros(len(full), dtype=int)
    counts[full.id_of("P60")] = 5
    pruned = full.pruned(counts)
    assert pruned.names == ("PAD", "BOS", "EOS", "MASK", "SEP", "UNK", "P60")
    assert pruned.from_canonical(np.array([1, full.id_of("P60")])).tolist() == [1, 6]
    assert pruned.to_canonical(np.array([1, 6])).tolist() == [1, full.id_of("P60")]
    with pytest.raises(VocabularyError, match="'P61'"):
        pruned.from_canonical(np.array([full.id_of("P61")]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.update(format="other"), "not a MeloFormer vocabulary"),
        (lambda record: record.update(version=2), "has version 2"),
        (lambda record: record.update(grid=24), "grid 24"),
        (lambda record: record["tokens"].pop(), "says sha256"),
        (lambda record: record["tokens"].reverse(), "out of order"),
        (lambda record: record["tokens"].append("X"), "unknown token 'X'"),
        (lambda record: record.update(counts=[1]), "1 counts for 744 tokens"),
        (lambda record: record.pop("tokens"), "not a MeloFormer vocabulary"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, change, message: str) -> None:
    record = json.loads(Vocabulary.default().to_json())
    change(record)
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps(record))
    with pytest.raises(VocabularyError, match=message):
        Vocabulary.load(path)


def test_no_file_text_or_bytes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        Vocabulary.load(tmp_path / "none.json")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(VocabularyError, match="not a MeloFormer vocabulary"):
        Vocabulary.load(tmp_path / "text")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError):
        Vocabulary.load(tmp_path / "bytes")


def test_ids_outside_the_vocabulary_are_named() -> None:
    with pytest.raises(VocabularyError, match="id 744"):
        Vocabulary.default().to_canonical(np.array([0, 744]))
    with pytest.raises(VocabularyError, match="'H:maj'"):
        Vocabulary.default().id_of("H:maj")

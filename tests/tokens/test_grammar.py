"""The two forms of the grammar agree with each other, and say what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meloformer.tokens.grammar import GrammarState, grammar_errors
from meloformer.tokens.vocabulary import Vocabulary
from tests.strategies import documents, random_document

VALID = "BOS C:maj 3/4 120 #D T0 P36 V24 P42 V20 T6 P42 #33 T0 P36 D12 V22 T24 P43 F:maj N EOS"


def ids_of(text: str) -> np.ndarray:
    vocabulary = Vocabulary.default()
    return np.array([vocabulary.id_of(name) for name in text.split()], dtype=np.uint16)


def first_forbidden(ids: np.ndarray) -> int | None:
    """Position of the first token that a GrammarState forbids; the length where the end is missing."""
    state = GrammarState()
    for position, token_id in enumerate(ids):
        if not state.allowed()[token_id]:
            return position
        state.advance(int(token_id))
    return len(ids) if state.allowed().any() else None


def first_problem(ids: np.ndarray) -> int | None:
    problems = grammar_errors(ids)
    return problems[0].position if problems else None


def test_the_example_is_valid() -> None:
    assert grammar_errors(ids_of(VALID)) == []
    assert first_forbidden(ids_of(VALID)) is None


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("C:maj 4/4 120 EOS", 0),
        ("BOS EOS", 1),
        ("BOS C:maj EOS", 2),
        ("BOS C:maj 4/4 EOS", 3),
        ("BOS C:maj 120 4/4 EOS", 2),
        ("BOS C:maj 4/4 120", 4),
        ("BOS C:maj 4/4 120 F:maj 4/4 EOS", 5),
        ("BOS C:maj 4/4 120 F:maj 120 EOS", 5),
        ("BOS C:maj 4/4 120 #0 EOS", 5),
        ("BOS C:maj 4/4 120 #0 T0 P60 V3 EOS", 7),
        ("BOS C:maj 4/4 120 #0 T0 P60 D3 EOS", 8),
        ("BOS C:maj 4/4 120 #D T0 P60 D3 V3 EOS", 7),
        ("BOS C:maj 1/4 120 #D T12 P60 V3 EOS", 5),
        ("BOS C:maj 4/4 120 #0 T0 P60 D3 V3 T0 P61 EOS", 9),
        ("BOS C:maj 4/4 120 #0 T0 P60 D3 V3 P60 EOS", 9),
        ("BOS C:maj 4/4 120 #0 T0 P60 D3 V3 P61 D3 EOS", 10),
        ("BOS C:maj 4/4 120 #0 T0 P60 D3 V3 P61 V3 EOS", 10),
        ("BOS C:maj 4/4 120 #0 T0 P60 D3 V3 #33 T0 P30 D3 V3 EOS", 9),
        ("BOS C:maj 4/4 120 #0 T0 P60 D3 V3 #0 T0 P30 D3 V3 EOS", 9),
        ("BOS C:maj 4/4 120 SEP EOS", 4),
        ("BOS C:maj 4/4 120 EOS EOS", 5),
        ("BOS C:maj 4/4 120 EOS PAD", 5),
        ("BOS C:maj 8/4 120 #0 T62 1/4 P60 D3 V3 EOS", 6),
        ("BOS C:maj 8/4 120 #0 T62 PAD P60 D3 V3 EOS", 6),
    ],
)
def test_both_forms_find_the_first_wrong_token(text: str, position: int) -> None:
    assert first_problem(ids_of(text)) == position
    assert first_forbidden(ids_of(text)) == position


@given(documents(max_tokens=40), st.data())
def test_both_forms_agree_on_damaged_documents(ids: np.ndarray, data: st.DataObject) -> None:
    damaged = ids.tolist()
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        kind = data.draw(st.sampled_from(["replace", "remove", "insert", "copy"]))
        if kind == "replace":
            damaged[at] = data.draw(st.integers(0, len(Vocabulary.default()) - 1))
        elif kind == "remove" and len(damaged) > 1:
            del damaged[at]
        elif kind == "insert":
            damaged.insert(at, data.draw(st.integers(0, len(Vocabulary.default()) - 1)))
        else:
            damaged.insert(at, damaged[data.draw(st.integers(0, len(damaged) - 1))])
    array = np.array(damaged)
    assert first_problem(array) == first_forbidden(array)


@given(documents())
def test_a_note_may_end_exactly_where_a_bar_may_open(ids: np.ndarray) -> None:
    state = GrammarState()
    chord = Vocabulary.default().id_of("C:maj")
    for token_id in ids:
        if state.last.name not in ("PAD", "BOS", "EOS"):
            assert state.at_note_end == state.allowed()[chord]
        state.advance(int(token_id))


def test_a_pruned_vocabulary_walks_the_same_grammar() -> None:
    full = Vocabulary.default()
    rng = np.random.default_rng(3)
    counts = rng.integers(0, 3, len(full))
    for name in ("4/4", "120", "T0", "T1", "D1", "V1", "V2", "#0", "#D", "P60"):
        counts[full.id_of(name)] = 1
    pruned = full.pruned(counts)
    assert len(pruned) < len(full)
    for _ in range(20):
        ids = random_document(rng, pruned)
        assert grammar_errors(ids, pruned) == []
        assert ids.max() < len(pruned)

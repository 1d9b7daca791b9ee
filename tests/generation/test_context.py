"""The model's view of a long piece: a valid row in which nothing is told falsely."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from meloformer.generation.context import PREFIX_LENGTH, latest_context
from meloformer.tokens.attributes import attributes
from meloformer.tokens.grammar import GrammarState, grammar_errors
from meloformer.tokens.vocabulary import BOS, SEP, TokenType, Vocabulary

FULL = Vocabulary.default()


def ids_of(text: str) -> np.ndarray:
    return np.array([FULL.id_of(name) for name in text.split()], dtype=np.uint16)


def names_of(ids: np.ndarray) -> str:
    return " ".join(FULL.names[i] for i in ids)


WEIGHTS = {TokenType.CHORD: 0.04, TokenType.INSTRUMENT: 0.15, TokenType.METER: 0.5, TokenType.TEMPO: 0.5}
"""How often a type is chosen where it may stand; the parts of notes 1."""


def long_winded(rng: np.random.Generator, num_tokens: int) -> np.ndarray:
    """The first tokens of a piece with long bars and cells, in which meters and tempos change often.

    The weight of a bar line and of a new cell is drawn too, so that some pieces are all short bars and some one cell.
    """
    haste = rng.choice([0.05, 1.0, 8.0])
    state, ids = GrammarState(FULL), []
    while len(ids) < num_tokens:
        allowed = np.flatnonzero(state.allowed())
        allowed = allowed[FULL.types[allowed] != TokenType.EOS]
        types = np.unique(FULL.types[allowed])
        weights = np.array([haste * WEIGHTS[kind] if kind in WEIGHTS else 1.0 for kind in map(TokenType, types)])
        of_type = allowed[FULL.types[allowed] == rng.choice(types, p=weights / weights.sum())]
        rises = TokenType(int(FULL.types[of_type[0]])) in (TokenType.ONSET, TokenType.PITCH)
        ids.append(int(of_type[rng.integers(min(3, len(of_type)))] if rises else rng.choice(of_type)))
        state.advance(ids[-1])
    return np.array(ids, dtype=np.uint16)


def kind_of(context: np.ndarray, ids: np.ndarray) -> str:
    """What the context keeps of ``ids``, found by comparing the two."""
    for head, name in ((0, "whole"), (PREFIX_LENGTH, "bars"), (PREFIX_LENGTH + 1, "cells")):
        if np.array_equal(context[head:], ids[len(ids) - len(context) + head :]) and (head or len(context) == len(ids)):
            return name
    return "notes"


def test_the_pieces_below_are_cut_in_every_way() -> None:
    rng = np.random.default_rng(0)
    pieces = [long_winded(rng, int(rng.integers(20, 200))) for _ in range(60)]
    kinds = Counter(kind_of(latest_context(ids, 32, FULL), ids) for ids in pieces)
    assert set(kinds) == {"whole", "bars", "cells", "notes"}
    assert min(kinds.values()) >= 4


def in_whole_bars(context: np.ndarray) -> np.ndarray:
    """SEP METER TEMPO CHORD [METER] [TEMPO] rewritten as BOS CHORD METER TEMPO: what the grammar calls a document."""
    types = FULL.types[context]
    assert types[:4].tolist() == [TokenType.SEP, TokenType.METER, TokenType.TEMPO, TokenType.CHORD]
    header = {TokenType.METER: context[1], TokenType.TEMPO: context[2]}
    body = 4
    while types[body : body + 1].tolist() in ([TokenType.METER], [TokenType.TEMPO]):
        header[TokenType(int(types[body]))] = context[body]
        body += 1
    return np.array([BOS, context[3], *header.values(), *context[body:]], dtype=context.dtype)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num_tokens=st.integers(20, 200), length=st.integers(16, 80))
def test_a_context_is_a_valid_row_that_tells_the_truth(seed: int, num_tokens: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    piece = long_winded(rng, num_tokens)
    for end in [*rng.integers(1, num_tokens, 3), num_tokens]:
        ids = piece[:end]
        context = latest_context(ids, length, FULL)
        assert len(context) <= length
        if len(ids) <= length:
            assert np.array_equal(context, ids)
            continue
        state, shown = GrammarState.after(ids), GrammarState.after(in_whole_bars(context))
        if state.last not in (TokenType.CHORD, TokenType.METER, TokenType.TEMPO):  # headers were rewritten
            assert np.array_equal(state.allowed(), shown.allowed())
        assert (state.meter, state.tempo, state.instrument) == (shown.meter, shown.tempo, shown.instrument)
        problems = [problem for problem in grammar_errors(in_whole_bars(context)) if problem.token != "the end"]
        assert problems == []
        told, true = attributes(context, FULL), attributes(ids, FULL)
        num_new = PREFIX_LENGTH + (3 if kind_of(context, ids) == "notes" else 0)  # and CHORD INSTRUMENT T
        num_same = int(np.append(context[::-1] == ids[::-1][: len(context)], False).argmin())
        kept = range(1, min(num_same, len(context) - num_new) + 1)  # counted from the end
        for name in ("type", "instrument", "onset", "pitch"):
            assert [getattr(told, name)[-at] for at in kept] == [getattr(true, name)[-at] for at in kept]
        assert len({int(told.time[-at] - true.time[-at]) for at in kept}) == 1


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num_tokens=st.integers(60, 200))
def test_a_context_holds_as_much_as_fits(seed: int, num_tokens: int) -> None:
    ids, length = long_winded(np.random.default_rng(seed), num_tokens), 48
    context = latest_context(ids, length, FULL)
    of_unit = {"bars": TokenType.CHORD, "cells": TokenType.INSTRUMENT, "notes": TokenType.PITCH}[kind_of(context, ids)]
    starts = np.flatnonzero(FULL.types[ids] == of_unit)
    longest = int(np.diff(np.append(starts, len(ids))).max())
    assert context[0] == SEP
    assert len(context) > length - longest - (3 if of_unit == TokenType.PITCH else 0)  # one more would not have fitted


def test_a_long_piece_keeps_its_latest_bars_and_what_is_in_force() -> None:
    bar = "C:maj #0 T0 P60 D12 V20"
    ids = ids_of(f"BOS C:maj 3/4 {FULL.names[300]} #0 T0 P60 D12 V20 F:maj 4/4 #0 T0 P65 D12 V20 {bar} {bar}")
    assert FULL.types[300] == TokenType.TEMPO
    assert names_of(latest_context(ids, 16, FULL)) == f"SEP 4/4 {FULL.names[300]} {bar} {bar}"


def test_a_meter_that_changes_at_the_cut_is_written_where_it_changes() -> None:
    tempo = FULL.names[300]
    tail = "F:maj 4/4 #0 T0 P65 D12 V20 C:maj #0 T0"
    ids = ids_of(f"BOS C:maj 3/4 {tempo} #0 T0 P60 D12 V20 {tail}")
    assert names_of(latest_context(ids, 16, FULL)) == f"SEP 3/4 {tempo} {tail}"


def test_a_bar_that_is_too_long_keeps_its_chord_and_its_latest_cells() -> None:
    tempo = FULL.names[300]
    cells = [f"#{program} T0 P60 D12 V20" for program in (33, 0, 40)]
    ids = ids_of(f"BOS C:maj 4/4 {tempo} {' '.join(cells)}")
    assert names_of(latest_context(ids, 17, FULL)) == f"SEP 4/4 {tempo} C:maj {cells[1]} {cells[2]}"


def test_a_cell_that_is_too_long_keeps_its_instrument_and_a_first_note_with_all_parts() -> None:
    tempo = FULL.names[300]
    ids = ids_of(f"BOS C:maj 4/4 {tempo} #0 T3 P40 D12 V20 P41 P42 V9 P43 P44 T6 P45 P46 D3 P47")
    expected = f"SEP 4/4 {tempo} C:maj #0 T3 P43 D12 V9 P44 T6 P45 P46 D3 P47"
    assert names_of(latest_context(ids, 16, FULL)) == expected
    drums = ids_of(f"BOS C:maj 4/4 {tempo} #D T3 P40 V20 P41 P42 V9 P43 P44 T6 P45 P46 P47 P48 P49 P50")
    assert names_of(latest_context(drums, 16, FULL)) == f"SEP 4/4 {tempo} C:maj #D T3 P44 V9 T6 P45 P46 P47 P48 P49 P50"

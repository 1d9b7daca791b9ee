"""Cutting and packing: every token once, cuts where music allows them, rows as full as best fit makes them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meloformer.midi.sources import find_sources
from meloformer.shards.packing import MIN_ROW, Fragment, cut_document, pack_rows
from meloformer.shards.parallel import process_sources
from meloformer.shards.process import Piece, Work
from meloformer.tokens.attributes import Attributes, attributes
from meloformer.tokens.vocabulary import SEP, TokenType, Vocabulary
from tests.shards.conftest import settings_with
from tests.strategies import documents

VOCABULARY = Vocabulary.default()
long_documents = documents(max_bars=12, max_tokens=400)
row_lengths = st.integers(MIN_ROW, 150)


def ids_of(names: str) -> np.ndarray:
    return np.array([VOCABULARY.id_of(name) for name in names.split()], dtype=np.uint16)


def names_of(ids: tuple[int, ...]) -> str:
    return " ".join(VOCABULARY.names[number] for number in ids)


def row_of(fragment: Fragment, ids: np.ndarray) -> np.ndarray:
    return np.concatenate([np.array(fragment.context, dtype=np.int64), ids[fragment.start : fragment.stop]])


def facts_of(fragment: Fragment, ids: np.ndarray) -> Attributes:
    return attributes(row_of(fragment, ids), VOCABULARY)


@given(long_documents, row_lengths)
def test_every_token_of_a_document_is_a_target_exactly_once(ids: np.ndarray, seq_len: int) -> None:
    times_target = np.zeros(len(ids), dtype=np.int64)
    position = 0
    for fragment in cut_document(ids, 7, seq_len, VOCABULARY):
        assert fragment.document == 7
        assert fragment.start == position < fragment.stop
        assert len(fragment) <= seq_len
        is_target = facts_of(fragment, ids).is_target
        assert len(is_target) == len(fragment)
        assert not is_target[: len(fragment.context)].any()
        times_target[fragment.start : fragment.stop] += is_target[len(fragment.context) :]
        position = fragment.stop
    assert position == len(ids)
    assert times_target.tolist() == [0] + [1] * (len(ids) - 1)


@given(long_documents, row_lengths)
def test_a_fragment_knows_of_its_tokens_what_the_document_knows(ids: np.ndarray, seq_len: int) -> None:
    whole = attributes(ids, VOCABULARY)
    for fragment in cut_document(ids, 0, seq_len, VOCABULARY):
        part, body = facts_of(fragment, ids), slice(len(fragment.context), None)
        of_document = slice(fragment.start, fragment.stop)
        for name in ("type", "instrument", "onset"):
            assert np.array_equal(getattr(part, name)[body], getattr(whole, name)[of_document]), name
        assert part.note.max() + 1 == len(set(whole.note[of_document][whole.note[of_document] >= 0].tolist()))
        is_onset = part.type[body] == TokenType.ONSET  # it carries the pitch before, which a cut may take away
        assert np.array_equal(part.pitch[body][~is_onset], whole.pitch[of_document][~is_onset])
        bar_shift = whole.bar[of_document] - part.bar[body]
        assert len(set(bar_shift.tolist())) == 1
        first_bar_starts = int(whole.bar_end_time[bar_shift[0] - 1]) if bar_shift[0] else 0
        is_body = whole.type[of_document] != TokenType.BOS
        time_shift = (whole.time[of_document] - part.time[body])[is_body]
        assert set(time_shift.tolist()) <= {first_bar_starts}


@given(long_documents, row_lengths)
def test_the_context_says_what_is_in_force(ids: np.ndarray, seq_len: int) -> None:
    types = VOCABULARY.types[ids]
    for fragment in cut_document(ids, 0, seq_len, VOCABULARY)[1:]:
        at_bar_line = types[fragment.start] == TokenType.CHORD
        wanted = [TokenType.METER, TokenType.TEMPO]
        if not at_bar_line:
            wanted = [TokenType.CHORD, *wanted, TokenType.INSTRUMENT, TokenType.ONSET]
        assert fragment.context[0] == SEP
        assert VOCABULARY.types[list(fragment.context[1:])].tolist() == wanted
        for kind, number in zip(wanted, fragment.context[1:], strict=True):
            assert number == ids[: fragment.start][types[: fragment.start] == kind][-1]


@given(long_documents, row_lengths)
def test_cuts_are_at_bar_lines_where_bars_fit_and_else_in_front_of_a_pitch(ids: np.ndarray, seq_len: int) -> None:
    types = VOCABULARY.types[ids]
    bar_lines = np.flatnonzero(types == TokenType.CHORD)[1:]
    for fragment in cut_document(ids, 0, seq_len, VOCABULARY)[:-1]:
        stop = fragment.stop
        in_reach = bar_lines[
            (bar_lines > fragment.start) & (bar_lines <= fragment.start + seq_len - len(fragment.context))
        ]
        if len(in_reach):
            assert stop == in_reach[-1]
        else:
            assert types[stop] == TokenType.PITCH


@given(long_documents)
def test_a_document_that_fits_is_not_cut(ids: np.ndarray) -> None:
    seq_len = max(len(ids), MIN_ROW)
    assert cut_document(ids, 3, seq_len, VOCABULARY) == [Fragment(3, 0, len(ids), ())]


def test_a_document_written_out_by_hand() -> None:
    bars = "C:maj 3/4 120 #0 T0 P60 D3 V9 F:maj #0 T0 P60 D3 V9 G:maj 4/4 #0 T0 P60 D3 V9 C:maj EOS"
    ids = ids_of(f"BOS {bars}")
    cut = cut_document(ids, 0, 16, VOCABULARY)
    assert [(fragment.start, fragment.stop, names_of(fragment.context)) for fragment in cut] == [
        (0, 15, ""),
        (15, 24, "SEP 3/4 120"),
    ]


def test_a_first_bar_longer_than_a_row_goes_on_in_its_own_meter() -> None:
    drums = " ".join(f"T{step} P36" for step in range(3, 30, 3))
    ids = ids_of(f"BOS C:maj 3/4 120 #D T0 P36 V9 {drums} #0 T0 P60 D3 V9 P64 P67 P69 P71 P72 F:maj 4/4 EOS")
    cut = cut_document(ids, 0, 20, VOCABULARY)
    assert [(names_of(fragment.context), VOCABULARY.names[ids[fragment.start]]) for fragment in cut] == [
        ("", "BOS"),
        ("SEP C:maj 3/4 120 #D T18", "P36"),
        ("SEP C:maj 3/4 120 #0 T0", "P60"),
    ]
    assert names_of(tuple(ids[cut[2].start - 2 : cut[2].start])) == "#0 T0"  # predicted here, repeated as context
    assert cut[-1].stop == len(ids)


def test_rows_too_short_to_hold_anything_are_refused() -> None:
    with pytest.raises(ValueError, match=f"the least is {MIN_ROW}"):
        cut_document(np.arange(5), 0, MIN_ROW - 1, VOCABULARY)


def test_ids_that_are_no_document_are_refused() -> None:
    velocities = np.full(100, VOCABULARY.id_of("V3"))
    with pytest.raises(ValueError, match="no HID document"):
        cut_document(velocities, 0, 32, VOCABULARY)


def slow_best_fit(lengths: list[int], seq_len: int) -> list[int]:
    """Tokens in every row: falling length, each into the fullest row that has room."""
    filled: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [row for row, used in enumerate(filled) if used + length <= seq_len]
        if fitting:
            filled[max(fitting, key=lambda row: filled[row])] += length
        else:
            filled.append(length)
    return sorted(filled)


@given(st.lists(st.integers(1, 64), max_size=60), st.integers(0, 5), st.integers(0, 5))
def test_rows_hold_every_fragment_once_and_are_as_full_as_best_fit_makes_them(
    lengths: list[int], seed: int, epoch: int
) -> None:
    rows = pack_rows(np.array(lengths, dtype=np.int64), 64, seed=seed, epoch=epoch)
    assert sorted(fragment for row in rows for fragment in row) == list(range(len(lengths)))
    assert sorted(sum(lengths[fragment] for fragment in row) for row in rows) == slow_best_fit(lengths, 64)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 200)
    orders = {(seed, epoch): pack_rows(lengths, 100, seed=seed, epoch=epoch) for seed in range(2) for epoch in range(2)}
    assert all(pack_rows(lengths, 100, seed=seed, epoch=epoch) == rows for (seed, epoch), rows in orders.items())
    distinct = {str(rows) for rows in orders.values()}
    assert len(distinct) == 4
    assert len({len(rows) for rows in orders.values()}) == 1


def test_a_fragment_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="a fragment of 65 tokens does not fit into a row of 64"):
        pack_rows(np.array([5, 65]), 64, seed=0, epoch=0)


@pytest.mark.parametrize("seq_len", [4096, 8192, 16384])
def test_real_pieces_leave_at_most_two_percent_padding(real_documents: list[np.ndarray], seq_len: int) -> None:
    fragments = [
        fragment
        for number, ids in enumerate(real_documents)
        for fragment in cut_document(ids, number, seq_len, VOCABULARY)
    ]
    lengths = np.array([len(fragment) for fragment in fragments])
    rows = pack_rows(lengths, seq_len, seed=0, epoch=0)
    assert 1 - lengths.sum() / (len(rows) * seq_len) <= 0.02


@pytest.fixture(scope="module")
def real_documents(dev_files: list[Path]) -> list[np.ndarray]:
    sources = find_sources([Path(os.path.commonpath(dev_files))])
    results = process_sources(sources, Work(settings_with("tokens.chords=false"), VOCABULARY))
    return [result.ids for result in results if isinstance(result, Piece)]

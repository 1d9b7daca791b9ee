"""The layouts for FlexAttention, pair by pair and block by block, against the dense rules."""

from __future__ import annotations

import pickle
import tracemalloc

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import BlockMask

from meloformer.model.batch import Batch
from meloformer.model.block_masks import BLOCK, Reading, Stretches, pairs_of_blocks
from meloformer.model.flex import FlexPath
from meloformer.model.stretches import padded_slots, padded_tokens
from meloformer.model.visibility import (
    families_with_summaries,
    finished_mask,
    own_bar_mask,
    regular_masks,
    summary_mask,
)
from meloformer.settings import HeadFamily, ModelSettings
from meloformer.tokens.attributes import GLOBAL
from tests.model.paths import BATCHES, FAMILIES, padded, piece, random_row, settings_of

ALL: tuple[HeadFamily, ...] = (*FAMILIES, "union")


def only(family: HeadFamily, **changes: object) -> ModelSettings:
    return settings_of(heads={family: 1}, dim=16, **changes)


def of_all_rows(masks: torch.Tensor, num_rows: int, num_columns: int) -> np.ndarray:
    """(B, R, C) of every row -> (num_rows, num_columns) of all; rows see nothing of each other, padding nothing."""
    together = torch.block_diag(*masks.int()).numpy()
    height, width = together.shape
    return np.pad(together, ((0, num_rows - height), (0, num_columns - width)))


def dense_rule(batch: Batch, settings: ModelSettings, family: HeadFamily, path: FlexPath) -> np.ndarray:
    """(N, N + S) what regular tokens see of regular tokens and of summaries; padding sees itself."""
    regular = of_all_rows(regular_masks(batch, settings)[family], path.num_tokens, path.num_tokens)
    behind = np.arange(path.num_tokens) >= batch.ids.numel()
    regular[behind, behind] = 1
    summaries = of_all_rows(finished_mask(batch), path.num_tokens, path.num_slots)
    return np.concatenate([regular, summaries * (family in families_with_summaries(settings))], axis=1)


def dense_summary_rule(batch: Batch, settings: ModelSettings, path: FlexPath) -> np.ndarray:
    """(S, S + N) what summaries see of summaries and of regular tokens."""
    summaries = of_all_rows(summary_mask(batch, settings.summaries), path.num_slots, path.num_slots)
    behind = np.arange(path.num_slots) >= batch.bar_document.numel()
    summaries[behind, behind] = 1
    return np.concatenate([summaries, of_all_rows(own_bar_mask(batch), path.num_slots, path.num_tokens)], axis=1)


def pairs(reading: Reading) -> np.ndarray:
    """(Q, R) bool, the mask of every pair."""
    num_queries, num_keys = (BLOCK * count for count in reading.partial.keys.shape)
    nothing = torch.zeros((), dtype=torch.int64)
    return reading.mask_mod(nothing, nothing, torch.arange(num_queries)[:, None], torch.arange(num_keys)).numpy()


def keys_of(family: HeadFamily, path: FlexPath) -> np.ndarray:
    """(R,) column of the dense rule for every key of a layout."""
    reading, itself = path.updated[family], np.arange(path.num_tokens)
    if family in ("track", "onset", "pitch"):
        assert reading.order is not None
        return reading.order.numpy()
    near = path.globals if family == "ensemble" else reading.order
    assert near is not None
    return np.concatenate([itself, near.numpy(), path.num_tokens + np.arange(path.num_slots)])


def assert_rule(reading: Reading, keys: np.ndarray, rule: np.ndarray) -> None:
    """Put back in order, every visible pair is there once, and no other."""
    seen = pairs(reading)
    found = np.zeros(rule.shape, dtype=np.int64)
    order = np.arange(len(rule)) if reading.order is None else reading.order.numpy()
    for row, query in zip(seen, order, strict=True):
        np.add.at(found[query], keys[row], 1)
    assert np.array_equal(found, rule)


def assert_blocks(reading: Reading) -> None:
    """Every block with a visible pair is listed, once; those listed as full are."""
    seen = pairs(reading).reshape(reading.partial.keys.shape[0], BLOCK, -1, BLOCK).sum((1, 3))
    partial, full = (np.zeros(seen.shape, dtype=np.int64) for _ in range(2))
    for blocks, grid in ((reading.partial, partial), (reading.full, full)):
        for row, (count, listed) in enumerate(zip(blocks.num_keys, blocks.keys, strict=True)):
            np.add.at(grid[row], listed[:count].numpy(), 1)
    assert (partial + full).max() == 1
    if reading.types is None:
        assert np.array_equal(full == 1, seen == BLOCK * BLOCK)
        assert np.array_equal(partial + full == 1, seen > 0)
    else:
        assert not full.any()
        assert (partial[seen > 0] == 1).all()


def assert_layouts(rows: list[np.ndarray], settings: ModelSettings) -> None:
    batch = Batch.of(rows)
    path = FlexPath.of(batch, settings)
    assert_blocks(path.summarised)
    assert_rule(path.summarised, np.arange(path.num_slots + path.num_tokens), dense_summary_rule(batch, settings, path))
    for family, reading in path.updated.items():
        assert_blocks(reading)
        assert_rule(reading, keys_of(family, path), dense_rule(batch, settings, family, path))


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("family", ALL)
def test_pairs_and_blocks_are_those_of_the_dense_rule(family: HeadFamily, name: str) -> None:
    assert_layouts(BATCHES[name], only(family))


@pytest.mark.parametrize("family", ALL)
def test_the_type_rule_hides_the_same_pairs(family: HeadFamily) -> None:
    for name in ("random", "many documents in a row", "a bar of a thousand tokens"):
        for rule in (True, "later"):
            assert_layouts(BATCHES[name], only(family, type_rule=rule))


@pytest.mark.parametrize("summaries", ["bar", "none"])
@pytest.mark.parametrize("family", ["ensemble", "union", "track"])
def test_summaries_can_be_of_their_bar_only_or_left_out(family: HeadFamily, summaries: str) -> None:
    for name in ("random", "many documents in a row", "bars of one token"):
        assert_layouts(BATCHES[name], only(family, summaries=summaries))


@pytest.mark.parametrize("bar_offsets", [(0,), (0, 1), (0, 3, 7), (0, 1, 2, 3, 4, 5), (0, 2, 5000)])
@pytest.mark.parametrize("family", ["ensemble", "union"])
def test_any_window_of_bars_is_exact(family: HeadFamily, bar_offsets: tuple[int, ...]) -> None:
    rows = [piece(1, [2, 0, 40, 3] * 6), random_row(6, 4)]
    assert_layouts(rows, only(family, bar_offsets=bar_offsets))


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
    st.lists(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4), min_size=1, max_size=3),
    st.sampled_from(ALL),
    st.lists(st.integers(1, 9), max_size=3),
    st.integers(0, 100),
    st.sampled_from([False, True, "later"]),
    st.sampled_from(["full", "bar", "none"]),
)
def test_any_mix_of_rows_and_windows_is_exact(
    rows: list[list[int]], family: HeadFamily, offsets: list[int], padding: int, rule: bool | str, summaries: str
) -> None:
    ids = [np.concatenate([random_row(seed, 1) for seed in seeds]) for seeds in rows]
    ids[-1] = padded(ids[-1], padding)
    bar_offsets = tuple(sorted({0, *offsets}))
    assert_layouts(ids, only(family, bar_offsets=bar_offsets, type_rule=rule, summaries=summaries))


@pytest.mark.parametrize("family", ["ensemble", "union"])
def test_hundreds_of_globals_are_seen_once_and_fill_whole_blocks(family: HeadFamily) -> None:
    rows = [piece(1, [0] * 600)]
    assert_layouts(rows, only(family))
    full = FlexPath.of(Batch.of(rows), only(family)).updated[family].full
    assert int(full.num_keys.sum()) >= 2 * (1 + 2)  # of globals, and of summaries


def test_rows_without_a_global_token_are_exact() -> None:
    rows = [piece(1, [90])[4:-1]] * 2
    assert not (Batch.of(rows).instrument == GLOBAL).any()
    for family in ("ensemble", "union"):
        assert_layouts(rows, only(family))


@hypothesis.given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), min_size=1, max_size=9), st.data())
def test_pairs_are_counted_as_they_are(bounds: list[tuple[int, int]], data: st.DataObject) -> None:
    low, high = (np.zeros((2, BLOCK * 2), dtype=np.int64) for _ in range(2))
    wanted = np.zeros((BLOCK * 2, BLOCK * 4), dtype=np.int64)
    for start, stop in bounds:
        query = data.draw(st.integers(0, BLOCK * 2 - 1))
        middle = data.draw(st.integers(min(start, stop), max(start, stop)))
        low[:, query], high[:, query] = (start, middle), (middle, stop)  # an end before its start is no stretch
        wanted[query] = 0
        for first, last in zip(low[:, query], high[:, query], strict=True):
            wanted[query, first:last] = 1
    counts = pairs_of_blocks(Stretches(low, high), BLOCK * 4)
    assert np.array_equal(counts, wanted.reshape(2, BLOCK, 4, BLOCK).sum((1, 3)))


@pytest.mark.parametrize("type_rule", [False, True])
def test_the_blocks_of_the_backward_pass_are_those_that_flex_attention_would_derive(type_rule: bool) -> None:
    path = FlexPath.of(Batch.of([piece(1, [30] * 20)]), settings_of(type_rule=type_rule))
    for reading in (path.summarised, *path.updated.values()):
        ours = reading.mask
        assert ours.full_kv_num_blocks is not None
        assert ours.full_kv_indices is not None
        wanted = BlockMask.from_kv_blocks(
            ours.kv_num_blocks, ours.kv_indices, ours.full_kv_num_blocks, ours.full_kv_indices, BLOCK_SIZE=BLOCK
        )
        assert ours.shape == wanted.shape
        for kind in ("", "full_"):
            counts, columns = (getattr(ours, f"{kind}q_{name}") for name in ("num_blocks", "indices"))
            assert counts.dtype == columns.dtype == torch.int32
            assert torch.equal(counts, getattr(wanted, f"{kind}q_num_blocks"))
            is_listed = torch.arange(columns.shape[-1]) < counts[..., None]
            assert torch.equal(columns[is_listed], getattr(wanted, f"{kind}q_indices")[is_listed])


def test_sorted_families_have_full_blocks_and_few_others() -> None:
    batch = Batch.of([piece(1, [40] * 60, num_instruments=4)])
    path = FlexPath.of(batch, settings_of(heads={"track": 2}))
    num_blocks = batch.ids.shape[1] // BLOCK
    partial, full = (
        int(blocks.num_keys.sum()) for blocks in (path.updated["track"].partial, path.updated["track"].full)
    )
    assert partial < 3 * num_blocks
    assert full > 5 * num_blocks
    assert partial + full < 0.3 * num_blocks * (num_blocks + 1) / 2


def test_batches_of_one_shape_have_layouts_of_one_shape() -> None:
    settings = settings_of(heads=dict.fromkeys(ALL, 1), dim=80, type_rule=True)
    shapes = set()
    for seed in range(20):
        rows = [random_row(seed + row, 1 + seed % 7) for row in range(2)]
        path = FlexPath.of(Batch.of(rows, length=1200), settings)
        readings = (path.summarised, *path.updated.values())
        tensors = [path.globals, *(each for reading in readings for each in reading.mask.as_tuple()[2:10])]
        tensors += [each for reading in readings for each in (reading.low, reading.high, *(reading.types or ()))]
        shapes.add(tuple((tuple(each.shape), each.dtype) for each in tensors))
    assert len(shapes) == 1


def test_slots_suffice_and_are_whole_blocks() -> None:
    for count, num_tokens in ((0, 1), (1, 1), (128, 300), (129, 300), (5000, 4096), (512, 4096), (513, 4096)):
        slots = padded_slots(count, num_tokens)
        assert slots >= count
        assert slots % BLOCK == 0
    assert padded_slots(0, 4096) == padded_slots(512, 4096) == 512
    assert [padded_tokens(count) for count in (1, 128, 129)] == [128, 128, 256]


def test_a_layout_can_be_made_in_another_process() -> None:
    path = FlexPath.of(Batch.of([random_row(1)]), settings_of(type_rule=True))
    before = [path.summarised.mask.kv_indices, path.updated["track"].mask.kv_indices]
    sent = pickle.loads(pickle.dumps(path))
    assert torch.equal(sent.summarised.mask.kv_indices, before[0])
    assert torch.equal(sent.updated["track"].mask.kv_indices, before[1])
    assert np.array_equal(pairs(sent.updated["track"]), pairs(path.updated["track"]))


def test_a_layout_needs_no_memory_for_all_pairs() -> None:
    batch = Batch.of([np.concatenate([piece(seed, [16] * 12) for seed in range(24)])])
    num_tokens = batch.ids.shape[1]
    assert num_tokens > 16_000
    tracemalloc.start()
    path = FlexPath.of(batch, settings_of(heads=dict.fromkeys(ALL, 1), dim=80))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(path.updated) == len(ALL)
    assert most < num_tokens**2 / 20

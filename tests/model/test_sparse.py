"""The sparse path against the dense reference: outputs, gradients, memory, and what it refuses."""

from __future__ import annotations

import pickle
from collections import Counter

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from meloformer.errors import SettingsError
from meloformer.model.batch import Batch
from meloformer.model.dense import LONGEST, DensePath
from meloformer.model.layout import DENSE_UP_TO, Layout
from meloformer.model.meloformer import MeloFormer
from meloformer.model.sparse import SparsePath
from meloformer.model.tiled import head_runs
from meloformer.model.tiling import cut
from meloformer.settings import HeadFamily
from tests.model.paths import (
    ALL_FAMILIES,
    BATCHES,
    FAMILIES,
    PRECISION,
    assert_same,
    padded,
    piece,
    random_row,
    sparse_settings,
)


@pytest.mark.parametrize("name", BATCHES)
def test_outputs_and_gradients_are_those_of_the_reference(name: str) -> None:
    assert_same(BATCHES[name], sparse_settings())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("others", [True, False])
def test_every_family_is_exact_alone_and_any_can_be_left_out(family: HeadFamily, others: bool) -> None:
    heads = {each: 1 for each in FAMILIES if (each == family) != others}
    assert_same(BATCHES["random"], sparse_settings(heads=heads, dim=8 * len(heads)))


@pytest.mark.parametrize("bar_offsets", [(0,), (0, 1), (0, 3, 7), (0, 1, 2, 3, 4, 5), (0, 2, 5000)])
def test_any_window_of_bars_is_exact(bar_offsets: tuple[int, ...]) -> None:
    rows = [piece(1, [2, 0, 40, 3] * 6), random_row(6, 4)]
    assert_same(rows, sparse_settings(heads={"ensemble": 2}, dim=16, bar_offsets=bar_offsets))


@pytest.mark.parametrize("summaries", ["bar", "none"])
def test_summaries_can_be_of_their_bar_only_or_left_out(summaries: str) -> None:
    for name in ("random", "bars of one token", "rows of different pieces, one mostly padding"):
        assert_same(BATCHES[name], sparse_settings(summaries=summaries))


@pytest.mark.parametrize("head_dim", [32, 64])
@pytest.mark.parametrize(
    ("heads", "num_kv_heads"),
    [(ALL_FAMILIES, 2), ({"track": 3, "ensemble": 3, "onset": 2}, 4), ({"ensemble": 5, "pitch": 1}, 2)],
)
def test_shared_keys_are_exact(heads: dict[str, int], num_kv_heads: int, head_dim: int) -> None:
    dim = head_dim * sum(heads.values())
    assert_same(BATCHES["random"], sparse_settings(heads=heads, num_kv_heads=num_kv_heads, dim=dim))


@pytest.mark.parametrize("dtype", PRECISION)
def test_half_precision_is_exact_to_its_precision(dtype: torch.dtype) -> None:
    assert_same([piece(1, [30] * 8), random_row(7)], sparse_settings(dim=128, num_kv_heads=2), dtype)


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(
    st.lists(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4), min_size=1, max_size=3),
    st.lists(st.sampled_from(FAMILIES), min_size=4, max_size=4).map(Counter),
    st.sampled_from([1, 2, 4]),
    st.lists(st.integers(1, 9), max_size=3),
    st.integers(0, 100),
    st.sampled_from(["full", "bar", "none"]),
)
def test_any_mix_of_rows_and_settings_is_exact(
    rows: list[list[int]],
    heads: Counter[HeadFamily],
    num_kv_heads: int,
    offsets: list[int],
    padding: int,
    summaries: str,
) -> None:
    ids = [np.concatenate([random_row(seed, 1) for seed in seeds]) for seeds in rows]
    ids[0] = padded(ids[0], padding)
    masks = {"heads": dict(heads), "bar_offsets": tuple(sorted({0, *offsets})), "summaries": summaries}
    assert_same(ids, sparse_settings(num_kv_heads=num_kv_heads, **masks))


@hypothesis.given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 25), st.integers(0, 9))
def test_blocks_cover_all_places_once_and_cut_no_unit_that_fits(lengths: list[int], size: int, first: int) -> None:
    starts = first + np.cumsum([0, *lengths[:-1]])
    stop = first + sum(lengths)
    blocks = list(cut(starts, stop, size))
    assert [place for low, high in blocks for place in range(low, high)] == list(range(first, stop))
    assert all(high - low <= size for low, high in blocks)
    for start, length in zip(starts.tolist(), lengths, strict=True):
        assert length > size or not any(start < low < start + length for low, _ in blocks)


@hypothesis.given(st.integers(0, 20), st.integers(1, 20), st.integers(1, 8))
def test_runs_of_heads_share_keys_evenly(first: int, count: int, heads_per_key: int) -> None:
    path = SparsePath.of(Batch.of([random_row(1)]), sparse_settings())
    runs = head_runs(first, count, heads_per_key, path.summarised)
    assert len(runs) <= 3
    heads = [head for run in runs for head in range(run.query.start, run.query.stop)]
    assert heads == list(range(first, first + count))
    for run in runs:
        keys = run.key.stop - run.key.start
        per_key, left = divmod(run.query.stop - run.query.start, keys)
        assert left == 0
        for at, head in enumerate(range(run.query.start, run.query.stop)):
            assert head // heads_per_key == run.key.start + at // per_key


def test_recomputed_layers_have_the_same_gradients() -> None:
    torch.manual_seed(0)
    settings = sparse_settings(dim=64)
    batch, layer = Batch.of([random_row(1)]), MeloFormer(settings).layers[0]
    layout = Layout.of(batch, settings)
    regular = torch.randn(*batch.ids.shape, 64, requires_grad=True)
    summary = torch.randn(*batch.bar_document.shape, 64, requires_grad=True)
    kept = torch.autograd.grad(layer(regular, summary, layout)[0].square().sum(), [regular, summary])
    again = checkpoint(layer, regular, summary, layout, use_reentrant=False)
    recomputed = torch.autograd.grad(again[0].square().sum(), [regular, summary])  # pyright: ignore[reportOptionalSubscript]
    assert all(torch.equal(one, other) for one, other in zip(kept, recomputed, strict=True))


def test_a_layout_can_be_made_in_another_process() -> None:
    batch, settings = Batch.of([random_row(1), random_row(2)]), sparse_settings()
    model = MeloFormer(settings)
    sent = pickle.loads(pickle.dumps(Layout.of(batch, settings)))
    assert torch.equal(model(batch, sent), model(batch))


def test_a_model_has_the_same_logits_on_both_paths() -> None:
    torch.manual_seed(0)
    batch = Batch.of([random_row(1), random_row(2)])
    model = MeloFormer(sparse_settings(num_layers=3)).eval()
    sparse, dense = (model(batch, Layout.of(batch, sparse_settings(attention=path))) for path in ("sparse", "dense"))
    torch.testing.assert_close(sparse, dense, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("summaries", ["bar", "none"])
def test_a_model_without_all_its_summaries_has_the_same_logits_on_both_paths(summaries: str) -> None:
    torch.manual_seed(0)
    batch = Batch.of([random_row(1), random_row(2)])
    model = MeloFormer(sparse_settings(num_layers=3, summaries=summaries)).eval()
    paths = (Layout.of(batch, sparse_settings(attention=path, summaries=summaries)) for path in ("sparse", "dense"))
    sparse, dense = (model(batch, layout) for layout in paths)
    torch.testing.assert_close(sparse, dense, rtol=1e-5, atol=1e-5)


def test_the_detour_through_fp32_changes_precision_and_no_dtype() -> None:
    torch.manual_seed(0)
    batch = Batch.of([random_row(1)])
    for path in ("sparse", "dense"):
        model = MeloFormer(sparse_settings(num_layers=2, dim=128, attention=path, attention_dtype="fp32")).eval()
        full = model(batch)
        half = model.bfloat16()(batch)
        half.float().square().mean().backward()
        assert half.dtype == torch.bfloat16
        torch.testing.assert_close(half.float(), full, rtol=0.05, atol=0.05)


def test_auto_is_dense_where_rows_are_short_or_the_rules_have_no_sparse_form() -> None:
    short, long = (Batch.of([padded(random_row(1, 1), 0)], length=n) for n in (DENSE_UP_TO, DENSE_UP_TO + 1))
    auto = sparse_settings(attention="auto")
    assert isinstance(Layout.of(short, auto).path, DensePath)
    assert isinstance(Layout.of(long, auto).path, SparsePath)
    for changes in ({"heads": {"union": 4}}, {"type_rule": True}):
        assert isinstance(Layout.of(long, sparse_settings(attention="auto", **changes)).path, DensePath)


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(SettingsError, match="no sparse form"):
        Layout.of(Batch.of([random_row(1)]), sparse_settings(heads={"union": 4}))
    with pytest.raises(ValueError, match="no sparse form"):
        SparsePath.of(Batch.of([random_row(1)]), sparse_settings(type_rule=True))
    too_long = Batch.of([random_row(1)], length=LONGEST + 1)
    for changes in ({"attention": "dense"}, {"attention": "auto", "type_rule": True}):
        with pytest.raises(SettingsError, match=f"rows of {LONGEST + 1} tokens are too long"):
            Layout.of(too_long, sparse_settings(**changes))

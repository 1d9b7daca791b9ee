"""What is told of how sparse attention is, counted again from the masks themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.plain import attention_alone, documents_of, plain_attention
from benchmarks.sparsity import SIDE, blocks_touched, pairs
from meloformer.model.batch import Batch
from meloformer.model.layout import Layout
from meloformer.model.visibility import finished_mask, own_bar_mask, regular_masks, summary_mask
from meloformer.settings import ModelSettings
from tests.model.paths import padded, piece

SETTINGS = ModelSettings.of_size("tiny", attention="sparse", heads={"track": 1, "ensemble": 2, "onset": 1})


@pytest.fixture
def batch() -> Batch:
    return Batch.of([padded(np.concatenate([piece(1, [9] * 8), piece(2, [3, 0, 12])]), 40)])


def test_visible_pairs_are_those_of_the_masks(batch: Batch) -> None:
    real = batch.document[0] >= 0
    masks = regular_masks(batch, SETTINGS)
    seen = sum(SETTINGS.heads[family] * int(mask[0][real].sum()) for family, mask in masks.items())
    seen += SETTINGS.heads["ensemble"] * int(finished_mask(batch)[0][real].sum())
    bars = batch.bar_document[0] >= 0
    seen += SETTINGS.num_heads * sum(int(mask(batch)[0][bars].sum()) for mask in (summary_mask, own_bar_mask))
    length = batch.ids.shape[1]
    visible, computed = pairs(batch, SETTINGS, Layout.of(batch, SETTINGS))
    of_padding = int((~real).sum()) * SETTINGS.num_heads  # PAD sees itself
    found = visible * SETTINGS.num_heads * length * (length + 1) / 2
    assert seen <= found <= seen + of_padding + SETTINGS.num_heads * int((~bars).sum())
    assert computed >= visible


def test_touched_blocks_as_written_are_those_with_a_pair_that_the_masks_show(batch: Batch) -> None:
    length = batch.ids.shape[1]
    side = -(-length // SIDE)
    touched = 0
    real = batch.document[0] >= 0
    for family, mask in regular_masks(batch, SETTINGS).items():
        whole = torch.zeros(side * SIDE, side * SIDE, dtype=torch.bool)
        whole[:length, :length] = mask[0] & real & real[:, None]
        blocks = whole.view(side, SIDE, side, SIDE).any(3).any(1)
        touched += SETTINGS.heads[family] * int(blocks.sum())
    share = touched / SETTINGS.num_heads / (side * (side + 1) / 2)
    assert blocks_touched(batch, SETTINGS, is_sorted=False) == pytest.approx(share, abs=0.02)
    assert blocks_touched(batch, SETTINGS, is_sorted=True) <= blocks_touched(batch, SETTINGS, is_sorted=False)


def test_documents_cover_every_row_once(batch: Batch) -> None:
    found = documents_of(batch)
    assert len(found) == 3  # two pieces and padding
    assert [start for _, start, _ in found[1:]] == [stop for _, _, stop in found[:-1]]
    for row, start, stop in found:
        assert len(set(batch.document[row, start:stop].tolist())) == 1


def test_all_contestants_of_attention_run_forward_and_backward(batch: Batch) -> None:
    tasks = attention_alone(batch, SETTINGS, Layout.of(batch, SETTINGS), torch.float32)
    assert list(tasks) == ["plain", "by document", "ours"]
    for task in tasks.values():
        task()


def test_plain_attention_is_causal() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 6, heads, 8) for heads in (4, 2, 2))
    before = plain_attention(query, key, value)
    key[:, 4:], value[:, 4:] = 0, 0
    after = plain_attention(query, key, value)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])

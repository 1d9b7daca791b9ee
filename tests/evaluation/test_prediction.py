"""Losses by distance: every target in its place, whatever else its row holds."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from meloformer.evaluation.prediction import bar_bounds, measure_prediction, read_before, token_bounds
from meloformer.model.batch import Batch
from meloformer.model.meloformer import MeloFormer
from meloformer.settings import ModelSettings
from meloformer.shards.packing import cut_document
from meloformer.tokens.vocabulary import PAD, Vocabulary
from meloformer.training.loss import evaluate, unigram_baseline, unigram_nats
from tests.model.paths import piece, random_row

VOCABULARY = Vocabulary.default()


class Knows(nn.Module):
    """Gives the right token a logit of its row index, and all others 0: what it loses tells where it was asked."""

    def forward(self, batch: Batch) -> Tensor:
        logits = torch.zeros(*batch.ids.shape, len(VOCABULARY))
        at = torch.arange(batch.ids.shape[1] - 1, dtype=torch.float32) / 100
        logits[:, :-1].scatter_(2, batch.ids[:, 1:, None], at.expand_as(batch.ids[:, 1:])[..., None].clone())
        return logits


def test_what_was_read_before_is_counted_inside_a_document() -> None:
    first, second = piece(1, [1, 2]), piece(2, [0, 0, 1])
    batch = Batch.of([np.concatenate([first, second, [PAD, PAD]])])
    tokens, bars = (column[0] for column in read_before(batch))
    both = len(first) + len(second)
    assert tokens[: len(first)].tolist() == list(range(len(first)))
    assert tokens[len(first) : both].tolist() == list(range(len(second)))
    names = [VOCABULARY.names[token] for token in second]
    assert names.count("N") == 3
    expected = np.maximum(np.cumsum([name == "N" for name in names]) - 1, 0)
    assert bars[len(first) : both].tolist() == expected.tolist()


def test_a_piece_that_goes_on_in_another_row_begins_anew() -> None:
    document = piece(1, [9] * 12)
    parts = cut_document(document, 0, 128, VOCABULARY)
    rows = [
        np.concatenate([np.array(part.context, dtype=np.int64), document[part.start : part.stop]]) for part in parts
    ]
    tokens, bars = read_before(Batch.of(rows))
    assert len(rows) > 2
    assert (tokens[:, 0] == 0).all()
    assert (bars[:, 0] == 0).all()


def test_the_bins_hold_every_target_once_and_sum_to_the_whole() -> None:
    batches = [Batch.of([random_row(seed), random_row(seed + 9, 3)]) for seed in range(3)]
    nats = unigram_nats([random_row(7)], VOCABULARY)
    torch.manual_seed(0)
    model = MeloFormer(ModelSettings.of_size("tiny", num_layers=1, dim=32, ffn_dim=48)).eval()
    found = measure_prediction(model, batches, nats)
    whole, baseline = evaluate(model, batches), unigram_baseline([random_row(7)], batches, VOCABULARY)
    for total, bins in ((whole, found.by_tokens), (whole, found.by_bars)):
        np.testing.assert_array_equal(sum(one.model.num_targets for one in bins), total.num_targets)
        np.testing.assert_allclose(sum(one.model.loss_sum for one in bins), total.loss_sum, rtol=1e-6)
    np.testing.assert_allclose(found.model.loss_sum, whole.loss_sum, rtol=1e-6)
    np.testing.assert_allclose(found.unigram.loss_sum, baseline.loss_sum, rtol=1e-9)
    assert found.unigram.per_note == pytest.approx(baseline.per_note)


def test_every_target_falls_into_the_bin_of_its_own_distance() -> None:
    """The loss tells the place in the row, and the second document begins behind the first."""
    first, second = piece(1, [9] * 8), piece(2, [7] * 12)
    batch = Batch.of([np.concatenate([first, second])])
    found = measure_prediction(Knows(), [batch], np.ones(len(VOCABULARY)))
    tokens, _ = read_before(batch)
    is_target = batch.is_target[0].numpy()
    others = len(VOCABULARY) - 1
    for one in found.by_tokens:
        places = np.flatnonzero(is_target & (tokens[0] >= one.low) & (tokens[0] < one.high))
        places = places[places > 0]
        lost = np.log(np.exp((places - 1) / 100) + others) - (places - 1) / 100
        assert one.model.num_targets.sum() == len(places)
        assert one.model.loss_sum.sum() == pytest.approx(lost.sum(), rel=1e-5)
        assert one.unigram.loss_sum.sum() == len(places)
    assert found.by_tokens[-1].high > 128


def test_bins_are_powers_of_two_without_gaps() -> None:
    for bounds in (token_bounds, bar_bounds):
        edges = [bounds(number) for number in range(12)]
        assert edges[0][0] == 0
        assert all(high == low for (_, high), (low, _) in pairwise(edges))
    assert [token_bounds(number) for number in range(3)] == [(0, 64), (64, 128), (128, 256)]
    assert [bar_bounds(number) for number in range(4)] == [(0, 1), (1, 2), (2, 4), (4, 8)]

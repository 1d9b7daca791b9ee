"""The loss counts every target once and nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from meloformer.model.batch import Batch
from meloformer.tokens.vocabulary import TokenType, Vocabulary
from meloformer.training.loss import evaluate, target_losses, unigram_baseline

VOCABULARY = Vocabulary.default()


def ids_of(text: str) -> np.ndarray:
    return np.array([VOCABULARY.id_of(name) for name in text.split()], dtype=np.uint16)


PIECE = ids_of("BOS N 4/4 120 #0 T0 P60 D12 V20 P64 T12 P60 EOS")
"""All but BOS are targets: 12, of which three are notes."""
CONTINUED = ids_of("SEP 4/4 120 N #0 T0 P60 D12 V20 EOS PAD PAD")
"""SEP, its meter and tempo, and PAD are none: 7 targets, one note."""


class GivenLogits(nn.Module):
    def __init__(self, logits_BTV: Tensor) -> None:
        super().__init__()
        self.logits_BTV = logits_BTV

    def forward(self, batch: Batch) -> Tensor:
        assert batch.ids.shape == self.logits_BTV.shape[:2]
        return self.logits_BTV


def random_logits(batch: Batch) -> Tensor:
    return torch.randn(*batch.ids.shape, len(VOCABULARY), generator=torch.Generator().manual_seed(0))


def test_the_loss_of_a_target_is_minus_its_log_probability_one_position_before() -> None:
    batch = Batch.of([PIECE, CONTINUED])
    logits = random_logits(batch)
    by_hand = []
    for row, ids in enumerate((PIECE, CONTINUED)):
        for place in range(1, len(ids)):
            if bool(batch.is_target[row, place]):
                probabilities = torch.softmax(logits[row, place - 1].double(), dim=0)
                by_hand.append(-math.log(float(probabilities[int(ids[place])])))
    assert len(by_hand) == 12 + 7
    assert target_losses(logits, batch).tolist() == pytest.approx(by_hand, abs=1e-5)


def test_an_evaluation_counts_by_type_and_by_note() -> None:
    batch = Batch.of([PIECE, CONTINUED])
    evaluation = evaluate(GivenLogits(torch.zeros(*batch.ids.shape, len(VOCABULARY))), [batch])
    counts = {kind.name: int(count) for kind, count in zip(TokenType, evaluation.num_targets, strict=True) if count}
    assert counts == {
        "EOS": 2, "CHORD": 2, "METER": 1, "TEMPO": 1, "INSTRUMENT": 2, "ONSET": 3, "PITCH": 4, "DURATION": 2,
        "VELOCITY": 2,
    }  # fmt: skip
    uniform = math.log(len(VOCABULARY))
    assert evaluation.per_token == pytest.approx(uniform)
    assert evaluation.per_note == pytest.approx(uniform * 19 / 4)
    assert evaluation.by_type == pytest.approx({name.lower(): uniform for name in counts})
    assert evaluation.to_dict()["nats_per_note"] == round(evaluation.per_note, 5)


def test_an_evaluation_does_not_depend_on_how_rows_are_batched() -> None:
    both = Batch.of([PIECE, CONTINUED])
    logits = random_logits(both)
    together = evaluate(GivenLogits(logits), [both])
    sums = np.zeros(len(TokenType))
    for row, ids in enumerate((PIECE, CONTINUED)):
        sums += evaluate(GivenLogits(logits[row : row + 1, : len(ids)]), [Batch.of([ids])]).loss_sum
    assert together.loss_sum == pytest.approx(sums, abs=1e-4)


def test_an_evaluation_leaves_mode_and_gradients_alone() -> None:
    batch = Batch.of([PIECE])
    model = GivenLogits(random_logits(batch).requires_grad_())
    model.train()
    evaluate(model, [batch])
    assert model.training
    assert model.logits_BTV.grad is None


def test_the_unigram_baseline_is_add_one_smoothed_and_read_on_the_same_targets() -> None:
    training = [PIECE, ids_of("BOS N 4/4 120 #0 T0 P60 D12 V20 EOS")]
    batch = Batch.of([CONTINUED])
    baseline = unigram_baseline(training, [batch], VOCABULARY)
    total = 12 + 9 + len(VOCABULARY)
    seen = {"N": 2, "#0": 2, "T0": 2, "P60": 3, "D12": 2, "V20": 2, "EOS": 2}
    by_hand = [-math.log((count + 1) / total) for count in seen.values()]
    assert baseline.loss_sum.sum() == pytest.approx(sum(by_hand))
    assert baseline.per_note == pytest.approx(sum(by_hand))  # one note
    assert baseline.by_type["pitch"] == pytest.approx(-math.log(4 / total))
    assert baseline.num_targets.tolist() == evaluate(GivenLogits(random_logits(batch)), [batch]).num_targets.tolist()

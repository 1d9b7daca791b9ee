"""How well a model predicts music: by kind of token, and by how much of the piece it has read before."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from meloformer.model.batch import NO_DOCUMENT, Batch
from meloformer.tokens.vocabulary import NUM_TOKEN_TYPES
from meloformer.training.loss import Evaluation, target_losses

MODEL, UNIGRAM = 0, 1
FIRST_TOKENS = 64
"""The first bin of tokens ends here; each later one is as long as all before it."""
MAX_BINS = 32


@dataclass(frozen=True)
class DistanceBin:
    """The targets before which a model has read so much of their piece."""

    low: int
    """At least so many tokens, or whole bars, ..."""
    high: int
    """... and fewer than so many."""
    model: Evaluation
    unigram: Evaluation

    @property
    def saved(self) -> float:
        """Share of the baseline's loss that the model does without; 0 where nothing was predicted."""
        baseline = float(self.unigram.loss_sum.sum())
        return 1 - float(self.model.loss_sum.sum()) / baseline if baseline else 0.0

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "from": self.low,
            "to": self.high,
            "notes": self.model.num_notes,
            "nats_per_token": round(self.model.per_token, 5),
            "nats_per_note": round(self.model.per_note, 5),
            "unigram_nats_per_note": round(self.unigram.per_note, 5),
            "saved": round(self.saved, 5),
        }


@dataclass(frozen=True)
class Prediction:
    """Losses of a model and of the unigram baseline over the same rows, in nats."""

    model: Evaluation
    unigram: Evaluation
    by_tokens: list[DistanceBin]
    """By the tokens of the piece that stand before the target in its row."""
    by_bars: list[DistanceBin]
    """By the whole bars of the piece that do."""

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "notes": self.model.num_notes,
            "model": self.model.to_dict(),
            "unigram": self.unigram.to_dict(),
            "by_tokens": [one.to_dict() for one in self.by_tokens],
            "by_bars": [one.to_dict() for one in self.by_bars],
        }


def measure_prediction(model: torch.nn.Module, batches: Iterable[Batch], unigram_nats: np.ndarray) -> Prediction:
    """Losses over batches, without gradients; the model's mode is left as it was.

    Rows may hold several documents: what counts as read is what stands before a target in its row *of its own
    document*. A piece that was cut begins anew in every row, since the model sees no more than that.

    Args:
        model: Takes a batch and returns (B, T, V) logits.
        batches: On its device.
        unigram_nats: (V,) loss of every id under the baseline, see
            :func:`~meloformer.training.loss.unigram_nats`.
    """
    sums = np.zeros((2, 2, MAX_BINS, NUM_TOKEN_TYPES))
    counts = np.zeros((2, MAX_BINS, NUM_TOKEN_TYPES), dtype=np.int64)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for batch in batches:
            losses = target_losses(model(batch), batch).cpu().numpy()
            is_target = batch.is_target[:, 1:].cpu().numpy()
            types = batch.type[:, 1:].cpu().numpy()[is_target]
            unigram = unigram_nats[batch.ids[:, 1:].cpu().numpy()[is_target]]
            for kind, bins in enumerate(_bins(batch, is_target)):
                cells, size = bins * NUM_TOKEN_TYPES + types, counts[kind].size
                counts[kind] += np.bincount(cells, minlength=size).reshape(counts[kind].shape)
                for whose, nats in ((MODEL, losses), (UNIGRAM, unigram)):
                    summed = np.bincount(cells, weights=nats, minlength=size)
                    sums[whose, kind] += summed.reshape(counts[kind].shape)
    model.train(was_training)
    by_tokens, by_bars = (
        [
            DistanceBin(
                *bounds(number),
                model=Evaluation(sums[MODEL, kind, number], counts[kind, number]),
                unigram=Evaluation(sums[UNIGRAM, kind, number], counts[kind, number]),
            )
            for number in range(MAX_BINS)
            if counts[kind, number].any()
        ]
        for kind, bounds in enumerate((token_bounds, bar_bounds))
    )
    total = [Evaluation(sums[whose, 0].sum(axis=0), counts[0].sum(axis=0)) for whose in (MODEL, UNIGRAM)]
    return Prediction(total[MODEL], total[UNIGRAM], by_tokens, by_bars)


def token_bounds(number: int) -> tuple[int, int]:
    """The tokens of bin 0, 1, 2, ...: 0-63, 64-127, 128-255, ..."""
    return (FIRST_TOKENS << number) // 2 if number else 0, FIRST_TOKENS << number


def bar_bounds(number: int) -> tuple[int, int]:
    """The bars of bin 0, 1, 2, ...: 0, 1, 2-3, 4-7, ..."""
    return (1 << number) // 2, 1 << number


def _bins(batch: Batch, is_target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) bin of every target of all rows, by tokens and by bars."""
    tokens, bars = read_before(batch)
    by_tokens = np.ceil(np.log2((tokens[:, 1:][is_target] + 1) / FIRST_TOKENS)).astype(np.int64)
    by_bars = np.ceil(np.log2(bars[:, 1:][is_target] + 1)).astype(np.int64)
    return np.maximum(by_tokens, 0), by_bars


def read_before(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """(B, T) how many tokens, and how many finished bars, of its document stand before each token in its row.

    A CHORD ends the bar before it, which is therefore finished where the CHORD stands as a token, not yet where it
    is predicted; it counts as finished here, as for all tokens of the bar that the CHORD opens.
    """
    document = batch.document.cpu().numpy()
    place = np.broadcast_to(np.arange(document.shape[1]), document.shape)
    opens = np.diff(document, axis=1, prepend=NO_DOCUMENT - 1) != 0
    first = np.maximum.accumulate(np.where(opens, place, 0), axis=1)
    return place - first, batch.bar_of_document.cpu().numpy()

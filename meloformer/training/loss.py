"""What is minimised, how it is reported, and the baseline it has to beat."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from meloformer.model.batch import Batch
from meloformer.tokens.vocabulary import NUM_TOKEN_TYPES, TokenType, Vocabulary


def target_losses(logits_BTV: Tensor, batch: Batch) -> Tensor:
    """Loss of every target, in nats.

    Args:
        logits_BTV: (B, T, V); those at position t predict token t + 1.
        batch: The batch that they were made from.
    Returns:
        (N,) float32, the targets of all rows one after another.
    """
    is_target = batch.is_target[:, 1:]
    return cross_entropy(logits_BTV[:, :-1][is_target].float(), batch.ids[:, 1:][is_target], reduction="none")


@dataclass(frozen=True)
class Evaluation:
    """Loss over some rows, in nats."""

    loss_sum: np.ndarray
    """(14,) summed over the targets of each ``TokenType``."""
    num_targets: np.ndarray
    """(14,) how many there are."""

    @property
    def per_token(self) -> float:
        """Mean over all targets."""
        return float(self.loss_sum.sum() / max(self.num_targets.sum(), 1))

    @property
    def num_notes(self) -> int:
        """Notes among the targets; every note has one pitch."""
        return int(self.num_targets[TokenType.PITCH])

    @property
    def per_note(self) -> float:
        """All losses by the number of notes: comparable between token languages."""
        return float(self.loss_sum.sum() / max(self.num_notes, 1))

    @property
    def by_type(self) -> dict[str, float]:
        """Mean over the targets of each type that occurs."""
        return {
            kind.name.lower(): float(self.loss_sum[kind] / self.num_targets[kind])
            for kind in TokenType
            if self.num_targets[kind]
        }

    def to_dict(self) -> dict[str, object]:
        """For ``metrics.jsonl`` and ``--json``."""
        by_type = {name: round(value, 5) for name, value in self.by_type.items()}
        return {
            "nats_per_token": round(self.per_token, 5),
            "nats_per_note": round(self.per_note, 5),
            "by_type": by_type,
        }


def evaluate(model: torch.nn.Module, batches: Iterable[Batch]) -> Evaluation:
    """Loss of a model over batches, without gradients; the model's mode is left as it was."""
    loss_sum, num_targets = np.zeros(NUM_TOKEN_TYPES), np.zeros(NUM_TOKEN_TYPES, dtype=np.int64)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for batch in batches:
            losses = target_losses(model(batch), batch).cpu().numpy()
            types = batch.type[:, 1:][batch.is_target[:, 1:]].cpu().numpy()
            loss_sum += np.bincount(types, weights=losses, minlength=NUM_TOKEN_TYPES)
            num_targets += np.bincount(types, minlength=NUM_TOKEN_TYPES)
    model.train(was_training)
    return Evaluation(loss_sum, num_targets)


def unigram_nats(training_documents: Iterable[np.ndarray], vocabulary: Vocabulary) -> np.ndarray:
    """(V,) nats that guessing by frequency in the training split costs for every id (add-one smoothed).

    Args:
        training_documents: (T,) ids each, from BOS to EOS; BOS is never guessed.
        vocabulary: Of the ids.
    """
    counts = np.ones(len(vocabulary))
    for ids in training_documents:
        counts += np.bincount(ids[1:], minlength=len(vocabulary))
    return -np.log(counts / counts.sum())


def unigram_baseline(
    training_documents: Iterable[np.ndarray], batches: Iterable[Batch], vocabulary: Vocabulary
) -> Evaluation:
    """Loss of always guessing by how often each token occurs in the training split (add-one smoothed).

    Args:
        training_documents: (T,) ids each, from BOS to EOS.
        batches: The rows that the model is evaluated on.
        vocabulary: Of all of them.
    """
    nats = unigram_nats(training_documents, vocabulary)
    loss_sum, num_targets = np.zeros(NUM_TOKEN_TYPES), np.zeros(NUM_TOKEN_TYPES, dtype=np.int64)
    for batch in batches:
        targets = batch.ids[:, 1:][batch.is_target[:, 1:]].cpu().numpy()
        types = vocabulary.types[targets]
        loss_sum += np.bincount(types, weights=nats[targets], minlength=NUM_TOKEN_TYPES)
        num_targets += np.bincount(types, minlength=NUM_TOKEN_TYPES)
    return Evaluation(loss_sum, num_targets)

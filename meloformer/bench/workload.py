"""A model, its optimisers and a batch of music: what a training step needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from meloformer.bench.music import practice_piece
from meloformer.errors import ShardError
from meloformer.model.batch import Batch
from meloformer.model.meloformer import MeloFormer
from meloformer.settings import Settings
from meloformer.shards.batches import BatchLoader
from meloformer.shards.store import open_shards
from meloformer.tokens.encode import encode
from meloformer.tokens.vocabulary import Vocabulary
from meloformer.training.loading import Pass
from meloformer.training.optimizer import make_optimizers
from meloformer.training.step import Precision, StepOutcome, default_precision, train_step


class Workload:
    """The same step again and again.

    Args:
        settings: ``model``; ``bench`` for shape and seed; ``training`` for optimiser and precision.
        shards: The music; ``None`` for music made by rule.
        device: Where everything goes.
    Raises:
        InputError, ShardError: The shards cannot be used, or are too few for one batch.
    """

    def __init__(self, settings: Settings, shards: Path | None, device: torch.device) -> None:
        chosen = settings.bench
        self._training = settings.training
        torch.manual_seed(chosen.seed)
        rows, vocabulary = made_up_rows(settings) if shards is None else _from_shards(shards, settings)
        self.batch = Batch.of(rows, vocabulary, device=device)
        with torch.device(device):
            self.model = MeloFormer(settings.model, vocabulary)
        self.optimizers = make_optimizers(self.model, settings.training)
        self.precision = Precision.of(settings.training.precision or default_precision(device), device)

    def step(self) -> StepOutcome:
        """Forward, backward, clip, update."""
        return train_step(
            self.model,
            self.optimizers,
            [Pass(self.batch)],
            learning_rate=self._training.learning_rate,
            clip_norm=self._training.clip_norm,
            precision=self.precision,
        )

    @property
    def weights_bytes(self) -> int:
        """Of all weights; their gradients take the same."""
        return sum(parameter.numel() * parameter.element_size() for parameter in self.model.parameters())

    @property
    def optimizer_bytes(self) -> int:
        """Of what the optimisers remember; 0 before the first step."""
        return sum(
            value.numel() * value.element_size()
            for optimizer in self.optimizers.values()
            for values in optimizer.state.values()
            for value in values.values()
            if isinstance(value, torch.Tensor)
        )


def made_up_rows(settings: Settings) -> tuple[list[np.ndarray], Vocabulary]:
    """Rows cut from pieces that are long enough."""
    chosen = settings.bench
    rows = []
    for row in range(chosen.batch_size):
        bars, ids = 16, np.zeros(0, dtype=np.uint16)
        while len(ids) < chosen.seq_len:
            ids = encode(practice_piece(chosen.seed + row, num_bars=bars))
            bars *= 2
        rows.append(ids[: chosen.seq_len])
    return rows, Vocabulary.default()


def _from_shards(shards: Path, settings: Settings) -> tuple[list[np.ndarray], Vocabulary]:
    """The first batch of the first epoch."""
    chosen, folder = settings.bench, open_shards(shards)
    loader = BatchLoader(
        folder.split("train"),
        folder.vocabulary,
        seq_len=chosen.seq_len,
        batch_size=chosen.batch_size,
        seed=chosen.seed,
    )
    rows = next(loader.batches(epoch=0), np.zeros((0, 0), dtype=np.int64))
    if len(rows) < chosen.batch_size:
        raise ShardError(
            f"{shards} has {len(rows)} rows of {chosen.seq_len} tokens to train on, {chosen.batch_size} are wanted",
            "choose a smaller --batch-size or --seq-len",
        )
    return list(rows), folder.vocabulary

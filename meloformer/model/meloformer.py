"""The transformer: two streams, regular tokens and one summary a bar."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from meloformer.errors import VocabularyError
from meloformer.model.batch import Batch
from meloformer.model.blocks import Block
from meloformer.model.layout import Layout
from meloformer.model.norm import RMSNorm
from meloformer.settings import ModelSettings
from meloformer.tokens.attributes import NUM_INSTRUMENTS
from meloformer.tokens.vocabulary import Vocabulary

INIT_STD = 0.02
"""Of all weights; what writes into a residual stream is divided by the square root of how many do (GPT-2)."""


class MeloFormer(nn.Module):
    """Fresh weights of one size.

    Args:
        settings: Shapes and rules.
        vocabulary: Of the ids that the model reads and writes.
    """

    def __init__(self, settings: ModelSettings, vocabulary: Vocabulary | None = None) -> None:
        super().__init__()
        self.settings = settings
        self.vocabulary = vocabulary or Vocabulary.default()
        self.seq_len: int | None = None
        """Tokens in the rows that it was trained on, as far as that is known: distances beyond it are new to it."""
        self.token_embedding = nn.Embedding(len(self.vocabulary), settings.dim)
        self.instrument_embedding = nn.Embedding(NUM_INSTRUMENTS, settings.dim)
        has_summaries = settings.has_summaries
        if has_summaries:
            self.summary_embedding = nn.Parameter(torch.empty(settings.dim))
        last = settings.num_layers - 1
        self.layers = nn.ModuleList(
            Block(settings, summary_goes_on=has_summaries and index < last) for index in range(settings.num_layers)
        )
        self.norm = RMSNorm(settings.dim)
        self._initialise()

    def _initialise(self) -> None:
        residual_std = INIT_STD / math.sqrt(2 * self.settings.num_layers)
        for name, parameter in self.named_parameters():
            if parameter.dim() >= 2 or name == "summary_embedding":
                writes_residual = name.endswith(("_out.weight", "down.weight"))
                nn.init.normal_(parameter, std=residual_std if writes_residual else INIT_STD)

    def forward(self, batch: Batch, layout: Layout | None = None) -> Tensor:
        """Predict.

        Args:
            batch: B rows of T tokens, on the model's device.
            layout: Of the batch, where it was made before.
        Returns:
            (B, T, vocabulary size) logits; those at position t predict token t + 1.
        Raises:
            VocabularyError: The batch was made with another vocabulary.
        """
        if batch.vocabulary_sha256 != self.vocabulary.sha256:
            raise VocabularyError(
                f"the batch has vocabulary {batch.vocabulary_sha256}, the model {self.vocabulary.sha256}",
                "make it with Batch.of(rows, model.vocabulary)",
            )
        layout = layout or Layout.of(batch, self.settings, self.token_embedding.weight.dtype)
        regular = self.token_embedding(batch.ids) + self.instrument_embedding(batch.instrument)
        summary = regular[:, :0]
        if self.settings.has_summaries:
            summary = self.summary_embedding.expand(*batch.bar_document.shape, -1)
        for layer in self.layers:
            regular, summary = layer(regular, summary, layout)
        return linear(self.norm(regular), self.token_embedding.weight)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.token_embedding.weight.device

    def parameter_counts(self) -> dict[str, int]:
        """True number of weights, by part and ``total``; the embedding serves input and output."""
        counts = {"embeddings": 0, "regular stream": 0, "summary stream": 0}
        for name, parameter in self.named_parameters():
            if "embedding" in name:
                part = "embeddings"
            else:
                part = "summary stream" if "summary" in name or "second" in name else "regular stream"
            counts[part] += parameter.numel()
        return {**counts, "total": sum(counts.values())}

"""The transformer that everybody has, with the same inputs: what MeloFormer is compared with."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from meloformer.model.batch import Batch
from meloformer.model.ffn import SwiGLU
from meloformer.model.layout import Layout
from meloformer.model.meloformer import INIT_STD
from meloformer.model.norm import RMSNorm
from meloformer.model.rope import Rotation, rotate, rotation
from meloformer.settings import ModelSettings
from meloformer.tokens.attributes import NUM_INSTRUMENTS
from meloformer.tokens.vocabulary import Vocabulary

Documents = list[list[int]]
"""For every row the lengths of the stretches of one document that it consists of, padding included."""


class PlainBlock(nn.Module):
    """A layer as everybody has it: causal attention with rotary positions, then SwiGLU, each behind an RMSNorm."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.head_dim = settings.head_dim
        self.norms = nn.ModuleList(RMSNorm(settings.dim) for _ in range(2))
        kv_dim = settings.num_kv_heads * settings.head_dim
        self.query = nn.Linear(settings.dim, settings.dim, bias=False)
        self.key = nn.Linear(settings.dim, kv_dim, bias=False)
        self.value = nn.Linear(settings.dim, kv_dim, bias=False)
        self.out = nn.Linear(settings.dim, settings.dim, bias=False)
        self.ffn = SwiGLU(settings.dim, settings.ffn_dim)

    def forward(self, x_BTD: Tensor, by: Rotation, documents: Documents | None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        normed = self.norms[0](x_BTD)
        query, key, value = (
            project(normed).unflatten(-1, (-1, self.head_dim)) for project in (self.query, self.key, self.value)
        )
        heads = rotate(query, by), rotate(key, by), value
        attended = plain_attention(*heads) if documents is None else attention_apart(*heads, documents)
        x_BTD = x_BTD + self.out(attended.flatten(2))
        return x_BTD + self.ffn(self.norms[1](x_BTD))


class PlainTransformer(nn.Module):
    """The baseline: width, depth, heads, inputs and first weights as MeloFormer's regular stream has them.

    Args:
        settings: Of the model that it is compared with.
        vocabulary: Of the ids.
        apart: Keep the documents of a row from seeing each other, as MeloFormer does. Without it a row is one call of
            the fastest kernel there is.
    """

    def __init__(self, settings: ModelSettings, vocabulary: Vocabulary, *, apart: bool = False) -> None:
        super().__init__()
        self.settings = settings
        self.vocabulary = vocabulary
        self.apart = apart
        self.embedding = nn.Embedding(len(vocabulary), settings.dim)
        self.instrument_embedding = nn.Embedding(NUM_INSTRUMENTS, settings.dim)
        self.layers = nn.ModuleList(PlainBlock(settings) for _ in range(settings.num_layers))
        self.norm = RMSNorm(settings.dim)
        for name, parameter in self.named_parameters():
            if parameter.dim() >= 2:
                writes_residual = name.endswith(("out.weight", "down.weight"))
                share = math.sqrt(2 * settings.num_layers) if writes_residual else 1
                nn.init.normal_(parameter, std=INIT_STD / share)

    def forward(self, batch: Batch, layout: Layout | None = None) -> Tensor:
        """(B, T, vocabulary size) logits; the rotation of a layout that was made before is taken from there."""
        documents = documents_of(batch) if self.apart else None
        by = self._rotation(batch) if layout is None else layout.regular
        x = self.embedding(batch.ids) + self.instrument_embedding(batch.instrument)
        for layer in self.layers:
            x = layer(x, by, documents)
        return linear(self.norm(x), self.embedding.weight)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.weight.device

    def _rotation(self, batch: Batch) -> Rotation:
        position = torch.arange(batch.ids.shape[1], device=batch.ids.device).expand_as(batch.ids)
        return rotation(position, batch.time, self.settings.head_dim, self.settings.rope)


def plain_attention(query_BTHE: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(B, T, H, E)."""
    query, key, value = (each.transpose(1, 2) for each in (query_BTHE, key, value))
    return scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True).transpose(1, 2)


def attention_apart(query_BTHE: Tensor, key: Tensor, value: Tensor, documents: Documents) -> Tensor:
    """(B, T, H, E), every document by itself: exact, and without a mask."""
    rows: list[Tensor] = []
    for row, lengths in enumerate(documents):
        parts = (each[row : row + 1].split(lengths, dim=1) for each in (query_BTHE, key, value))
        rows.append(torch.cat([plain_attention(*part) for part in zip(*parts, strict=True)], dim=1))
    return torch.cat(rows)


def documents_of(batch: Batch) -> Documents:
    """The stretches of every row."""
    return [torch.unique_consecutive(row, return_counts=True)[1].tolist() for row in batch.document.cpu()]

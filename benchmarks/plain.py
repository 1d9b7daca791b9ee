"""The transformer that everybody has: what MeloFormer is compared with."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from meloformer.model.batch import Batch
from meloformer.model.ffn import SwiGLU
from meloformer.model.layout import Layout
from meloformer.model.norm import RMSNorm
from meloformer.model.rope import Rotation, rotate
from meloformer.settings import ModelSettings
from meloformer.tokens.vocabulary import Vocabulary


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

    def forward(self, x_BTD: Tensor, by: Rotation) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        normed = self.norms[0](x_BTD)
        query, key, value = (
            project(normed).unflatten(-1, (-1, self.head_dim)) for project in (self.query, self.key, self.value)
        )
        x_BTD = x_BTD + self.out(plain_attention(rotate(query, by), rotate(key, by), value).flatten(2))
        return x_BTD + self.ffn(self.norms[1](x_BTD))


class PlainTransformer(nn.Module):
    """The baseline; it looks at everything before a token, other documents of the row too."""

    def __init__(self, settings: ModelSettings, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.settings = settings
        self.embedding = nn.Embedding(len(vocabulary), settings.dim)
        self.layers = nn.ModuleList(PlainBlock(settings) for _ in range(settings.num_layers))
        self.norm = RMSNorm(settings.dim)
        nn.init.normal_(self.embedding.weight, std=0.02)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.weight.device

    def forward(self, batch: Batch, layout: Layout | None = None) -> Tensor:
        """(B, T, vocabulary size) logits."""
        layout = layout or Layout.of(batch, self.settings)
        x = self.embedding(batch.ids)
        for layer in self.layers:
            x = layer(x, layout.regular)
        return linear(self.norm(x), self.embedding.weight)


def plain_attention(query_BTHE: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(B, T, H, E)."""
    query, key, value = (each.transpose(1, 2) for each in (query_BTHE, key, value))
    return scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True).transpose(1, 2)

"""The transformer that everybody has, what MeloFormer is compared with; and attention of both alone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

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


def attention_alone(
    batch: Batch, settings: ModelSettings, layout: Layout, dtype: torch.dtype
) -> dict[str, Callable[[], object]]:
    """Forward and backward of one layer's attention, projections left out.

    Returns:
        ``plain``, which looks at other documents of a row too; ``by document``, plain attention again, each document by
        itself; ``ours``, all four phases.
    """
    device, head_dim = batch.ids.device, settings.head_dim

    def of(places: Tensor, num_heads: int) -> Tensor:
        return torch.randn((*places.shape, num_heads, head_dim), dtype=dtype, device=device, requires_grad=True)

    tokens, bars, num_heads, num_kv_heads = batch.ids, batch.bar_document, settings.num_heads, settings.num_kv_heads
    query, key, value = of(tokens, num_heads), of(tokens, num_kv_heads), of(tokens, num_kv_heads)
    summaries = of(bars, num_heads), of(bars, num_kv_heads), of(bars, num_kv_heads)
    second = of(bars, num_kv_heads), of(bars, num_kv_heads)
    gradient, of_summaries = torch.randn_like(query), torch.randn_like(summaries[0])
    pieces = documents_of(batch)

    def plain() -> None:
        plain_attention(query, key, value).backward(gradient)

    def by_document() -> None:
        for row, start, stop in pieces:
            own = slice(row, row + 1), slice(start, stop)
            plain_attention(query[own], key[own], value[own]).backward(gradient[own])

    def ours() -> None:
        summarised = layout.path.summarise(*summaries, key, value)
        updated = layout.path.update(query, key, value, *second)
        torch.autograd.backward([summarised, updated], [of_summaries, gradient])

    return {"plain": plain, "by document": by_document, "ours": ours}


def documents_of(batch: Batch) -> list[tuple[int, int, int]]:
    """Row, start and stop of every document, and of what is left of a row behind the last one."""
    found: list[tuple[int, int, int]] = []
    for row, document in enumerate(batch.document.tolist()):
        starts = [place for place in range(len(document)) if place == 0 or document[place] != document[place - 1]]
        found += [(row, start, stop) for start, stop in pairwise([*starts, len(document)])]
    return found

"""The transformer that everybody has, with the same inputs: what MeloFormer is compared with; and attention of both."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from meloformer.model.batch import Batch
from meloformer.model.ffn import SwiGLU
from meloformer.model.layout import Layout
from meloformer.model.meloformer import INIT_STD, MeloFormer
from meloformer.model.norm import RMSNorm
from meloformer.model.rope import Rotation, rotate, rotation
from meloformer.settings import ModelSettings
from meloformer.tokens.attributes import NUM_INSTRUMENTS
from meloformer.tokens.vocabulary import Vocabulary

Documents = list[tuple[int, int, int]]
"""Row, start and stop of every document, and of what is left of a row behind the last one; rows in order."""


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
        self.seq_len: int | None = None
        """As in MeloFormer."""
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
        chosen = self.settings
        return rotation(position, batch.time, chosen.head_dim, chosen.rope, chosen.num_kv_heads)


SHORT_NAMES = {
    "query": "attention.regular_query",
    "key": "attention.regular_key",
    "value": "attention.regular_value",
    "out": "attention.regular_out",
    "norms.0": "regular_attention_norm",
    "norms.1": "regular_ffn_norm",
}
"""Part of a layer here -> in MeloFormer."""


def as_meloformer(plain: PlainTransformer) -> MeloFormer:
    """The same function as a MeloFormer, with the same weights: its heads see the whole document, and no summaries.

    Needs the family ``document`` of ``experiments/families.py``.
    """
    model = of_same_shape(plain)
    model.load_state_dict({name_in_meloformer(name): weight for name, weight in plain.state_dict().items()})
    model.seq_len = plain.seq_len
    return model


def of_same_shape(plain: PlainTransformer) -> MeloFormer:
    """A MeloFormer that can hold the weights, with fresh ones; see :func:`as_meloformer`."""
    heads = {"heads": {"document": plain.settings.num_heads}, "summaries": "none"}
    return MeloFormer(plain.settings.model_copy(update=heads), plain.vocabulary).to(plain.device)


def name_in_meloformer(name: str) -> str:
    """What a parameter of the plain transformer is called in MeloFormer."""
    if name == "embedding.weight":
        return "token_embedding.weight"
    for short, whole in SHORT_NAMES.items():
        name = name.replace(f".{short}.", f".{whole}.")
    return name


def plain_attention(query_BTHE: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(B, T, H, E)."""
    query, key, value = (each.transpose(1, 2) for each in (query_BTHE, key, value))
    return scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True).transpose(1, 2)


def attention_apart(query_BTHE: Tensor, key: Tensor, value: Tensor, documents: Documents) -> Tensor:
    """(B, T, H, E), every document by itself: exact, and without a mask."""
    lengths = [stop - start for _, start, stop in documents]
    parts = (each.flatten(0, 1).split(lengths) for each in (query_BTHE, key, value))
    found = [plain_attention(*(each[None] for each in part))[0] for part in zip(*parts, strict=True)]
    return torch.cat(found).view_as(query_BTHE)


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


def documents_of(batch: Batch) -> Documents:
    """Of a batch."""
    found: Documents = []
    for row, document in enumerate(batch.document.tolist()):
        starts = [place for place in range(len(document)) if place == 0 or document[place] != document[place - 1]]
        found += [(row, start, stop) for start, stop in pairwise([*starts, len(document)])]
    return found

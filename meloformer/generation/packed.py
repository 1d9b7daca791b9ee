"""The weights of a model as decoding token by token reads them.

What reads the same input is one matrix, and on a CPU matrices lie as oneDNN wants them: the products of a token of
``small`` take 1.3 ms with two rows and 1.8 ms with eight, where matrices that are merely transposed take 1.9 and 3.2,
and those of the model as they are 2.8 and 3.3 ms (one core of a busy machine). The dimensions of a query or key are
in another order, pairs of a rotation side by side, so that to rotate is to multiply by a complex number; products of
queries and keys do not change. Queries are divided by the square root of E here, once.

Shapes: D width, H heads, K key-value heads, E width of a head, F width inside a feed-forward network.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from meloformer.model.blocks import Block
from meloformer.model.ffn import SwiGLU
from meloformer.model.meloformer import MeloFormer
from meloformer.model.norm import RMSNorm
from meloformer.model.rope import frequencies
from meloformer.settings import ModelSettings


class Projection:
    """A matrix that rows are multiplied by.

    Args:
        weight: (M, N) as :class:`torch.nn.Linear` has it.
    """

    def __init__(self, weight: Tensor) -> None:
        self._is_packed = weight.device.type == "cpu" and has_packed_products()
        if self._is_packed:
            self._matrix = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _USUAL_ROWS)
        else:
            self._matrix = weight.T.contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        """(R, N) -> (R, M)."""
        if self._is_packed:
            return torch.ops.mkldnn._linear_pointwise(x, self._matrix, None, "none", [], "")
        return x @ self._matrix


_USUAL_ROWS = 4
"""Of a product, for which oneDNN chooses the layout."""


def has_packed_products() -> bool:
    """Whether PyTorch was built with oneDNN, and has the operators that its compiler uses on a CPU."""
    operators = ("_reorder_linear_weight", "_linear_pointwise")
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in operators)


def min_rows(device: torch.device) -> int:
    """Rows that a product must have at least, so that a row's result does not depend on how many others there are.

    With fewer, another kernel is taken and the last bits differ: oneDNN with one row, MKL with fewer than four.
    """
    if device.type != "cpu":
        return 1
    return 2 if has_packed_products() else 4


class Norm(NamedTuple):
    """A root-mean-square normalisation."""

    weight: Tensor
    eps: float

    def __call__(self, x_ND: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        return x_ND * x_ND.square().mean(-1, keepdim=True).add_(self.eps).rsqrt_() * self.weight


class FeedForward(NamedTuple):
    """A network with a gate, and the norm before it."""

    norm: Norm
    gate_up: Projection
    """D -> 2 F."""
    down: Projection
    """F -> D."""

    def __call__(self, x_ND: Tensor) -> Tensor:
        """(N, D) -> (N, D) to be added."""
        gate, up = self.gate_up(self.norm(x_ND)).chunk(2, dim=-1)
        return self.down(silu(gate).mul_(up))


class SummaryLayer(NamedTuple):
    """What the summary stream has in one layer."""

    norm: Norm
    query_key_value: Projection
    """D -> (H + 2 K) E."""
    second: Projection
    """H E -> 2 K E, second keys and values."""
    out: Projection | None
    """H E -> D; ``None`` in the last layer."""
    ffn: FeedForward | None


class Layer(NamedTuple):
    """One layer."""

    norm: Norm
    query_key_value: Projection
    """D -> (H + 2 K) E."""
    out: Projection
    """H E -> D."""
    ffn: FeedForward
    summary: SummaryLayer | None


class PackedModel:
    """A copy of a model's weights in fp32, in another order.

    Args:
        model: On any device.
    """

    def __init__(self, model: MeloFormer) -> None:
        self.settings = model.settings
        self.vocabulary = model.vocabulary
        self.device = model.device
        self._head_dim = model.settings.head_dim
        blocks = [block for block in model.layers if isinstance(block, Block)]
        self.layers = [_layer(block, model.settings) for block in blocks]
        self.norm = _norm(model.norm)
        self.token_embedding = model.token_embedding.weight.detach().float()
        self.instrument_embedding = model.instrument_embedding.weight.detach().float()
        has_summaries = model.settings.has_summaries
        self.summary_embedding = model.summary_embedding.detach().float()[None] if has_summaries else None
        self.to_logits = Projection(self.token_embedding)
        self._frequency = [
            self._of_all_heads(of_kv_heads)
            for of_kv_heads in frequencies(self._head_dim, self.settings.rope, self.settings.num_kv_heads, self.device)
        ]

    def _of_all_heads(self, of_kv_heads: Tensor) -> Tensor:
        """(1, E / 2) as it is; (K, E / 2) -> (H + K, E / 2), queries and then keys."""
        num_kv_heads = self.settings.num_kv_heads
        if of_kv_heads.shape[0] == 1:
            return of_kv_heads
        return torch.cat([of_kv_heads.repeat_interleave(self.settings.num_heads // num_kv_heads, dim=0), of_kv_heads])

    def rotation(self, position: list[int], time: list[int]) -> Tensor:
        """(N, 1 or H + K, E / 2) complex: by what to multiply queries and keys at these positions and times."""
        counted = torch.tensor([position, time], dtype=torch.float32, device=self.device)[:, :, None, None]
        angles = counted[0] * self._frequency[0] + counted[1] * self._frequency[1]
        return torch.complex(angles.cos(), angles.sin())

    def rotate(self, merged: Tensor, first: int, count: int, by: Tensor) -> None:
        """Rotate some heads in place.

        Args:
            merged: (N, heads * E).
            first, count: Which heads.
            by: See :meth:`rotation`; of fewer heads than it has, they are its last.
        """
        width = self._head_dim
        heads = merged[:, first * width : (first + count) * width].view(merged.shape[0], count, width // 2, 2)
        torch.view_as_complex(heads).mul_(by if by.shape[1] == 1 else by[:, -count:])


def interleaved(head_dim: int) -> Tensor:
    """(E,) where each dimension of a packed query or key stands in one of the model's."""
    return torch.arange(head_dim).view(2, -1).T.reshape(-1)


def _layer(block: Block, settings: ModelSettings) -> Layer:
    attention, width = block.attention, settings.head_dim

    def joined(*projections: nn.Module, queries: int = 0, unrotated: int = 1) -> Projection:
        """Projections side by side; the first ``queries`` are scaled, the last ``unrotated`` keep their order."""
        parts = []
        for number, projection in enumerate(projections):
            assert isinstance(projection, nn.Linear)
            weight = projection.weight.detach().float()
            if number < queries:
                weight = weight / width**0.5
            if number < len(projections) - unrotated:
                weight = weight.unflatten(0, (-1, width))[:, interleaved(width)].flatten(0, 1)
            parts.append(weight)
        return Projection(torch.cat(parts))

    ffn = _feed_forward(block.ffn, block.regular_ffn_norm)
    summary = None
    if block.summary_attention_norm is not None:
        summary = SummaryLayer(
            norm=_norm(block.summary_attention_norm),
            query_key_value=joined(attention.summary_query, attention.summary_key, attention.summary_value, queries=1),
            second=joined(attention.second_key, attention.second_value),
            out=None if attention.summary_out is None else joined(attention.summary_out),
            ffn=_summary_feed_forward(block, ffn),
        )
    return Layer(
        norm=_norm(block.regular_attention_norm),
        query_key_value=joined(attention.regular_query, attention.regular_key, attention.regular_value, queries=1),
        out=joined(attention.regular_out),
        ffn=ffn,
        summary=summary,
    )


def _summary_feed_forward(block: Block, ffn: FeedForward) -> FeedForward | None:
    """The network of the summary stream, which may be the other stream's behind a norm of its own."""
    if block.summary_ffn_norm is None:
        return None
    if block.summary_ffn is None:
        return ffn._replace(norm=_norm(block.summary_ffn_norm))
    return _feed_forward(block.summary_ffn, block.summary_ffn_norm)


def _feed_forward(ffn: SwiGLU, norm: RMSNorm) -> FeedForward:
    gate_up = torch.cat([ffn.gate.weight.detach(), ffn.up.weight.detach()]).float()
    return FeedForward(_norm(norm), Projection(gate_up), Projection(ffn.down.weight.detach().float()))


def _norm(norm: RMSNorm) -> Norm:
    return Norm(norm.weight.detach().float(), torch.finfo(torch.float32).eps if norm.eps is None else norm.eps)

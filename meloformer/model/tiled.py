"""Attention over tiles: exact, without a mask of all tokens by all tokens, on any device.

Each tile is a few matrix products. Forward keeps the logarithm of every softmax's denominator, and backward computes
the weights again from it (Dao et al., "FlashAttention", arXiv:2205.14135, appendix B). All of it is done in fp32,
whatever the dtype of queries and keys: it is a small part of a layer, and products in bf16 would round the logits.

Shapes: N queries, R keys, H heads, K key-value heads, G query heads to each of them, E width of a head.
"""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from meloformer.model.tiling import Tiling

Arrangement = TypeVar("Arrangement")
"""Of queries and keys: a tiling, or what another path has instead."""


class HeadRun(NamedTuple, Generic[Arrangement]):
    """Consecutive query heads that read consecutive key-value heads, the same number each."""

    query: slice
    key: slice
    arrangement: Arrangement


def head_runs(first: int, count: int, heads_per_key: int, arrangement: Arrangement) -> list[HeadRun[Arrangement]]:
    """Cut ``count`` query heads from ``first`` on into at most three runs, so that no key has to be copied."""
    runs: list[HeadRun[Arrangement]] = []
    head, stop = first, first + count
    while head < stop:
        key, behind = divmod(head, heads_per_key)
        if behind or stop - head < heads_per_key:
            end = min(stop, (key + 1) * heads_per_key)
        else:
            end = stop - stop % heads_per_key
        runs.append(HeadRun(slice(head, end), slice(key, -(-end // heads_per_key)), arrangement))
        head = end
    return runs


def tiled_attention(query_NHE: Tensor, key_RKE: Tensor, value_RKE: Tensor, runs: list[HeadRun[Tiling]]) -> Tensor:
    """Softmax attention of every query over the keys of its tile.

    Args:
        query_NHE: All heads of all rows.
        key_RKE, value_RKE: Of the same dtype. Where a tiling sorts, the first N of them are sorted.
        runs: Every query head is in exactly one.
    Returns:
        (N, H, E) of the same dtype.
    """
    return _TiledAttention.apply(query_NHE, key_RKE, value_RKE, runs)  # pyright: ignore[reportReturnType]


class _TiledAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, runs: list[HeadRun[Tiling]]) -> Tensor:
        out = torch.empty_like(query)
        denominators: list[Tensor] = []
        for run in runs:
            queries, keys, values = _gather(query, run), _gather_keys(key, run), _gather_keys(value, run)
            outputs, denominator = _forward(queries, keys, values, run.arrangement)
            _scatter(out, outputs, run)
            denominators.append(denominator)
        ctx.save_for_backward(query, key, value, out, *denominators)
        ctx.runs = runs
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # pyright: ignore
        query, key, value, out, *denominators = ctx.saved_tensors
        grad_query = torch.empty_like(query)
        grad_key, grad_value = (torch.zeros_like(each, dtype=torch.float32) for each in (key, value))
        for run, denominator in zip(ctx.runs, denominators, strict=True):
            queries, keys, values = _gather(query, run), _gather_keys(key, run), _gather_keys(value, run)
            outputs, grads = _gather(out, run), _gather(grad_out, run)
            shift = (outputs * grads).sum(-1, keepdim=True)
            of_queries, of_keys, of_values = _backward(
                queries, keys, values, grads, denominator, shift, run.arrangement
            )
            _scatter(grad_query, of_queries, run)
            _add_keys(grad_key, of_keys, run)
            _add_keys(grad_value, of_values, run)
        return grad_query, grad_key.to(key.dtype), grad_value.to(value.dtype), None


def _forward(queries: Tensor, keys: Tensor, values: Tensor, tiling: Tiling) -> tuple[Tensor, Tensor]:
    """(K, N, G, E) outputs and (K, N, G, 1) logarithms of the denominators."""
    outputs = torch.empty_like(queries)
    denominators = torch.empty_like(queries[..., :1])
    for tile in tiling.tiles():
        rows = slice(tile.start, tile.stop)
        weights = _logits(queries[:, rows], _columns(keys, tile.ranges), tile.hidden)
        top = weights.amax(-1, keepdim=True)
        weights.sub_(top).exp_()
        total = weights.sum(-1, keepdim=True)
        read = torch.bmm(weights.flatten(1, 2), _columns(values, tile.ranges))
        torch.div(read.view_as(outputs[:, rows]), total, out=outputs[:, rows])
        denominators[:, rows] = total.log_().add_(top)
    return outputs, denominators


def _backward(
    queries: Tensor, keys: Tensor, values: Tensor, grads: Tensor, denominators: Tensor, shift: Tensor, tiling: Tiling
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values; ``shift`` is the product of every output with its gradient."""
    of_queries = torch.empty_like(queries)
    of_keys, of_values = torch.zeros_like(keys), torch.zeros_like(values)
    for tile in tiling.tiles():
        rows = slice(tile.start, tile.stop)
        tile_keys = _columns(keys, tile.ranges)
        weights = _logits(queries[:, rows], tile_keys, tile.hidden)
        weights.sub_(denominators[:, rows]).exp_()
        flat_queries, flat_grads = queries[:, rows].flatten(1, 2), grads[:, rows].flatten(1, 2)
        _add_columns(of_values, tile.ranges, weights.flatten(1, 2), flat_grads)
        of_logits = torch.bmm(flat_grads, _columns(values, tile.ranges).transpose(1, 2)).view_as(weights)
        of_logits.sub_(shift[:, rows]).mul_(weights)
        flat = of_logits.flatten(1, 2)
        of_queries[:, rows] = torch.bmm(flat, tile_keys).view_as(queries[:, rows])
        _add_columns(of_keys, tile.ranges, flat, flat_queries)
    return of_queries.mul_(_scale(queries)), of_keys.mul_(_scale(queries)), of_values


def _logits(queries: Tensor, keys: Tensor, hidden: Tensor | None) -> Tensor:
    """(K, Q, G, E) queries and (K, C, E) keys -> (K, Q, G, C)."""
    num_keys, num_queries, per_key, _ = queries.shape
    flat = torch.bmm(queries.flatten(1, 2), keys.transpose(1, 2)).mul_(_scale(queries))
    logits = flat.view(num_keys, num_queries, per_key, -1)
    if hidden is not None:
        logits[..., -hidden.shape[1] :].masked_fill_(hidden[:, None], -torch.inf)
    return logits


def _scale(heads: Tensor) -> float:
    return heads.shape[-1] ** -0.5


def _columns(keys_KRE: Tensor, ranges: list[tuple[int, int]]) -> Tensor:
    """(K, C, E) the stretches one after another."""
    parts = [keys_KRE[:, low:high] for low, high in ranges]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _add_columns(sum_KRE: Tensor, ranges: list[tuple[int, int]], weights_KQC: Tensor, rows_KQE: Tensor) -> None:
    """Add ``weights^T @ rows`` where the columns came from."""
    at = 0
    for low, high in ranges:
        part = weights_KQC[:, :, at : at + high - low].transpose(1, 2)
        sum_KRE[:, low:high].baddbmm_(part, rows_KQE)
        at += high - low


def _gather(heads_NHE: Tensor, run: HeadRun[Tiling]) -> Tensor:
    """(K, N, G, E) the query heads of a run in the order of its tiling, in fp32."""
    own = heads_NHE[:, run.query]
    if run.arrangement.order is not None:
        own = own.index_select(0, run.arrangement.order)
    return own.unflatten(1, (run.key.stop - run.key.start, -1)).transpose(0, 1).float().contiguous()


def _gather_keys(heads_RKE: Tensor, run: HeadRun[Tiling]) -> Tensor:
    """(K, R, E) the key-value heads of a run in the order of its tiling, in fp32."""
    own = heads_RKE[:, run.key]
    if run.arrangement.order is not None:
        own = own.index_select(0, run.arrangement.order)
    return own.transpose(0, 1).float().contiguous()


def _scatter(out_NHE: Tensor, own_KNGE: Tensor, run: HeadRun[Tiling]) -> None:
    """Put the query heads of a run back in their places."""
    own = own_KNGE.transpose(0, 1).flatten(1, 2)
    out_NHE[:, run.query] = own if run.arrangement.inverse is None else own.index_select(0, run.arrangement.inverse)


def _add_keys(sum_RKE: Tensor, own_KRE: Tensor, run: HeadRun[Tiling]) -> None:
    """Add to the key-value heads of a run in their places."""
    own = own_KRE.transpose(0, 1)
    if run.arrangement.inverse is not None:
        own = own.index_select(0, run.arrangement.inverse)
    sum_RKE[: len(own), run.key] += own

"""Attention over tiles: exact, without a mask of all tokens by all tokens, on any device.

Each tile is a few matrix products and a softmax. Forward keeps nothing but queries, keys and values; backward computes
the weights again (Dao et al., "FlashAttention", arXiv:2205.14135). All of it is done in fp32, whatever the dtype of
queries and keys: it is a small part of a layer, and products in bf16 would round the logits.

Shapes: N queries, A keys, F keys behind them, H heads, K key-value heads, E width of a head; Q queries of a tile for
each key-value head, C columns of a tile.
"""

from __future__ import annotations

import math
from functools import partial
from operator import itemgetter
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from meloformer.model.columns import PlacedTile, Sums, placed, read
from meloformer.model.tiling import Tile, Tiling
from meloformer.model.workers import num_threads, side_by_side

SHARES_OF_A_WORKER = 3
"""More balance better; each one costs sums of its own for keys and values."""


Arrangement = TypeVar("Arrangement")
"""Of queries and keys: a tiling, or what another path has instead."""


class HeadRun(NamedTuple, Generic[Arrangement]):
    """Consecutive query heads that read consecutive key-value heads, the same number each."""

    query: slice
    key: slice
    arrangement: Arrangement


class More(NamedTuple):
    """What tilings that do not sort may read beside the keys: numbered behind them, in this order."""

    again: Tensor | None
    """(G,) numbers of keys that are there a second time."""
    key: Tensor
    value: Tensor


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


def tiled_attention(
    query_NHE: Tensor, key_AKE: Tensor, value_AKE: Tensor, runs: list[HeadRun[Tiling]], more: More | None = None
) -> Tensor:
    """Softmax attention of every query over the keys of its tile.

    Args:
        query_NHE: All heads of all rows.
        key_AKE, value_AKE: Of the same dtype. Tilings that sort read these in their order.
        runs: Every query head is in exactly one.
        more: Further keys and values.
    Returns:
        (N, H, E) of the same dtype.
    """
    more = more or More(None, *(each.new_empty((0, *each.shape[1:])) for each in (key_AKE, value_AKE)))
    given = (query_NHE, key_AKE, value_AKE, more.key, more.value, more.again, runs)
    return _TiledAttention.apply(*given)  # pyright: ignore[reportReturnType]


class _TiledAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> Tensor:
        *_, runs = rest
        out = torch.empty_like(query)
        shares = _shares(runs, key, value, *rest[:-1])
        for _ in side_by_side([partial(_forward, share, query, out) for share in shares], query.device):
            pass
        ctx.save_for_backward(query, key, value, *rest[:-1])
        ctx.runs = runs
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        query, *all_keys, again = ctx.saved_tensors
        grad_query = torch.empty_like(query)
        grads = [torch.zeros_like(each, dtype=torch.float32) for each in all_keys]
        key, value, far_key, far_value = all_keys
        shares = _shares(ctx.runs, key, value, far_key, far_value, again)
        tasks = [partial(_backward, share, query, grad_out, grad_query) for share in shares]
        for share, both in zip(shares, side_by_side(tasks, query.device), strict=True):
            heads, order = share.run.key, share.run.arrangement.order
            for sums, near, far in zip(both, grads[:2], grads[2:], strict=True):
                sums.add_to(0, near[:, heads], order)
                sums.add_to(1, near[:, heads], again)
                sums.add_to(2, far[:, heads], None)
        return grad_query, *(grad.to(each.dtype) for grad, each in zip(grads, all_keys, strict=True)), None, None


class _Share(NamedTuple):
    """Consecutive tiles of a run, for one thread.

    All their queries are gathered together: between threads, every operation is a turn at Python's lock.
    """

    run: HeadRun[Tiling]
    tiles: list[PlacedTile]
    keys: list[Tensor]
    """Of the run, piece after piece, (K, r, E) each."""
    values: list[Tensor]

    def rows(self, heads_NHE: Tensor) -> Tensor:
        """(K, queries, E) a new tensor in fp32, the queries of all tiles; those of one key-value head together."""
        own, order = heads_NHE[:, self.run.query], self.run.arrangement.order
        own = own[self._places] if order is None else own.index_select(0, order[self._places])
        by_key = own.unflatten(1, (self._num_keys, -1)).transpose(0, 1)
        return by_key.to(torch.float32, copy=True, memory_format=torch.contiguous_format).flatten(1, 2)

    def empty(self, heads_NHE: Tensor) -> Tensor:
        """Room for what :meth:`rows` makes."""
        num_rows = (self._places.stop - self._places.start) * self._per_key
        return heads_NHE.new_empty((self._num_keys, num_rows, heads_NHE.shape[-1]), dtype=torch.float32)

    def split(self, rows_KnE: Tensor) -> tuple[Tensor, ...]:
        """(K, Q, E) each, tile by tile."""
        return rows_KnE.split([(tile.stop - tile.start) * self._per_key for tile, _ in self.tiles], dim=1)

    def write(self, rows_KnE: Tensor, out_NHE: Tensor) -> None:
        """Put rows back in their places."""
        own, order = out_NHE[:, self.run.query], self.run.arrangement.order
        rows = rows_KnE.unflatten(1, (-1, self._per_key)).transpose(0, 1).flatten(1, 2)
        if order is None:
            own[self._places] = rows
        else:
            own.index_copy_(0, order[self._places], rows.to(own.dtype))

    @property
    def _places(self) -> slice:
        """Of the queries, in the order of the run."""
        return slice(self.tiles[0].tile.start, self.tiles[-1].tile.stop)

    @property
    def _num_keys(self) -> int:
        """Key-value heads."""
        return self.run.key.stop - self.run.key.start

    @property
    def _per_key(self) -> int:
        """Query heads to each key-value head."""
        return (self.run.query.stop - self.run.query.start) // self._num_keys


def _shares(
    runs: list[HeadRun[Tiling]], key: Tensor, value: Tensor, far_key: Tensor, far_value: Tensor, again: Tensor | None
) -> list[_Share]:
    """Cut runs into shares of about equal work, several for each thread, the largest first."""
    sizes = [len(key), 0 if again is None else len(again), len(far_key)]
    tiles_of = [placed(run.arrangement.tiles(), sizes) for run in runs]
    workers = num_threads(key.device)
    all_pairs = sum(tile.num_pairs for tiles in tiles_of for tile in tiles)
    most = math.inf if workers == 1 else all_pairs / (workers * SHARES_OF_A_WORKER)
    shares: list[tuple[int, _Share]] = []
    for run, tiles in zip(runs, tiles_of, strict=True):
        keys, values = _pieces(key, far_key, again, run), _pieces(value, far_value, again, run)
        first, num_pairs = 0, 0
        for stop, tile in enumerate(tiles, 1):
            num_pairs += tile.num_pairs
            if num_pairs >= most or stop == len(tiles):
                shares.append((num_pairs, _Share(run, tiles[first:stop], keys, values)))
                first, num_pairs = stop, 0
    return [share for _, share in sorted(shares, key=itemgetter(0), reverse=True)]


def _pieces(near_AKE: Tensor, far_FKE: Tensor, again: Tensor | None, run: HeadRun[Tiling]) -> list[Tensor]:
    """(K, r, E) the heads of a run, piece after piece; sorted ones in fp32, since many tiles read them."""
    own, order = near_AKE[:, run.key], run.arrangement.order
    if order is not None:
        return [own.index_select(0, order).float().transpose(0, 1)]
    twice = own[:0] if again is None else own.index_select(0, again)
    return [each.transpose(0, 1) for each in (own, twice, far_FKE[:, run.key])]


def _forward(share: _Share, query: Tensor, out: Tensor) -> None:
    """Fill in the outputs."""
    outputs = share.empty(query)
    for (tile, stretches), queries, output in zip(
        share.tiles, share.split(share.rows(query).mul_(_scale(query))), share.split(outputs), strict=True
    ):
        weights = _weights(queries, read(share.keys, stretches), tile)
        torch.bmm(weights, read(share.values, stretches), out=output)
    share.write(outputs, out)


def _backward(share: _Share, query: Tensor, grad_out: Tensor, grad_query: Tensor) -> tuple[Sums, Sums]:
    """Fill in the gradients of queries; those of keys and of values come back."""
    of_keys, of_values = Sums(share.tiles, share.keys), Sums(share.tiles, share.values)
    all_queries, all_grads, of_queries = share.rows(query), share.rows(grad_out), share.empty(query)
    all_queries.mul_(_scale(query))
    by_tile = (share.split(each) for each in (all_queries, all_grads, of_queries))
    for (tile, stretches), queries, grads, of_query in zip(share.tiles, *by_tile, strict=True):
        keys = read(share.keys, stretches)
        weights = _weights(queries, keys, tile)
        of_values.add(stretches, grads, weights)
        of_weights = torch.bmm(grads, read(share.values, stretches).mT)
        of_logits = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, torch.float32)
        of_keys.add(stretches, queries, of_logits)
        torch.bmm(of_logits, keys, out=of_query)
    share.write(of_queries.mul_(_scale(query)), grad_query)
    return of_keys, of_values


def _weights(queries_KQE: Tensor, keys_KCE: Tensor, tile: Tile) -> Tensor:
    """(K, Q, C); each row is what one query pays to its columns."""
    logits = torch.bmm(queries_KQE, keys_KCE.mT)
    if tile.hidden is not None:
        some = logits[:, :, -tile.hidden.shape[1] :]
        if logits.shape[1] == len(tile.hidden):
            some.masked_fill_(tile.hidden, -torch.inf)
        else:  # several heads of each query
            some.unflatten(1, (len(tile.hidden), -1)).masked_fill_(tile.hidden[:, None], -torch.inf)
    return logits.softmax(-1)


def _scale(heads: Tensor) -> float:
    return heads.shape[-1] ** -0.5

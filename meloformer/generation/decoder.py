"""The model, one token at a time: the same logits as a pass over the whole piece, from what the piece keeps of it.

Shapes: R rows of one token each, L layers, D width, H heads, K key-value heads, E width of a head.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from meloformer.generation.cache import FamilyHeads, PieceCache, Recorded, SummaryParts
from meloformer.generation.packed import PackedModel, interleaved, min_rows
from meloformer.generation.store import Array, Place, as_array
from meloformer.model.batch import Batch
from meloformer.model.layout import AttentionPath, Layout
from meloformer.model.meloformer import MeloFormer
from meloformer.tokens.attributes import attributes
from meloformer.tokens.running import RunningAttributes

MAX_ROWS = 32
"""Rows that are worked through at once."""


class Decoder:
    """A model in the form that decoding wants.

    Args:
        model: In eval mode; the decoder makes a copy of its weights.
    """

    def __init__(self, model: MeloFormer) -> None:
        self.model = model
        self.packed = PackedModel(model)
        self.settings = model.settings
        self._num_heads, self._num_kv_heads = model.settings.num_heads, model.settings.num_kv_heads
        self._width = model.settings.head_dim
        self._min_rows = min_rows(self.packed.device)
        self.heads = FamilyHeads.all_of(model.settings)

    def new_piece(self) -> PieceCache:
        """A piece without a token."""
        return PieceCache(self.settings, self.model.vocabulary, self.packed.device)

    @torch.inference_mode()
    def read(self, ids: np.ndarray) -> tuple[PieceCache, Tensor]:
        """Take a beginning of one document in one pass.

        Args:
            ids: (T,) ids of the model's vocabulary, T > 0.
        Returns:
            The piece, and (V,) logits of what comes next.
        """
        batch = Batch.of([ids], self.model.vocabulary, device=self.packed.device)
        layout = Layout.of(batch, self.settings, self.model.token_embedding.weight.dtype)
        recorder = _Recorder(layout.path)
        logits = self.model(batch, dataclasses.replace(layout, path=recorder))[0, -1].float()
        piece = self.new_piece()
        running = RunningAttributes.after(ids, self.model.vocabulary)
        piece.fill(attributes(ids, self.model.vocabulary), running, recorder.recorded())
        return piece, logits

    @torch.inference_mode()
    def step(self, pieces: Sequence[PieceCache], ids: Sequence[int]) -> Tensor:
        """Give every piece one more token.

        Args:
            pieces: R pieces, at any place of their music.
            ids: (R) a token for each.
        Returns:
            (R, V) logits of what comes next.
        """
        parts = [slice(start, start + MAX_ROWS) for start in range(0, len(pieces), MAX_ROWS)]
        return torch.cat([self._step(pieces[part], ids[part]) for part in parts])

    def _step(self, pieces: Sequence[PieceCache], ids: Sequence[int]) -> Tensor:
        packed = self.packed
        for piece, token_id in zip(pieces, ids, strict=True):
            if piece.closes_bars and piece.facts.opens_bar(token_id):
                piece.close_bar(self._summary(piece) if piece.has_summaries else None)
        places = [piece.advance(token_id) for piece, token_id in zip(pieces, ids, strict=True)]
        missing = max(self._min_rows - len(pieces), 0)
        fill = [0] * missing
        facts = [piece.facts for piece in pieces]
        rotation = packed.rotation([each.position for each in facts] + fill, [each.time for each in facts] + fill)
        tokens = torch.tensor([[*ids, *fill], [each.instrument for each in facts] + fill], device=packed.device)
        x_RD = packed.token_embedding[tokens[0]] + packed.instrument_embedding[tokens[1]]
        keys_values: list[Tensor] = []
        for number, layer in enumerate(packed.layers):
            merged = layer.query_key_value(layer.norm(x_RD))
            packed.rotate(merged, 0, self._num_heads + self._num_kv_heads, rotation)
            keys_values.append(merged)
            x_RD = x_RD + layer.out(self._attend(number, merged, places))
            x_RD = x_RD + layer.ffn(x_RD)
        self._keep_for_summaries(pieces, keys_values)
        return packed.to_logits(packed.norm(x_RD))[: len(pieces)]

    def _attend(self, layer: int, merged: Tensor, places: list[list[Place]]) -> Tensor:
        """(R, H E) what the heads read, after this layer's keys and values were put where they belong."""
        width, num_rows = self._width, merged.shape[0]
        output = torch.empty((num_rows, self._num_heads * width), device=merged.device)
        output[len(places) :] = 0
        array, read = as_array(merged), as_array(output)
        keys_values = self._keys_values(array)
        for number, heads in enumerate(self.heads):
            own = slice(heads.first * width, (heads.first + heads.num_heads) * width)
            slots = (heads.num_slots,) if heads.num_slots > 1 else ()
            queries = array[:, own].reshape((num_rows, *slots, heads.num_rows, width))
            newest = keys_values[:, :, heads.slots]
            for row, of_families in enumerate(places):
                place = of_families[number]
                place.write[layer][...] = newest[row]
                keys, values = place.read[2 * layer], place.read[2 * layer + 1]
                read[row, own] = _read(queries[row], keys, values, place.hidden).reshape(-1)
        return output

    def _keys_values(self, merged: Array) -> Any:
        """(R, 2, K, E) of (R, (H + 2 K) E)."""
        behind = merged[:, self._num_heads * self._width :]
        return behind.reshape((merged.shape[0], 2, self._num_kv_heads, self._width))

    def _keep_for_summaries(self, pieces: Sequence[PieceCache], of_layers: list[Tensor]) -> None:
        """Put the newest keys and values of all layers (R, (H + 2 K) E) where the summary of the open bar reads."""
        stores = [piece.summarised for piece in pieces]
        if stores[0] is None:
            return
        keys_values = torch.stack([self._keys_values(merged) for merged in of_layers], dim=1)
        for row, store in enumerate(stores):
            assert store is not None
            store.newest.copy_(keys_values[row].flatten(0, 1))

    def _summary(self, piece: PieceCache) -> SummaryParts:
        """Work out the summary of the open bar through all layers."""
        packed, num_kv_heads, width, num_heads = self.packed, self._num_kv_heads, self._width, self._num_heads
        rotation = packed.rotation([piece.facts.position], [piece.facts.bar_end_time])
        assert piece.summarised is not None
        assert packed.summary_embedding is not None
        x_1D = packed.summary_embedding
        own, second = [], []
        for number, layer in enumerate(packed.layers):
            summary = layer.summary
            assert summary is not None
            merged = summary.query_key_value(summary.norm(x_1D))
            packed.rotate(merged, 0, num_heads + num_kv_heads, rotation)
            query = merged[:, : num_heads * width].view(num_kv_heads, num_heads // num_kv_heads, width)
            key_value = self._keys_values(merged)[0][..., None]
            past = piece.summarised.keys_values[2 * number : 2 * number + 2]
            keys, values = torch.cat([past, key_value], dim=-1).unbind(0)
            read_1D = (torch.softmax(torch.bmm(query, keys), dim=-1) @ values.mT).view(1, -1)
            of_second = summary.second(read_1D)
            packed.rotate(of_second, 0, num_kv_heads, rotation)
            own.append(key_value)
            second.append(of_second.view(2, num_kv_heads, width, 1))
            if summary.out is not None and summary.ffn is not None:
                x_1D = x_1D + summary.out(read_1D)
                x_1D = x_1D + summary.ffn(x_1D)
        return SummaryParts(torch.cat(own), torch.cat(second))


def _read(query: Any, keys: Any, values: Any, hidden: Any) -> Any:
    """Attention of N queries, which are scaled already; all are arrays of one kind, see :data:`Array`.

    Args:
        query: (S, N, E); of a single slot (N, E), and so are the others.
        keys, values: (S, E, n).
        hidden: (n,) bool, what is not seen.
    Returns:
        (S, N, E).
    """
    scores: Any = query @ keys
    if hidden is not None:
        scores[..., hidden] = -torch.inf
    if isinstance(scores, np.ndarray):
        return torch.softmax(torch.from_numpy(scores), dim=-1).numpy() @ values.mT
    return torch.softmax(scores, dim=-1) @ values.mT


class _Recorder:
    """A path of attention that keeps the keys and values that pass through it."""

    def __init__(self, path: AttentionPath) -> None:
        self._path = path
        self._regular: list[Tensor] = []
        self._summary: list[Tensor] = []
        self._second: list[Tensor] = []

    def summarise(
        self, query_BMHE: Tensor, summary_key: Tensor, summary_value: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        """Phases SS and SR."""
        self._summary += [_packed_key(summary_key), summary_value]
        return self._path.summarise(query_BMHE, summary_key, summary_value, key, value)

    def update(
        self, query_BTHE: Tensor, key: Tensor, value: Tensor, second_key: Tensor, second_value: Tensor
    ) -> Tensor:
        """Phases RR and RS."""
        self._regular += [_packed_key(key), value]
        self._second += [_packed_key(second_key), second_value]
        return self._path.update(query_BTHE, key, value, second_key, second_value)

    def recorded(self) -> Recorded:
        """What passed, of the one row."""
        summaries = SummaryParts(_of_row(self._summary), _of_row(self._second)) if self._summary else None
        return Recorded(_of_row(self._regular), summaries)


def _of_row(of_layers: list[Tensor]) -> Tensor:
    """2 L tensors (1, N, K, E) -> (2 L, K, E, N)."""
    return torch.stack(of_layers)[:, 0].float().permute(0, 2, 3, 1)


def _packed_key(key: Tensor) -> Tensor:
    """(B, N, K, E) of the model -> the same with its dimensions in the order of packed weights."""
    return key[..., interleaved(key.shape[-1]).to(key.device)]

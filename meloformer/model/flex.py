"""Four-phase attention by FlexAttention: the path for CUDA, for every family and the type rule.

All rows are one long sequence, padded to whole blocks. Each family stands in the layout in which it reads the fewest
blocks (see ``stretches``); the kernel takes queries and keys in that layout, and what comes out goes back in place.

Shapes: B rows, T regular tokens, M summaries; N tokens and S summary slots of all rows, padded; Q queries and R keys of
a layout; H heads, K key-value heads, E width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import pad

from meloformer.errors import SettingsError
from meloformer.model.batch import Batch
from meloformer.model.block_masks import Reading, Stretches, TypeFacts, type_kinds
from meloformer.model.stretches import (
    ensemble_stretches,
    equal_key_stretches,
    padded_places,
    padded_slots,
    summary_stretches,
    union_stretches,
)
from meloformer.model.tiled import HeadRun, head_runs
from meloformer.model.visibility import EQUAL_KEY
from meloformer.model.windows import Places
from meloformer.settings import HeadFamily, ModelSettings

SMALLEST_HEAD_DIM = 16
"""The kernels for CUDA take no narrower head (tl.dot)."""
HAVE_GRADIENTS = ("cuda",)
"""Types of devices; on others FlexAttention has a forward pass only."""
MOST_KERNELS = 64
"""How many kernels PyTorch may compile before it refuses. Each kind of layout has one for each shape of batch, number
of heads and dtype, with gradients and without: 3 to 5 kinds make some 20 where epochs end in a smaller batch. PyTorch's
own limit of 8 is too low for that."""


@dataclass(frozen=True)
class FlexPath:
    """The layouts of a batch. Plain tensors, so that it can be made in another process."""

    summarised: Reading
    """Queries are summaries; keys are summaries, then regular tokens."""
    updated: dict[HeadFamily, Reading]
    """Queries are regular tokens."""
    globals: Tensor
    """(G,) numbers of the global tokens, and then of tokens that nobody sees as such, to a fixed count."""
    num_tokens: int
    """N."""
    num_slots: int
    """S."""
    heads: dict[HeadFamily, int]

    @staticmethod
    def fits(settings: ModelSettings) -> bool:
        """Whether there are kernels for heads of this width."""
        return settings.head_dim >= SMALLEST_HEAD_DIM

    @classmethod
    def of(cls, batch: Batch, settings: ModelSettings) -> FlexPath:
        """Derive the layouts."""
        places, device = padded_places(Places.of(batch)), batch.ids.device
        num_tokens, num_slots = len(places.document), len(places.bar_document)
        globals_ = np.arange(padded_slots(len(places.globals), num_tokens)) % num_tokens
        globals_[: len(places.globals)] = places.globals
        layouts = _Layouts(batch, settings, places, globals_)
        return cls(
            summarised=Reading.of(summary_stretches(places), num_slots + num_tokens, device),
            updated={family: layouts.of(family) for family in settings.heads},
            globals=torch.from_numpy(globals_).to(device),
            num_tokens=num_tokens,
            num_slots=num_slots,
            heads=dict(settings.heads),
        )

    def summarise(
        self, query_BMHE: Tensor, summary_key: Tensor, summary_value: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        """Phases SS and SR; arguments and result as in :meth:`DensePath.summarise`.

        Raises:
            SettingsError: The tensors are on a CPU and need gradients.
        """
        query = _padded(query_BMHE, self.num_slots)
        keys, values = (
            torch.cat([_padded(of_summaries, self.num_slots), _padded(of_tokens, self.num_tokens)])
            for of_summaries, of_tokens in ((summary_key, key), (summary_value, value))
        )
        out = attend(query, keys, values, self.summarised.mask)
        return _unpadded(out, query_BMHE)

    def update(
        self, query_BTHE: Tensor, key: Tensor, value: Tensor, second_key: Tensor, second_value: Tensor
    ) -> Tensor:
        """Phases RR and RS; arguments and result as in :meth:`DensePath.update`.

        Raises:
            SettingsError: The tensors are on a CPU and need gradients.
        """
        query, keys, values = (_padded(each, self.num_tokens) for each in (query_BTHE, key, value))
        second_keys, second_values = (_padded(each, self.num_slots) for each in (second_key, second_value))
        heads_per_key = query.shape[1] // keys.shape[1]
        outputs: list[Tensor] = []
        first = 0
        for family, count in self.heads.items():
            for run in head_runs(first, count, heads_per_key, self.updated[family]):
                own = _sorted(query[:, run.query], run.arrangement)
                own_keys = self._keys(family, run, keys, second_keys)
                out = attend(own, own_keys, self._keys(family, run, values, second_values), run.arrangement.mask)
                outputs.append(_unsorted(out, run.arrangement))
            first += count
        return _unpadded(torch.cat(outputs, dim=1), query_BTHE)

    def _keys(self, family: HeadFamily, run: HeadRun[Reading], regular_NKE: Tensor, second_SKE: Tensor) -> Tensor:
        """(R, K, E) the key-value heads of a run in the layout of a family."""
        regular = regular_NKE[:, run.key]
        if family in EQUAL_KEY:
            return _sorted(regular, run.arrangement)
        near = regular.index_select(0, self.globals) if family == "ensemble" else _sorted(regular, run.arrangement)
        return torch.cat([regular, near, second_SKE[:, run.key]])


@dataclass(frozen=True)
class _Layouts:
    """Makes the layout of every family."""

    batch: Batch
    settings: ModelSettings
    places: Places
    globals: np.ndarray

    def of(self, family: HeadFamily) -> Reading:
        """One family's."""
        num_tokens, num_slots = len(self.places.document), len(self.places.bar_document)
        itself, summaries = np.arange(num_tokens), np.full(num_slots, -1)
        if family in EQUAL_KEY:
            key = EQUAL_KEY[family](self.batch).cpu().numpy().reshape(-1)
            key = np.pad(key, (0, num_tokens - len(key)))
            stretches, order = equal_key_stretches(self.places.keys(key))
            return self._reading(stretches, order, order)
        if family == "ensemble":
            stretches = ensemble_stretches(self.places, self.settings.bar_offsets)
            return self._reading(stretches, None, np.concatenate([itself, self.globals, summaries]))
        stretches, order = union_stretches(self.places, self.settings.bar_offsets)
        return self._reading(stretches, order, np.concatenate([itself, order, summaries]))

    def _reading(self, stretches: Stretches, order: np.ndarray | None, keys: np.ndarray) -> Reading:
        """``keys``: (R,) numbers of tokens, -1 for summaries."""
        device = self.batch.ids.device
        types = self._types(slice(None) if order is None else order, keys) if self.settings.type_rule else None
        return Reading.of(stretches, len(keys), device, order=order, types=types)

    def _types(self, queries: np.ndarray | slice, keys: np.ndarray) -> TypeFacts:
        of_tokens = type_kinds(self.batch)
        behind = len(self.places.document) - of_tokens.shape[1]
        note, kind = np.pad(of_tokens, ((0, 0), (0, behind)), constant_values=((-1, -1), (0, 0)))
        is_token = keys >= 0
        columns = (note[queries], kind[queries], np.where(is_token, note[keys], -1), np.where(is_token, kind[keys], 0))
        return TypeFacts(*(torch.from_numpy(column.astype(np.int32)).to(self.batch.ids.device) for column in columns))


@cache
def compiled() -> Callable[..., Tensor]:
    """FlexAttention, compiled at the first call with each shape.

    Uncompiled it computes all pairs, and past the limit of recompilations PyTorch falls back to that without a word:
    here that is an error.
    """
    of_ours = cast(Callable[..., Tensor], torch.compile(flex_attention, dynamic=False))
    # In every call: PyTorch 2.13 keeps these settings thread by thread, and backward passes have threads of their own.
    return torch._dynamo.config.patch(fail_on_recompile_limit_hit=True, recompile_limit=MOST_KERNELS)(of_ours)


def attend(query_QHE: Tensor, key_RKE: Tensor, value_RKE: Tensor, mask: BlockMask) -> Tensor:
    """(Q, H, E) of the dtype of the queries, which keys and values are made to have: the kernel takes one only."""
    dtype, num_heads = query_QHE.dtype, query_QHE.shape[1]
    query, key, value = (each.to(dtype).transpose(0, 1)[None] for each in (query_QHE, key_RKE, value_RKE))
    needs_gradient = torch.is_grad_enabled() and any(each.requires_grad for each in (query, key, value))
    if needs_gradient and query.device.type not in HAVE_GRADIENTS:
        raise SettingsError(
            f"model.attention is flex, which has no gradients on the device {query.device.type!r}",
            "use model.attention=auto",
        )
    out = compiled()(query, key, value, block_mask=mask, enable_gqa=key.shape[1] != num_heads)
    return out[0].transpose(0, 1)


class _Permutation(torch.autograd.Function):
    """Rows in another order. The gradient is gathered too, where ``index_select`` would add it up row by row."""

    @staticmethod
    def forward(ctx: Any, rows_NHE: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return rows_NHE.index_select(0, order)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (inverse,) = ctx.saved_tensors
        return grad.index_select(0, inverse), None, None


def _sorted(rows_NHE: Tensor, reading: Reading) -> Tensor:
    """Tokens in the order of the layout."""
    if reading.order is None or reading.inverse is None:
        return rows_NHE
    return cast(Tensor, _Permutation.apply(rows_NHE, reading.order, reading.inverse))


def _unsorted(rows_QHE: Tensor, reading: Reading) -> Tensor:
    """Back in the order of the piece."""
    if reading.order is None or reading.inverse is None:
        return rows_QHE
    return cast(Tensor, _Permutation.apply(rows_QHE, reading.inverse, reading.order))


def _padded(rows_BNHE: Tensor, length: int) -> Tensor:
    """(length, H, E) all rows one after another."""
    flat = rows_BNHE.flatten(0, 1)
    behind = length - len(flat)
    return pad(flat, (0, 0, 0, 0, 0, behind)) if behind else flat


def _unpadded(rows_QHE: Tensor, like_BNHE: Tensor) -> Tensor:
    """(B, N, H, E) without what was padded."""
    return rows_QHE[: like_BNHE.shape[0] * like_BNHE.shape[1]].reshape(like_BNHE.shape)

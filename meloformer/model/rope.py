"""Rotary positions, counted in tokens, in musical time, or in both.

Source: Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", arXiv:2104.09864.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from meloformer.settings import Rope

BASE = 10_000.0
"""Wavelengths run from 2 pi to 2 pi times this, in tokens or in grid steps."""


class Rotation(NamedTuple):
    """Angles as (B, N, 1, head_dim / 2) cosines and sines, to be shared by all heads, or (B, N, K, head_dim / 2) by the
    heads of each of K key-value heads."""

    cos: Tensor
    sin: Tensor


def rotation(position: Tensor, time: Tensor, head_dim: int, rope: Rope, num_kv_heads: int = 1) -> Rotation:
    """The rotation of every token.

    Args:
        position: (B, N) index of the token in its row.
        time: (B, N) its musical time in grid steps.
        head_dim: Width of a head, divisible by 4.
        rope: What the angles count; see :func:`frequencies`.
        num_kv_heads: Key-value heads, which differ for ``heads`` only.
    Returns:
        float32 cosines and sines.
    """
    of_position, of_time = frequencies(head_dim, rope, num_kv_heads, position.device)
    angles = position[:, :, None, None].float() * of_position + time[:, :, None, None].float() * of_time
    return Rotation(angles.cos(), angles.sin())


def frequencies(
    head_dim: int, rope: Rope, num_kv_heads: int = 1, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Angle a token and angle a grid step of each pair of dimensions; each pair counts the one or the other.

    Args:
        head_dim: Width of a head, divisible by 4.
        rope: ``position`` counts tokens, ``time`` grid steps; ``both`` gives each one half of the dimensions, and
            ``heads`` gives the key-value heads 0, 2, 4, ... to tokens and the others to time.
        num_kv_heads: Key-value heads.
        device: Where the tensors go.
    Returns:
        Two (1, ``head_dim`` / 2), or (K, ``head_dim`` / 2) for ``heads``, float32; where one is not 0, the other is.
    """
    pairs = head_dim // 2
    if rope == "heads":
        own = _wavelengths(pairs, device)
        counts_time = torch.arange(num_kv_heads, device=device)[:, None] % 2
        return own * (1 - counts_time), own * counts_time
    share = {"position": pairs, "time": 0, "both": pairs // 2}[rope]
    of_position, of_time = _wavelengths(share, device), _wavelengths(pairs - share, device)
    nothing = torch.zeros(pairs, device=device)
    return (
        torch.cat([of_position, nothing[share:]])[None],
        torch.cat([nothing[:share], of_time])[None],
    )


def _wavelengths(count: int, device: torch.device | str) -> Tensor:
    """(count,) angles a unit, falling."""
    return BASE ** (-torch.arange(count, dtype=torch.float32, device=device) / max(count, 1))


def rotate(heads_BNHE: Tensor, by: Rotation) -> Tensor:
    """(B, N, H, head_dim) queries or keys, rotated; the dtype stays."""
    num_kinds, num_heads = by.cos.shape[2], heads_BNHE.shape[2]
    if 1 < num_kinds < num_heads:  # the queries of a key-value head turn as its keys do
        grouped = heads_BNHE.unflatten(2, (num_kinds, -1))
        turned: Tensor = _Rotate.apply(grouped, *(each[:, :, :, None] for each in by))  # pyright: ignore
        return turned.flatten(2, 3)
    return _Rotate.apply(heads_BNHE, *by)  # pyright: ignore[reportReturnType]


class _Rotate(torch.autograd.Function):
    """Without this, forward and backward make a dozen tensors where one is wanted."""

    @staticmethod
    def forward(ctx: Any, heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(heads, cos, sin, sign=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _rotated(grad, *ctx.saved_tensors, sign=-1), None, None


def _rotated(heads: Tensor, cos: Tensor, sin: Tensor, *, sign: int) -> Tensor:
    """Rotated forth or back, worked out in fp32."""
    first, second = heads.float().chunk(2, dim=-1)
    rotated = torch.empty(heads.shape, dtype=torch.float32, device=heads.device)
    new_first, new_second = rotated.chunk(2, dim=-1)
    torch.mul(first, cos, out=new_first).addcmul_(second, sin, value=-sign)
    torch.mul(second, cos, out=new_second).addcmul_(first, sin, value=sign)
    return rotated.to(heads.dtype)

"""Rotary positions, counted in tokens, in musical time, or in both.

Source: Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", arXiv:2104.09864.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BASE = 10_000.0
"""Wavelengths run from 2 pi to 2 pi times this, in tokens or in grid steps."""


class Rotation(NamedTuple):
    """Angles as (B, N, 1, head_dim / 2) cosines and sines, to be shared by all heads."""

    cos: Tensor
    sin: Tensor


def rotation(position: Tensor, time: Tensor, head_dim: int, rope: Literal["position", "time", "both"]) -> Rotation:
    """The rotation of every token.

    Args:
        position: (B, N) index of the token in its row.
        time: (B, N) its musical time in grid steps.
        head_dim: Width of a head, divisible by 4.
        rope: What the angles count; ``both`` gives each one half of the dimensions.
    Returns:
        float32 cosines and sines.
    """
    of_position, of_time = frequencies(head_dim, rope, position.device)
    kinds = ((position, of_position), (time, of_time))
    angles = torch.cat([kind[:, :, None].float() * frequency for kind, frequency in kinds], dim=-1)[:, :, None]
    return Rotation(angles.cos(), angles.sin())


def frequencies(
    head_dim: int, rope: Literal["position", "time", "both"], device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Angle a token and angle a grid step, for each pair of dimensions that counts the one or the other.

    Returns:
        (n,) and (m,) float32, n + m = ``head_dim`` / 2.
    """
    pairs = head_dim // 2
    share = {"position": pairs, "time": 0, "both": pairs // 2}[rope]
    of_position, of_time = (
        BASE ** (-torch.arange(count, dtype=torch.float32, device=device) / max(count, 1))
        for count in (share, pairs - share)
    )
    return of_position, of_time


def rotate(heads_BNHE: Tensor, by: Rotation) -> Tensor:
    """(B, N, H, head_dim) queries or keys, rotated; the dtype stays."""
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

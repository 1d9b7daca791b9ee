"""Rotary positions, counted in tokens, in musical time, or in both.

Source: Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", arXiv:2104.09864.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

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
    pairs = head_dim // 2
    counted = {"position": [position], "time": [time], "both": [position, time]}[rope]
    per_kind = pairs // len(counted)
    frequency = BASE ** (-torch.arange(per_kind, dtype=torch.float32, device=position.device) / per_kind)
    angles = torch.cat([kind[:, :, None].float() * frequency for kind in counted], dim=-1)[:, :, None]
    return Rotation(angles.cos(), angles.sin())


def rotate(heads_BNHE: Tensor, by: Rotation) -> Tensor:
    """(B, N, H, head_dim) queries or keys, rotated; the dtype stays."""
    first, second = heads_BNHE.float().chunk(2, dim=-1)
    rotated = torch.cat([first * by.cos - second * by.sin, first * by.sin + second * by.cos], dim=-1)
    return rotated.to(heads_BNHE.dtype)

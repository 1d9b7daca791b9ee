"""Root-mean-square normalisation that touches little memory on a CPU, where PyTorch has no kernel of its own for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CHUNK = 1024
"""Rows that are worked through at once: what comes out between the steps stays in the cache."""


class RMSNorm(nn.RMSNorm):
    """The same as PyTorch's, and the same weights.

    Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", arXiv:1910.07467.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        rows = x.numel() // x.shape[-1]
        if x.device.type != "cpu" or rows <= CHUNK:
            return super().forward(x)
        # PyTorch works in fp32, and takes the epsilon of that.
        eps = torch.finfo(torch.float32).eps if self.eps is None else self.eps
        return _Chunked.apply(x.reshape(rows, -1), self.weight, eps).view_as(x)  # pyright: ignore


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        out_ND = torch.empty_like(x_ND)
        inverse_N1 = x_ND.new_empty((len(x_ND), 1), dtype=torch.float32)
        for rows in chunks(len(x_ND)):
            x = x_ND[rows].float()
            inverse_N1[rows] = x.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
            out_ND[rows] = (x * inverse_N1[rows]).mul_(weight_D)
        ctx.save_for_backward(x_ND, weight_D, inverse_N1)
        return out_ND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore
        x_ND, weight_D, inverse_N1 = ctx.saved_tensors
        of_x_ND, of_weight_D = torch.empty_like(x_ND), torch.zeros_like(weight_D, dtype=torch.float32)
        for rows in chunks(len(x_ND)):
            normed, grad = x_ND[rows] * inverse_N1[rows], grad_ND[rows].float()
            of_weight_D += (grad * normed).sum(0)
            grad = grad * weight_D
            along = (grad * normed).mean(-1, keepdim=True)
            of_x_ND[rows] = grad.sub_(normed.mul_(along)).mul_(inverse_N1[rows])
        return of_x_ND, of_weight_D.to(weight_D.dtype), None


def chunks(num_rows: int) -> Iterator[slice]:
    """All rows, ``CHUNK`` at a time."""
    for start in range(0, num_rows, CHUNK):
        yield slice(start, min(start + CHUNK, num_rows))

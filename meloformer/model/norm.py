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
        """(..., dim) -> (..., dim), under autocast in its dtype: many projections read it, and would each cast it."""
        rows = x.numel() // x.shape[-1]
        dtype = layer_dtype(x)
        if x.device.type != "cpu" or rows <= CHUNK or x.dtype == torch.float64:
            return super().forward(x).to(dtype)
        # PyTorch works in fp32, and takes the epsilon of that.
        eps = torch.finfo(torch.float32).eps if self.eps is None else self.eps
        return _Chunked.apply(x.reshape(rows, -1), self.weight, eps, dtype).view_as(x)  # pyright: ignore


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_D: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        out_ND = torch.empty_like(x_ND, dtype=dtype)
        inverse_N1 = x_ND.new_empty((len(x_ND), 1), dtype=torch.float32)
        for rows in chunks(x_ND):
            x = x_ND[rows].float()
            inverse_N1[rows] = x.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
            out_ND[rows] = (x * inverse_N1[rows]).mul_(weight_D)
        ctx.save_for_backward(x_ND, weight_D, inverse_N1)
        return out_ND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor, Tensor, None, None]:  # pyright: ignore
        x_ND, weight_D, inverse_N1 = ctx.saved_tensors
        of_x_ND, of_weight_D = torch.empty_like(x_ND), torch.zeros_like(weight_D, dtype=torch.float32)
        for rows in chunks(x_ND):
            normed, grad = x_ND[rows] * inverse_N1[rows], grad_ND[rows].float()
            of_weight_D += (grad * normed).sum(0)
            grad = grad * weight_D
            along = (grad * normed).mean(-1, keepdim=True)
            of_x_ND[rows] = grad.sub_(normed.mul_(along)).mul_(inverse_N1[rows])
        return of_x_ND, of_weight_D.to(weight_D.dtype), None, None


def chunks(rows_ND: Tensor) -> Iterator[slice]:
    """All rows, ``CHUNK`` at a time on a CPU; elsewhere at once."""
    size = CHUNK if rows_ND.device.type == "cpu" else max(len(rows_ND), 1)
    for start in range(0, len(rows_ND), size):
        yield slice(start, min(start + size, len(rows_ND)))


def layer_dtype(x: Tensor) -> torch.dtype:
    """What autocast would have a layer work in, or the dtype of ``x``."""
    device_type = x.device.type
    return torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else x.dtype

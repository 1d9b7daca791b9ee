"""Feed-forward network with a gate, in a form that touches little memory.

Written plainly, a layer of ``small`` over 65,536 tokens makes twelve tensors of 352 MiB forward and backward, and keeps
four of them. To get memory from the system is what a long training step on a CPU spends much of its time on; so there
the rows are worked through in chunks, and two of those tensors are kept. A chunk is 6 MB inside, enough for a
matrix product to be fast.

Shapes: N rows, D width, F width inside.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu

from meloformer.model.norm import CHUNK, chunks


class SwiGLU(nn.Module):
    """Feed-forward network with a gate.

    Source: Shazeer, "GLU Variants Improve Transformer", arXiv:2002.05202.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, hidden, bias=False)
        self.up = nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        rows = x.numel() // x.shape[-1]
        if x.device.type != "cpu" or rows <= CHUNK:
            return self.down(silu(self.gate(x)) * self.up(x))
        given = (x.reshape(rows, -1), self.gate.weight, self.up.weight, self.down.weight)
        if torch.is_autocast_enabled(x.device.type):  # which knows the products written plainly, and not these
            given = tuple(each.to(torch.get_autocast_dtype(x.device.type)) for each in given)
        return _Chunked.apply(*given).view(x.shape)  # pyright: ignore


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, to_gate_FD: Tensor, to_up_FD: Tensor, to_down_DF: Tensor) -> Tensor:
        gate_NF, up_NF = (x_ND.new_empty(len(x_ND), len(to_gate_FD)) for _ in range(2))
        out_ND = torch.empty_like(x_ND)
        for rows in chunks(len(x_ND)):
            gate, up = gate_NF[rows], up_NF[rows]
            torch.mm(x_ND[rows], to_gate_FD.T, out=gate)
            torch.mm(x_ND[rows], to_up_FD.T, out=up)
            torch.mm(silu(gate).mul_(up), to_down_DF.T, out=out_ND[rows])
        ctx.save_for_backward(x_ND, gate_NF, up_NF, to_gate_FD, to_up_FD, to_down_DF)
        return out_ND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore
        x_ND, gate_NF, up_NF, *weights = ctx.saved_tensors
        to_gate_FD, to_up_FD, to_down_DF = weights
        of_x_ND = torch.empty_like(x_ND)
        sums = [torch.zeros_like(each, dtype=torch.float32) for each in weights]
        for rows in chunks(len(x_ND)):
            x, gate, up, grad = x_ND[rows], gate_NF[rows], up_NF[rows], grad_ND[rows]
            opened = silu(gate)
            of_product = grad @ to_down_DF
            sums[2] += grad.T @ (opened * up)
            of_gate = torch.ops.aten.silu_backward(of_product * up, gate)
            of_up = of_product.mul_(opened)
            sums[0] += of_gate.T @ x
            sums[1] += of_up.T @ x
            torch.addmm(of_gate @ to_gate_FD, of_up, to_up_FD, out=of_x_ND[rows])
        return of_x_ND, *(own.to(each.dtype) for own, each in zip(sums, weights, strict=True))

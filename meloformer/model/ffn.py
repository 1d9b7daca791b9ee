"""Feed-forward network with a gate, in a form that keeps and touches little memory.

Written plainly, a layer keeps four tensors of the inner width for its backward pass, and makes twelve. Here two are
kept, and the others made again from them by operations that cost next to nothing. Of ``small`` over 65,536 tokens such
a tensor is 352 MiB, and to get memory from the system is what a long step on a CPU spends much of its time on; so there
the rows are worked through in chunks. A chunk is 6 MB inside, enough for a matrix product to be fast.

Shapes: N rows, D width, F width inside.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu

from meloformer.model.norm import CHUNK, chunks, layer_dtype


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
        is_short = rows <= CHUNK and not torch.is_grad_enabled()
        if is_short or torch.compiler.is_compiling():  # the compiler finds out by itself what to make again
            return self.down(silu(self.gate(x)) * self.up(x))
        dtype = layer_dtype(x)
        parts = (x.reshape(rows, x.shape[-1]), self.gate.weight, self.up.weight, self.down.weight)
        return _Gated.apply(*(part.to(dtype) for part in parts), torch.is_grad_enabled()).view_as(x)  # pyright: ignore


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, *rest: Any) -> Tensor:
        to_gate_FD, to_up_FD, to_down_DF, is_kept = rest
        most = len(x_ND) if is_kept else max((rows.stop - rows.start for rows in chunks(x_ND)), default=0)
        gate_NF, up_NF = (x_ND.new_empty(most, len(to_gate_FD)) for _ in range(2))
        out_ND = torch.empty_like(x_ND)
        for rows in chunks(x_ND):
            place = rows if is_kept else slice(0, rows.stop - rows.start)
            gate, up = gate_NF[place], up_NF[place]
            torch.mm(x_ND[rows], to_gate_FD.T, out=gate)
            torch.mm(x_ND[rows], to_up_FD.T, out=up)
            torch.mm(silu(gate).mul_(up), to_down_DF.T, out=out_ND[rows])
        if is_kept:
            ctx.save_for_backward(x_ND, gate_NF, up_NF, to_gate_FD, to_up_FD, to_down_DF)
        return out_ND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        x_ND, gate_NF, up_NF, *weights = ctx.saved_tensors
        to_gate_FD, to_up_FD, to_down_DF = weights
        of_x_ND = torch.empty_like(x_ND)
        sums = [torch.zeros_like(each, dtype=torch.float32) for each in weights]
        for rows in chunks(x_ND):
            x, gate, up, grad = x_ND[rows], gate_NF[rows], up_NF[rows], grad_ND[rows]
            opened = silu(gate)
            sums[2] += grad.T @ (opened * up)
            of_product = grad @ to_down_DF
            of_gate = torch.ops.aten.silu_backward(of_product * up, gate)
            of_up = of_product.mul_(opened)
            sums[0] += of_gate.T @ x
            sums[1] += of_up.T @ x
            torch.addmm(of_gate @ to_gate_FD, of_up, to_up_FD, out=of_x_ND[rows])
        return of_x_ND, *(own.to(each.dtype) for own, each in zip(sums, weights, strict=True)), None

"""What is written out by hand has the outputs and gradients that autograd finds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from torch.utils._python_dispatch import TorchDispatchMode

from meloformer.model.ffn import SwiGLU
from meloformer.model.norm import CHUNK, RMSNorm
from meloformer.model.rope import Rotation, rotate, rotation


def plain_swiglu(ffn: SwiGLU, x: Tensor) -> Tensor:
    return ffn.down(silu(ffn.gate(x)) * ffn.up(x))


@pytest.mark.parametrize("rows", [1, CHUNK, CHUNK + 1, 3 * CHUNK])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_feed_forward_networks_in_chunks_are_those_of_autograd(rows: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    ffn = SwiGLU(16, 24).to(dtype)
    x = torch.randn(1, rows, 16, dtype=dtype, requires_grad=True)
    wanted, found = plain_swiglu(ffn, x), ffn(x)
    gradient = torch.randn_like(x)
    inputs = [x, *ffn.parameters()]
    pairs = [
        (wanted, found),
        *zip(torch.autograd.grad(wanted, inputs, gradient), torch.autograd.grad(found, inputs, gradient), strict=True),
    ]
    for one, other in pairs:
        assert one.dtype == other.dtype == dtype
        torch.testing.assert_close(
            other, one, rtol=0, atol=(1e-5 if dtype == torch.float32 else 2**-6) * one.abs().max().item()
        )


@pytest.mark.parametrize("rows", [5, 2 * CHUNK])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_under_autocast_networks_work_in_its_dtype_and_weights_keep_theirs(rows: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    ffn, norm = SwiGLU(16, 24), RMSNorm(16)
    x = torch.randn(1, rows, 16, requires_grad=True)
    with torch.autocast("cpu", dtype=dtype):
        wanted, found = plain_swiglu(ffn, nn.RMSNorm.forward(norm, x)), ffn(norm(x))
        assert norm(x).dtype == dtype
    assert found.dtype == wanted.dtype == dtype
    inputs = [x, *ffn.parameters(), *norm.parameters()]
    gradient = torch.randn_like(wanted)
    wanted_grads, found_grads = (torch.autograd.grad(out, inputs, gradient) for out in (wanted, found))
    for one, other in zip([wanted, *wanted_grads], [found, *found_grads], strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(other, one, rtol=0, atol=2**-5 * one.abs().max().item())


@pytest.mark.parametrize("rows", [5, 2 * CHUNK])
def test_two_tensors_of_the_inner_width_are_kept(rows: int) -> None:
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.shape[-1])
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        SwiGLU(16, 24)(torch.randn(1, rows, 16, requires_grad=True))
    of_the_weight = 1  # the last one is (16, 24)
    assert kept.count(24) == 2 + of_the_weight


@pytest.mark.parametrize("scale", [1.0, 1e-3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_in_chunks_are_those_of_pytorch(scale: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    norm = RMSNorm(16).to(dtype)
    nn.init.normal_(norm.weight, 1)
    x = torch.randn(1, 2 * CHUNK + 3, 16, dtype=dtype).mul_(scale).requires_grad_()
    wanted, found = nn.RMSNorm.forward(norm, x), norm(x)
    gradient = torch.randn_like(x)
    inputs = [x, norm.weight]
    pairs = [
        (wanted, found),
        *zip(torch.autograd.grad(wanted, inputs, gradient), torch.autograd.grad(found, inputs, gradient), strict=True),
    ]
    for one, other in pairs:
        assert one.dtype == other.dtype == dtype
        largest = one.abs().max().item()
        torch.testing.assert_close(other, one, rtol=0, atol=(1e-5 if dtype == torch.float32 else 2**-6) * largest)


def test_weights_that_are_frozen_get_no_gradients() -> None:
    ffn = SwiGLU(8, 8)
    ffn.up.weight.requires_grad_(False)
    ffn(torch.randn(2 * CHUNK, 8)).sum().backward()
    assert ffn.up.weight.grad is None
    assert ffn.gate.weight.grad is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotations_have_the_gradients_of_autograd(dtype: torch.dtype) -> None:
    def plain(heads: Tensor, by: Rotation) -> Tensor:
        first, second = heads.float().chunk(2, dim=-1)
        rotated = torch.cat([first * by.cos - second * by.sin, first * by.sin + second * by.cos], dim=-1)
        return rotated.to(heads.dtype)

    torch.manual_seed(0)
    position = torch.arange(10).expand(2, 10)
    by = rotation(position, position * 3, 8, "both")
    heads = torch.randn(2, 10, 3, 8, dtype=dtype, requires_grad=True)
    wanted, found = plain(heads, by), rotate(heads, by)
    gradient = torch.randn_like(heads)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(
        *(torch.autograd.grad(each, heads, gradient)[0] for each in (found, wanted)), rtol=2**-7, atol=1e-6
    )


def test_without_gradients_the_inner_width_takes_one_chunk() -> None:
    ffn, x = SwiGLU(8, 64), torch.randn(1, 4 * CHUNK, 8)
    made: list[int] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor) and result.shape[-1] == 64:
                made.append(result.untyped_storage().nbytes() // 4)
            return result

    with torch.no_grad(), Watch():
        found = ffn(x)
    assert made
    assert max(made) == 64 * CHUNK
    torch.testing.assert_close(found, plain_swiglu(ffn, x))


def test_norms_keep_the_accuracy_of_fp64() -> None:
    norm, x = RMSNorm(16).double(), torch.randn(2 * CHUNK, 16, dtype=torch.float64)
    torch.testing.assert_close(norm(x), nn.RMSNorm.forward(norm, x), rtol=1e-14, atol=1e-14)

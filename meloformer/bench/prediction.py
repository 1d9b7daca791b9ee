"""The memory of a training step on a GPU, predicted where there is none.

The real model and the real optimiser take real steps, on tensors without content (``FakeTensorMode``), under PyTorch's
own memory tracker. Only the attention kernel is stood in for: it keeps what FlexAttention keeps, its inputs, its output
and the logarithms of the denominators, and its backward pass makes the gradients. Predicted is what the tensors of a
step take. Beside that a GPU holds its context, workspaces, and what fragmentation wastes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn.functional import cross_entropy

from meloformer.bench.workload import made_up_rows
from meloformer.model import ffn, flex
from meloformer.model.batch import Batch
from meloformer.model.layout import Layout
from meloformer.model.meloformer import MeloFormer
from meloformer.model.nested import map_nested
from meloformer.settings import Settings
from meloformer.training.optimizer import make_optimizers

Content = TypeVar("Content")
_TRACKED = torch.device("cpu")
"""Where the fake tensors claim to be: a PyTorch without CUDA cannot make fake ones for CUDA. They have no content, so
this changes no size."""


@dataclass(frozen=True)
class PredictedMemory:
    """The most that the tensors of a step take at once, in bytes, and of what kind they are at that moment."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    """What is kept from the forward pass for the backward pass, logits among it."""
    temporary: int
    """What an operation of the backward pass or of the optimiser needs for itself."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.temporary


def predict_step_bytes(settings: Settings, dtype: torch.dtype | None = torch.bfloat16) -> PredictedMemory:
    """Predict the peak of a training step on CUDA: weights and optimiser in fp32, layers in a dtype by autocast.

    Args:
        settings: ``model``; ``bench`` for shape and seed; ``training`` for the optimiser.
        dtype: Of the layers; ``None`` is fp32 throughout.
    """
    model_settings = settings.model.model_copy(update={"attention": "flex"})
    rows, vocabulary = made_up_rows(settings)
    batch = Batch.of(rows, vocabulary)
    layout = Layout.of(batch, model_settings)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    batch, layout = _without_content(batch, mode), _without_content(layout, mode)
    tracker = MemTracker()
    with mode, _as_on_cuda():
        model = MeloFormer(model_settings, vocabulary)
        optimizers = make_optimizers(model, settings.training)
        tracker.track_external(model, *optimizers.values())
        with tracker:
            for _ in range(2):  # from the second step on the optimiser has its state
                tracker.reset_mod_stats()
                _step(model, list(optimizers.values()), batch, layout, dtype)
    peak = tracker.get_tracker_snapshot("peak")[_TRACKED]
    by_kind = {str(getattr(kind, "name", kind)): int(size) for kind, size in peak.items()}
    return PredictedMemory(
        weights=by_kind["PARAM"] + by_kind["BUFFER"],
        gradients=by_kind["GRAD"],
        optimizer=by_kind["OPT"],
        activations=by_kind["ACT"],
        temporary=by_kind["TEMP"] + by_kind["OTH"],
    )


def _step(
    model: MeloFormer,
    optimizers: list[torch.optim.Optimizer],
    batch: Batch,
    layout: Layout,
    dtype: torch.dtype | None,
) -> None:
    """Forward, backward, update; every token but the first is a target, for the number of targets is content."""
    with torch.autocast(_TRACKED.type, dtype=dtype, enabled=dtype is not None):
        logits = model(batch, layout)
    loss = cross_entropy(logits[:, :-1].flatten(0, 1).float(), batch.ids[:, 1:].flatten())
    del logits
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()


def _without_content(value: Content, mode: FakeTensorMode) -> Content:
    """The same with fake tensors, however deep they lie."""

    def fake(tensor: Tensor) -> Tensor:
        with mode:
            return torch.empty(tensor.shape, dtype=tensor.dtype, device=_TRACKED)

    return map_nested(value, Tensor, fake)


class _KernelMemory(torch.autograd.Function):
    """Takes and gives tensors as FlexAttention does."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        denominators = torch.empty(query.shape[:-1], dtype=torch.float32, device=query.device)
        ctx.save_for_backward(query, key, value, out, denominators)
        return out

    @staticmethod
    def backward(ctx: Any, _grad_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # pyright: ignore
        query, key, value, _, denominators = ctx.saved_tensors
        shift = torch.empty_like(denominators)
        gradients = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        del shift
        return gradients


def _attend(query_QHE: Tensor, key_RKE: Tensor, value_RKE: Tensor, _mask: object) -> Tensor:
    query, key, value = (each.to(query_QHE.dtype).transpose(0, 1)[None] for each in (query_QHE, key_RKE, value_RKE))
    return cast(Tensor, _KernelMemory.apply(query, key, value))[0].transpose(0, 1)


def _at_once(rows_ND: Tensor) -> Iterator[slice]:
    yield slice(0, len(rows_ND))


@contextmanager
def _as_on_cuda() -> Iterator[None]:
    originals = flex.attend, ffn.chunks
    flex.attend, ffn.chunks = _attend, _at_once
    try:
        yield
    finally:
        flex.attend, ffn.chunks = originals

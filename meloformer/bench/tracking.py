"""A training step under PyTorch's memory tracker, on real tensors or on tensors without content.

The real model and the real optimisers take the step. On tensors without content (``FakeTensorMode``) nothing is
computed, so a machine without a GPU can tell what a step takes on one. Such tensors cannot claim to be on CUDA where
PyTorch was built without it, so they claim to be on the CPU; what the model does there otherwise than on CUDA is stood
in for (:func:`kernels_stood_in_for`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, Literal, cast
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn.functional import cross_entropy

from meloformer.model import block_masks, ffn, flex, norm
from meloformer.model.batch import Batch
from meloformer.model.blocks import Block
from meloformer.model.layout import Layout
from meloformer.model.meloformer import MeloFormer
from meloformer.settings import ModelSettings, TrainingSettings
from meloformer.tokens.vocabulary import Vocabulary
from meloformer.training.loading import Pass
from meloformer.training.optimizer import Optimizers, make_optimizers
from meloformer.training.step import Precision, train_step

CPU = torch.device("cpu")
KINDS = ("weights", "gradients", "optimizer", "activations", "logits", "temporary")
"""Of memory. Activations are kept from the forward pass for the backward pass; logits are all tensors as wide as the
vocabulary, with their gradients; temporary is what operations of the backward pass and the optimisers need."""
_LOGITS = "Logits"
_OF_KIND = {
    "weights": ("PARAM", "BUFFER"),
    "gradients": ("GRAD",),
    "optimizer": ("OPT",),
    "activations": ("ACT",),
    "logits": (_LOGITS,),
    "temporary": ("TEMP",),
}

Phase = Literal["forward", "head", "backward"]
Mark = tuple[Phase, int]
"""A part of a step begins: ``("forward", 3)`` is layer 3."""


@dataclass(frozen=True)
class Timeline:
    """What was in use after every operation of a step, in bytes; a row has one number for each of ``KINDS``."""

    rows: list[tuple[int, ...]]
    marks: list[tuple[int, Mark]]
    """(number of the first row, what begins there)."""

    @property
    def peak(self) -> dict[str, int]:
        """The row with the largest sum."""
        return dict(zip(KINDS, max(self.rows, key=sum), strict=True))


@cache
def fake_mode() -> FakeTensorMode:
    """Inside, tensors have no content. One for all: those of another mode would have to be made over."""
    return FakeTensorMode(allow_non_fake_inputs=True)


class StepTracker(MemTracker):
    """Keeps what was in use after every operation, and tells logits from activations.

    PyTorch's tracker also looks for the peak of every module after every operation, which takes most of its time.
    """

    def __init__(self, num_words: int) -> None:
        super().__init__()
        self._num_words = num_words
        self._ref_class: Any = [*self._ref_class, _LOGITS]
        self._columns = [
            [key for key in self._ref_class if getattr(key, "name", key) in names] for names in _OF_KIND.values()
        ]
        self.rows: list[tuple[int, ...]] = []
        self.marks: list[tuple[int, Mark]] = []

    def mark(self, mark: Mark) -> None:
        """Something begins."""
        self.marks.append((len(self.rows), mark))

    def _track(self, reftype: Any, t: Tensor) -> None:
        is_logits = t.dim() >= 2 and t.shape[-1] == self._num_words and not self._in_opt
        super()._track(cast(Any, _LOGITS) if is_logits else reftype, t)

    def _update_peak_stats(self, peak_state: Any) -> None:  # noqa: ARG002
        in_use = self._curr_mem_snap.get(CPU)
        if in_use is not None:
            self.rows.append(tuple(sum(in_use[key] for key in keys) for keys in self._columns))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:  # a third of all operations, and no memory
            return func(*args, **kwargs or {})
        return super().__torch_dispatch__(func, types, args, kwargs)


@dataclass(frozen=True)
class Trial:
    """A step to be tracked."""

    model: ModelSettings
    training: TrainingSettings
    """``precision`` and ``optimizer`` count."""
    vocabulary: Vocabulary
    batch: Batch
    """On the CPU, or without content."""
    layout: Layout | None = None
    """Without content; ``None`` has the step take real tensors, and make its layout itself."""
    for_cuda: bool = True
    """Whether what CUDA does otherwise than a CPU is stood in for."""


def track_step(trial: Trial) -> Timeline:
    """Take one step, as the ones after the first are: the optimisers have their states already."""
    with _prepared(trial) as (model, optimizers, tracker):
        for number, layer in enumerate(model.layers):
            _mark_layer(tracker, cast(Block, layer), number)
        precision = Precision.of(trial.training.precision or "bf16", CPU)
        with tracker:
            if trial.layout is None:
                train_step(
                    model, optimizers, [Pass(trial.batch)], learning_rate=1e-3, clip_norm=1.0, precision=precision
                )
            else:
                _gradients_without_content(model, trial.batch, trial.layout, precision)
    rows, marks = tracker.rows, tracker.marks
    return Timeline(rows, marks) if trial.layout is None else Timeline([*rows, *track_update(trial).rows], marks)


def track_gradients(trial: Trial) -> Timeline:
    """The step up to its update, without content."""
    assert trial.layout is not None
    with _prepared(trial) as (model, _, tracker):
        for number, layer in enumerate(model.layers):
            _mark_layer(tracker, cast(Block, layer), number)
        with tracker:
            precision = Precision.of(trial.training.precision or "bf16", CPU)
            _gradients_without_content(model, trial.batch, trial.layout, precision)
    return Timeline(tracker.rows, tracker.marks)


def track_update(trial: Trial) -> Timeline:
    """The end of the step, without content: clip and update. The logits are still there, as in ``train_step``."""
    with _prepared(trial) as (model, optimizers, tracker):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        tracker.track_external(model)
        dtype = Precision.of(trial.training.precision or "bf16", CPU).dtype or torch.float32
        with tracker:
            logits = torch.empty((*trial.batch.ids.shape, len(trial.vocabulary)), dtype=dtype)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers.values():
                optimizer.step()
                optimizer.zero_grad()
            del logits
    return Timeline(tracker.rows, [])


@contextmanager
def _prepared(trial: Trial) -> Iterator[tuple[MeloFormer, Optimizers, StepTracker]]:
    """A model, optimisers that have their states, and a tracker that knows them."""
    with ExitStack() as stack:
        if trial.layout is not None:
            stack.enter_context(fake_mode())
        if trial.for_cuda:
            stack.enter_context(kernels_stood_in_for())
        model = MeloFormer(trial.model, trial.vocabulary)
        optimizers = make_optimizers(model, trial.training)
        for optimizer in optimizers.values():
            for group in optimizer.param_groups:
                if "foreach" in group:
                    group["foreach"] = trial.for_cuda  # PyTorch's default there: all weights at once
        _make_states(optimizers)
        tracker = StepTracker(len(trial.vocabulary))
        tracker.track_external(model, *optimizers.values(), *tensors_of((trial.batch, trial.layout)))
        yield model, optimizers, tracker


def tensors_of(value: object) -> list[Tensor]:
    """However deep they lie, always in the same order."""
    if isinstance(value, Tensor):
        return [value]
    parts: Iterable[object] = ()
    if is_dataclass(value):
        parts = (getattr(value, field.name) for field in fields(value))
    elif isinstance(value, dict):
        parts = value.values()
    elif isinstance(value, tuple):
        parts = value
    return [tensor for part in parts for tensor in tensors_of(part)]


def _make_states(optimizers: Optimizers) -> None:
    """Those that an update leaves: something of the size of the weight, and for AdamW another and a count of steps.

    A real update on tensors without content would give the same and take as long as all else.
    """
    for name, optimizer in optimizers.items():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                state = optimizer.state[parameter]
                if name == "muon":
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                else:
                    state["step"] = torch.tensor(1.0)  # fake, but of known content
                    state["exp_avg"], state["exp_avg_sq"] = (torch.zeros_like(parameter) for _ in range(2))


def _mark_layer(tracker: StepTracker, layer: Block, number: int) -> None:
    def before(*_arguments: object) -> None:
        tracker.mark(("forward", number))

    def after(_layer: nn.Module, _arguments: object, outputs: tuple[Tensor, Tensor]) -> None:
        tracker.mark(("head", number))
        regular, summary = outputs
        last_made = summary if layer.attention.summary_out is not None else regular  # is the first to have a gradient
        last_made.register_hook(lambda _grad: tracker.mark(("backward", number)))

    layer.register_forward_pre_hook(before)
    layer.register_forward_hook(after)


def _gradients_without_content(model: MeloFormer, batch: Batch, layout: Layout, precision: Precision) -> None:
    """Forward and backward as in :func:`~meloformer.training.step.train_step`, without looking at any content.

    Every token but the first of a row is a target, for how many are is content.
    """
    with precision.layers(CPU):
        logits = model(batch, layout)
    rows, places = torch.empty((2, batch.ids[:, 1:].numel()), dtype=torch.int64)
    chosen = logits[:, :-1][rows, places].float()
    loss = cross_entropy(chosen, batch.ids[:, 1:][rows, places], reduction="none").sum() / len(rows)
    del chosen
    loss.backward()
    del logits


class _FlexMemory(torch.autograd.Function):
    """Takes, keeps and gives tensors as FlexAttention does: inputs, output, logarithms of the denominators."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.zeros_like(query)
        denominators = torch.zeros(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, denominators)
        return out

    @staticmethod
    def backward(ctx: Any, _grad_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # pyright: ignore
        query, key, value, _, denominators = ctx.saved_tensors
        shift = torch.zeros_like(denominators)
        gradients = torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value)
        del shift
        return gradients


def _attend(query_QHE: Tensor, key_RKE: Tensor, value_RKE: Tensor, _mask: object) -> Tensor:
    query, key, value = (each.to(query_QHE.dtype).transpose(0, 1)[None] for each in (query_QHE, key_RKE, value_RKE))
    return cast(Tensor, _FlexMemory.apply(query, key, value))[0].transpose(0, 1)


class _NormMemory(torch.autograd.Function):
    """As the fused kernel for CUDA: input and one number a row are kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, torch.zeros((*x.shape[:-1], 1), dtype=torch.float32))
        return torch.zeros_like(x)

    @staticmethod
    def backward(ctx: Any, _grad_out: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore
        x, weight, _ = ctx.saved_tensors
        return torch.zeros_like(x), torch.zeros_like(weight)


def _normalise(self: nn.RMSNorm, x: Tensor) -> Tensor:
    return cast(Tensor, _NormMemory.apply(x, self.weight)).to(norm.layer_dtype(x))


def _at_once(rows_ND: Tensor) -> Iterator[slice]:
    yield slice(0, len(rows_ND))


@contextmanager
def kernels_stood_in_for() -> Iterator[None]:
    """Inside, the model has the memory on a CPU that it would have on CUDA; what it computes is nonsense."""
    with (
        patch.object(flex, "attend", _attend),
        patch.object(block_masks.Reading, "mask", None),
        patch.object(norm.RMSNorm, "forward", _normalise),
        patch.object(ffn, "chunks", _at_once),
    ):
        yield

"""The memory of a training step on a GPU, predicted where there is none, for any length of row and number of rows.

What a step takes after each of its operations is a sum of tensors, and the size of each is a constant plus a multiple
of the number of tokens. So one step is tracked on rows of 2^44 tokens that have no content, and every size falls into
the two parts by a division. The layers are alike but for the last, so models of two and of three layers tell what each
layer adds. The result is not an estimate of the tracked step but what tracking it at that length and depth would give:
tests compare the two.

Predicted is what the tensors of a step take. A GPU also holds its context, workspaces, and what fragmentation wastes;
:class:`~meloformer.bench.fits.Allowance` says how much is left for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import lru_cache
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from meloformer.bench.tracking import (
    CPU,
    KINDS,
    Mark,
    Phase,
    Timeline,
    Trial,
    fake_mode,
    tensors_of,
    track_gradients,
    track_step,
    track_update,
)
from meloformer.bench.workload import made_up_rows
from meloformer.errors import SettingsError
from meloformer.model.batch import Batch
from meloformer.model.flex import FlexPath
from meloformer.model.layout import Layout
from meloformer.settings import BenchSettings, ModelSettings, Settings, TrainingSettings
from meloformer.tokens.vocabulary import Vocabulary

Content = TypeVar("Content")
Made = tuple[Batch, Layout]
Parts = tuple[np.ndarray, np.ndarray]
"""(rows, 6) constants, and (rows, 6) slopes for each ``UNIT``."""
ROWS = 2
HUGE = 2**44
"""Tokens of the step that is tracked."""
UNIT = HUGE // 64
"""Sizes are whole multiples of it, and constants below its half: there are 64 tokens to a bar."""
TOKENS_PER_BAR = 64
"""As music made by rule has; real music has 10 to 250. Summaries are padded to an eighth of the tokens anyway."""
STEP = 1024
"""Numbers of tokens are rounded up to a multiple: so all layouts are padded alike."""


@dataclass(frozen=True)
class PredictedMemory:
    """The most that the tensors of a step take at once, in bytes, and of what kind they are at that moment."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    """What is kept from the forward pass for the backward pass."""
    logits: int
    """All that is as wide as the vocabulary: logits, their copies in fp32, and their gradients."""
    temporary: int
    """What operations of the backward pass or of the optimisers need for themselves."""
    layout: int
    """The batch, who sees whom, and rotary angles: what depends on the music alone."""

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.to_dict().values())

    def to_dict(self) -> dict[str, int]:
        """Name of the part -> bytes."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def predict_memory(settings: Settings, *, seq_len: int | None = None, batch_size: int | None = None) -> PredictedMemory:
    """Predict the peak of a training step on CUDA.

    Args:
        settings: ``model``; ``training`` for optimiser and precision, by default bf16 with weights in fp32.
        seq_len, batch_size: By default those of ``bench``.
    Raises:
        SettingsError: FlexAttention cannot take the model.
    """
    seq_len, batch_size = seq_len or settings.bench.seq_len, batch_size or settings.bench.batch_size
    return MemoryProfile.of(settings.model, settings.training).at(seq_len * batch_size)


@dataclass(frozen=True)
class MemoryProfile:
    """What a step takes as a function of its tokens."""

    constants: np.ndarray
    """(E, 6) bytes of every kind after every operation that may be the peak."""
    slopes: np.ndarray
    """(E, 6) bytes for 64 more tokens."""
    layouts: tuple[Made, Made]
    """Batch and layout of 1 and 2 times ``ROWS * STEP`` tokens."""

    @classmethod
    def of(cls, model: ModelSettings, training: TrainingSettings) -> MemoryProfile:
        """Track the steps, or find that they have been tracked before.

        Raises:
            SettingsError: FlexAttention cannot take the model.
        """
        return _profile_of(model.model_dump_json(), training.precision or "bf16", training.optimizer)

    def at(self, num_tokens: int) -> PredictedMemory:
        """The peak of a step of so many tokens, in however many rows."""
        num_tokens = -(-num_tokens // STEP) * STEP
        rows = self.constants + self.slopes * (num_tokens // 64)
        peak = rows[rows.sum(1).argmax()]
        layout = sum(
            tensor.element_size() * int(np.prod(_shape_at(tensor, larger, num_tokens)))
            for tensor, larger in zip(*map(tensors_of, self.layouts), strict=True)
        )
        return PredictedMemory(**dict(zip(KINDS, peak.tolist(), strict=True)), layout=layout)


@lru_cache(maxsize=64)
def _profile_of(model_json: str, precision: Any, optimizer: Any) -> MemoryProfile:
    model = ModelSettings.model_validate_json(model_json)
    if not FlexPath.fits(model):
        raise SettingsError(
            f"there is no prediction for heads of width {model.head_dim}: FlexAttention takes none below 16",
            "choose fewer heads or a larger model.dim",
        )
    model = model.model_copy(update={"attention": "flex"})
    training = TrainingSettings(precision=precision, optimizer=optimizer)
    layouts = layouts_of(model)
    batch, layout = without_content(layouts, HUGE)

    def trial(num_layers: int) -> Trial:
        shallow = model.model_copy(update={"num_layers": num_layers})
        return Trial(shallow, training, Vocabulary.default(), batch, layout)

    if model.num_layers <= 3:
        return MemoryProfile(*_parts(np.array(track_step(trial(model.num_layers)).rows, dtype=object)), layouts)
    update = _update_of(model.model_copy(update={"checkpointing": "none"}).model_dump_json(), precision, optimizer)
    two, three = (_segments(track_gradients(trial(num_layers))) for num_layers in (2, 3))
    rows = [*_deepened(two, three, model.num_layers), update]
    constants, slopes = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    return MemoryProfile(constants, slopes, layouts)


@lru_cache(maxsize=64)
def _update_of(model_json: str, precision: Any, optimizer: Any) -> Parts:
    """The operation of the update that takes most; a way of checkpointing changes nothing of it."""
    model = ModelSettings.model_validate_json(model_json)
    training = TrainingSettings(precision=precision, optimizer=optimizer)
    batch, layout = without_content(layouts_of(model), HUGE)
    peaks: list[np.ndarray] = []
    for num_layers in (2, 3):
        shallow = model.model_copy(update={"num_layers": num_layers})
        rows = track_update(Trial(shallow, training, Vocabulary.default(), batch, layout)).rows
        # An optimiser may have operations for every weight, so their numbers are not the same.
        peaks.append(np.array([max(rows, key=sum)], dtype=object))
    more = model.num_layers - 2
    return _sum_of_parts((peaks[0], 1 - more), (peaks[1], more))


def _segments(timeline: Timeline) -> dict[Mark | None, np.ndarray]:
    """(rows, 6) Python integers, by what they belong to; ``None`` is what comes before the first layer."""
    starts = [start for start, _ in timeline.marks]
    pieces = np.split(np.array(timeline.rows, dtype=object), starts)
    return dict(zip([None, *(mark for _, mark in timeline.marks)], pieces, strict=True))


def _deepened(
    two: dict[Mark | None, np.ndarray], three: dict[Mark | None, np.ndarray], num_layers: int
) -> Iterator[Parts]:
    """Constants and slopes of a step of ``num_layers`` layers, from steps of two and of three.

    Every operation takes a constant, so much for every layer of the model, and so much for every layer below its own:
    its layer's number. That is largest in the first or in the last layer, so only these are looked at.
    """
    more = num_layers - 2
    ends: tuple[tuple[Mark | None, Mark | None], ...] = (
        (None, None), (("forward", 1), ("forward", 2)), (("head", 1), ("head", 2)),
        (("backward", 1), ("backward", 2)), (("backward", 0), ("backward", 0)),
    )  # fmt: skip
    for of_two, of_three in ends:
        yield _sum_of_parts((two[of_two], 1 - more), (three[of_three], more))
    inner: tuple[tuple[Phase, tuple[int, int]], ...]
    inner = (("forward", (0, num_layers - 2)), ("backward", (1, num_layers - 2)))
    for phase, numbers in inner:
        upper = three[phase, 1]
        lower, of_two = three[phase, 0][: len(upper)], two[phase, 0][: len(upper)]
        for number in numbers:
            yield _sum_of_parts((of_two, 1 - more), (lower, more - number), (upper, number))


def _sum_of_parts(*terms: tuple[np.ndarray, int]) -> Parts:
    """Constants and slopes of a weighted sum of rows."""
    parts = [(_parts(rows), weight) for rows, weight in terms]
    constants, slopes = (sum(part[index] * weight for part, weight in parts) for index in (0, 1))
    return cast(np.ndarray, constants), cast(np.ndarray, slopes)


def _parts(rows: np.ndarray) -> Parts:
    """(rows, 6) sizes at ``HUGE`` tokens -> constants, and slopes for each ``UNIT``."""
    slopes = (rows + UNIT // 2) // UNIT
    return (rows - slopes * UNIT).astype(np.int64), slopes.astype(np.int64)


def layouts_of(model: ModelSettings) -> tuple[Made, Made]:
    """Batch and layout of 1 and 2 times ``ROWS * STEP`` tokens; the shapes of all others follow."""
    made: list[Made] = []
    for seq_len in (STEP, 2 * STEP):
        settings = Settings(model=model, bench=BenchSettings(seq_len=seq_len, batch_size=ROWS))
        rows, vocabulary = made_up_rows(settings)
        batch = Batch.of(rows, vocabulary, num_bars=seq_len // TOKENS_PER_BAR)
        made.append((batch, Layout.of(batch, model)))
    return made[0], made[1]


def without_content(layouts: tuple[Made, Made], num_tokens: int) -> Made:
    """Batch and layout of ``num_tokens`` tokens."""
    with fake_mode():
        return _scaled(*layouts, num_tokens)


def _shape_at(tensor: Tensor, larger: Tensor, num_tokens: int) -> tuple[int, ...]:
    """The shape at ``num_tokens`` tokens of what has these at 1 and 2 times ``ROWS * STEP`` tokens."""
    return tuple(_at(one, two, num_tokens) for one, two in zip(tensor.shape, larger.shape, strict=True))


def _at(one: int, two: int, num_tokens: int) -> int:
    return one + (two - one) * (num_tokens - ROWS * STEP) // (ROWS * STEP)


def _scaled(one: Content, two: Content, num_tokens: int) -> Content:
    """The same at ``num_tokens`` tokens, with tensors that have no content."""
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        is_square = sum(first != second for first, second in zip(one.shape, two.shape, strict=True)) > 1
        shape = one.shape if is_square else _shape_at(one, two, num_tokens)  # lists of blocks, which only kernels read
        return cast(Content, torch.empty(shape, dtype=one.dtype, device=CPU))
    if is_dataclass(one) and not isinstance(one, type):
        parts = {f.name: _scaled(getattr(one, f.name), getattr(two, f.name), num_tokens) for f in fields(one)}
        return cast(Content, replace(one, **parts))
    if isinstance(one, dict) and isinstance(two, dict):
        return cast(Content, {name: _scaled(part, two[name], num_tokens) for name, part in one.items()})
    if isinstance(one, tuple) and isinstance(two, tuple):
        parts = [_scaled(*pair, num_tokens) for pair in zip(one, two, strict=True)]
        return cast(Content, type(one)(*parts) if hasattr(one, "_fields") else tuple(parts))
    if isinstance(one, int) and isinstance(two, int) and not isinstance(one, bool) and one != two:
        return cast(Content, _at(one, two, num_tokens))
    return one

"""Matrix products of a training step, counted in three conventions, and how many a device can do.

- *visible*: 6 for every weight and token or summary, and 12 for every pair of tokens that see each other and every
  dimension of a head: what has to be computed, and nothing else.
- *executed*: the same with all pairs that the path computes, hidden ones in tiles or blocks among them.
- *dense*: the same with all pairs of tokens of a row, as is usual for plain transformers. A sparse model does not
  compute them; the figure only compares with others'.

Source: Chowdhery et al., "PaLM", arXiv:2204.02311, appendix B. What checkpointing computes again is not counted.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple

import torch

from meloformer.model.batch import Batch
from meloformer.model.block_masks import BLOCK, Reading
from meloformer.model.dense import DensePath
from meloformer.model.flex import FlexPath
from meloformer.model.layout import Layout
from meloformer.model.sparse import SparsePath
from meloformer.model.tiling import Tiling
from meloformer.settings import ModelSettings

FLOPS_PER_WEIGHT, FLOPS_PER_PAIR = 6, 12
PEAK_FLOPS = {
    "H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12, "A100": 312e12, "A10G": 70e12,
    "L40S": 362e12, "L4": 121e12, "RTX 4090": 165e12, "RTX 5090": 209e12,
}  # fmt: skip
"""bf16 without sparsity, sums in fp32, as NVIDIA's data sheets have it; by a part of the device's name, the first that
fits."""


@dataclass(frozen=True)
class StepWork:
    """FLOP of a training step, the optimiser left out."""

    visible: float
    executed: float
    dense: float


def step_work(batch: Batch, layout: Layout, settings: ModelSettings, num_words: int) -> StepWork:
    """Count.

    Args:
        batch: Of the step.
        layout: Of the batch, as the step takes it.
        settings: Of the model.
        num_words: Of the vocabulary.
    """
    num_rows, seq_len = batch.ids.shape
    linear = linear_flops(settings, num_words, batch.ids.numel(), batch.bar_document.numel())
    pairs = {
        "visible": visible_pairs(batch, settings),
        "executed": executed_pairs(layout, settings),
        "dense": settings.num_heads * num_rows * seq_len**2,
    }
    return StepWork(**{name: linear + pair_flops(settings, count) for name, count in pairs.items()})


def linear_flops(settings: ModelSettings, num_words: int, num_tokens: int, num_summaries: int = 0) -> float:
    """Of all layers' matrices and of the output embedding; with ``num_summaries=0``, of a plain transformer."""
    kv_dim = settings.num_kv_heads * settings.head_dim
    square, ffn, keys = settings.dim**2, 3 * settings.dim * settings.ffn_dim, 2 * settings.dim * kv_dim
    layer = 2 * square + keys + ffn
    weighted = num_tokens * (settings.num_layers * layer + settings.dim * num_words)
    if num_summaries and settings.has_summaries:
        unread = square + ffn  # the summary stream has no output in the last layer
        weighted += num_summaries * (settings.num_layers * (layer + keys) - unread)
    return FLOPS_PER_WEIGHT * weighted


def pair_flops(settings: ModelSettings, num_pairs: float) -> float:
    """Of all layers, for ``num_pairs`` pairs of one layer, all heads together."""
    return FLOPS_PER_PAIR * settings.num_layers * num_pairs * settings.head_dim


def visible_pairs(batch: Batch, settings: ModelSettings) -> int:
    """Of all heads of a layer, in both phases; the type rule, which hides some more, is not looked at."""
    path = FlexPath.of(batch, settings)
    updated = sum(count * path.updated[family].num_pairs for family, count in settings.heads.items())
    return _summarising_heads(settings) * path.summarised.num_pairs + updated


def _summarising_heads(settings: ModelSettings) -> int:
    """Of the first phase."""
    return settings.num_heads if settings.has_summaries else 0


def executed_pairs(layout: Layout, settings: ModelSettings) -> int:
    """Of all heads of a layer, in both phases, that the path computes."""
    path = layout.path
    if isinstance(path, DensePath):
        masks = {family: mask[:, 0].numel() for family, mask in path.updated.items()}
        return _summarising_heads(settings) * path.summarised.numel() + sum(
            count * masks[family] for family, count in settings.heads.items()
        )
    assert isinstance(path, SparsePath | FlexPath)
    readings = [(path.summarised, _summarising_heads(settings))]
    readings += [(path.updated[family], count) for family, count in settings.heads.items()]
    return sum(count * _computed(reading) for reading, count in readings)


def _computed(reading: Reading | Tiling) -> int:
    """Pairs in tiles, or in the blocks that a kernel reads."""
    if isinstance(reading, Tiling):
        return reading.num_pairs
    return BLOCK**2 * int(reading.partial.num_keys.sum() + reading.full.num_keys.sum())


class PeakSpeed(NamedTuple):
    """How many FLOP a second matrix products reach."""

    flops: float
    source: str


def peak_speed(device: torch.device, dtype: torch.dtype = torch.float32) -> PeakSpeed:
    """From the data sheet, or else the best of some products of 1,024 by 1,024 here and now."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for part, flops in PEAK_FLOPS.items():
            if part in name:
                return PeakSpeed(flops, f"{part}, bf16, data sheet")
    side = 1024
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    seconds: list[float] = []
    for _ in range(6):
        started = time.perf_counter()
        torch.mm(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return PeakSpeed(2 * side**3 / min(seconds), f"products of {side} x {side} here, {str(dtype).rpartition('.')[2]}")

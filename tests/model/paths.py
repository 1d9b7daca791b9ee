"""Rows that attention finds hard, and what a path makes of them: for the tests of all paths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from meloformer.model.batch import Batch
from meloformer.model.dense import DensePath
from meloformer.model.flex import FlexPath
from meloformer.model.sparse import SparsePath
from meloformer.settings import HeadFamily, ModelSettings
from meloformer.tokens.vocabulary import PAD, Vocabulary
from tests.strategies import random_document

FP32 = 1e-5
"""Largest difference by the largest value; of outputs and of each gradient."""
PRECISION = {torch.float32: FP32, torch.bfloat16: 2**-7, torch.float16: 2**-10}
"""Largest difference by the largest value; of outputs and of each gradient."""
FAMILIES: tuple[HeadFamily, ...] = ("track", "ensemble", "onset", "pitch")
ALL_FAMILIES: dict[HeadFamily, int] = dict.fromkeys(FAMILIES, 1)
NAMES = ("query", "key", "value", "summary query", "summary key", "summary value", "second key", "second value")


def settings_of(**changes: Any) -> ModelSettings:
    given = {"num_layers": 1, "dim": 32, "ffn_dim": 48, "heads": ALL_FAMILIES, **changes}
    return ModelSettings.of_size("tiny", **given)


def row_of(text: str) -> np.ndarray:
    return np.array([Vocabulary.default().id_of(name) for name in text.split()], dtype=np.uint16)


def piece(seed: int, notes_of_bars: list[int], num_instruments: int = 3) -> np.ndarray:
    """A document with so many notes in each bar, shared out between instruments; a bar of no notes is one token."""
    rng, vocabulary = np.random.default_rng(seed), Vocabulary.default()
    names = ["BOS"]
    for bar, num_notes in enumerate(notes_of_bars):
        names += ["N", "1/4", "120"] if bar == 0 else ["N"]
        for instrument, share in enumerate(np.array_split(np.arange(num_notes), num_instruments)):
            if len(share):
                names.append(f"#{instrument}")
            for _ in share:
                names += [f"T{rng.integers(0, 16)}", f"P{rng.integers(48, 72)}", "D3", "V9"]
    return np.array([vocabulary.id_of(name) for name in [*names, "EOS"]])


def padded(row: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([row, np.full(count, PAD)])


def random_row(seed: int, num_documents: int = 2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    parts = [random_document(rng, Vocabulary.default(), num_bars=5, max_tokens=90) for _ in range(num_documents)]
    return np.concatenate(parts).astype(np.int64)


BATCHES: dict[str, list[np.ndarray]] = {
    "random": [random_row(1), random_row(2)],
    "many documents in a row": [np.concatenate([piece(seed, [1, 2]) for seed in range(30)]), random_row(3, 5)],
    "rows of different pieces, one mostly padding": [piece(1, [9] * 8), padded(piece(2, [3]), 300), random_row(4)],
    "nothing but padding": [padded(random_row(5), 20), np.full(150, PAD)],
    "bars of one token": [piece(1, [0] * 200), piece(2, [0, 0, 5, 0] * 9)],
    "a bar of a thousand tokens": [piece(1, [3, 250, 0, 4])],
    "one instrument": [piece(1, [20] * 10, num_instruments=1)],
    "twenty instruments": [piece(1, [60] * 5, num_instruments=20)],
    "a piece that goes on": [piece(1, [8] * 9)[150:]],
    "one token": [np.array([1])],
}


@dataclass
class Outcome:
    """Both outputs and the gradient of every input."""

    outputs: tuple[Tensor, Tensor]
    gradients: dict[str, Tensor]


def outcome(path: DensePath | SparsePath | FlexPath, inputs: list[Tensor], seed: int = 1) -> Outcome:
    leaves = [each.detach().clone().requires_grad_() for each in inputs]
    query, key, value, summary_query, summary_key, summary_value, second_key, second_value = leaves
    outputs = (
        path.summarise(summary_query, summary_key, summary_value, key, value),
        path.update(query, key, value, second_key, second_value),
    )
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(each.shape, generator=generator).to(each) for each in outputs]
    torch.autograd.backward(outputs, weights)
    gradients = {
        name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        for name, leaf in zip(NAMES, leaves, strict=True)
    }
    return Outcome((outputs[0].detach(), outputs[1].detach()), gradients)


def inputs_of(batch: Batch, settings: ModelSettings, dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    all_heads, shared = settings.num_heads, settings.num_kv_heads
    tokens, bars = tuple(batch.ids.shape), tuple(batch.bar_document.shape)
    shapes = [(*tokens, n) for n in (all_heads, shared, shared)] + [(*bars, n) for n in (all_heads, *[shared] * 4)]
    return [torch.randn(*shape, settings.head_dim, generator=generator).mul_(1.5).to(dtype) for shape in shapes]


def sparse_settings(**changes: Any) -> ModelSettings:
    return settings_of(**{"attention": "sparse", **changes})


def assert_same(rows: list[np.ndarray], settings: ModelSettings, dtype: torch.dtype = torch.float32) -> None:
    """Compare with the dense reference in fp64 on the same inputs."""
    batch = Batch.of(rows)
    inputs = inputs_of(batch, settings, dtype)
    found = outcome(SparsePath.of(batch, settings), inputs)
    wanted = outcome(DensePath.of(batch, settings, torch.float64), [each.double() for each in inputs])
    assert_close(found, wanted, dtype)


def assert_close(found: Outcome, wanted: Outcome, dtype: torch.dtype) -> None:
    """Outputs and gradients, to the precision of the dtype."""
    pairs = [*zip(("summarised", "updated"), found.outputs, wanted.outputs, strict=True)]
    pairs += [(f"gradient of {name}", found.gradients[name], wanted.gradients[name]) for name in NAMES]
    largest_gradient = max(float(each.abs().max()) for each in wanted.gradients.values())
    for name, one, other in pairs:
        assert one.dtype == dtype
        assert one.isfinite().all(), name
        # The gradient of a lonely query is zero but for rounding: its scale is that of the other gradients.
        scale = largest_gradient if name.startswith("gradient") else float(other.abs().max())
        assert float((one.cpu().double() - other).abs().max()) <= PRECISION[dtype] * scale, name

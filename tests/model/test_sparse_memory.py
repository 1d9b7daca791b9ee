"""Memory of the sparse path grows with what is seen."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from meloformer.model.attention import FourPhaseAttention
from meloformer.model.batch import Batch
from meloformer.model.layout import Layout
from meloformer.model.sparse import SparsePath
from meloformer.model.tiling import TILE
from tests.model.test_sparse import inputs_of, outcome, piece, settings_of

pytestmark = pytest.mark.usefixtures("one_thread")


class Largest(TorchDispatchMode):
    """Remembers the most elements that a new tensor had."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(each, Tensor) and each.numel():
                self.elements = max(self.elements, each.untyped_storage().nbytes() // each.element_size())
        return result


def appetite(num_documents: int) -> tuple[int, int, int]:
    """Tokens of a row of like documents, elements of its largest tensor, peak bytes of making its layout."""
    row = np.concatenate([piece(seed, [8] * 12) for seed in range(num_documents)])
    settings = settings_of(dim=16)
    batch = Batch.of([row])
    attention = FourPhaseAttention(settings, summary_goes_on=True)
    tracemalloc.start()
    layout = Layout.of(batch, settings)
    layout_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    tensors = [layout.path.summarised, *layout.path.updated.values()] if isinstance(layout.path, SparsePath) else []
    with Largest() as largest:
        streams = (torch.randn(1, n, 16, requires_grad=True) for n in (len(row), batch.bar_document.shape[1]))
        hidden, _ = attention(*streams, layout)
        hidden.sum().backward()
    return len(row), max(largest.elements, *(tiling.hidden.numel() for tiling in tensors)), layout_bytes


def test_no_tensor_has_all_tokens_by_all_tokens_and_memory_grows_with_the_length() -> None:
    (short, elements, layout), (long, more_elements, more_layout) = appetite(6), appetite(24)
    assert long == 4 * short > 8_000
    assert more_elements < 4.3 * elements
    assert more_layout < 4.3 * layout
    assert more_elements < long * long / 20


def test_a_document_of_many_tiles_has_no_tensor_of_all_by_all() -> None:
    batch = Batch.of([piece(1, [30] * 60, num_instruments=1)])
    num_tokens = batch.ids.shape[1]
    assert num_tokens > 40 * TILE
    with Largest() as largest:
        settings = settings_of(dim=16)
        outcome(SparsePath.of(batch, settings), inputs_of(batch, settings, torch.float32))
    assert largest.elements < num_tokens**2 / 20

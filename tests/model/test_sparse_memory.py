"""Memory of the sparse path grows with what is seen."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from torch import Tensor

from meloformer.model.attention import FourPhaseAttention
from meloformer.model.batch import Batch
from meloformer.model.layout import Layout
from meloformer.model.sparse import SparsePath
from meloformer.model.tiling import TILE
from tests.model.operations import Watched
from tests.model.paths import inputs_of, outcome, piece, sparse_settings

pytestmark = pytest.mark.usefixtures("one_thread")


class Largest:
    """Remembers the most elements that a new tensor had."""

    elements = 0

    def see(self, _name: str, _arguments: object, results: list[Tensor]) -> None:
        for each in results:
            if each.numel():
                self.elements = max(self.elements, each.untyped_storage().nbytes() // each.element_size())


def appetite(num_documents: int) -> tuple[int, int, int]:
    """Tokens of a row of like documents, elements of its largest tensor, peak bytes of making its layout."""
    row = np.concatenate([piece(seed, [8] * 12) for seed in range(num_documents)])
    settings = sparse_settings(dim=16)
    batch = Batch.of([row])
    attention = FourPhaseAttention(settings, summary_goes_on=True)
    tracemalloc.start()
    layout = Layout.of(batch, settings)
    layout_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    tensors = [layout.path.summarised, *layout.path.updated.values()] if isinstance(layout.path, SparsePath) else []
    largest = Largest()
    with Watched(largest.see):
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
    largest = Largest()
    with Watched(largest.see):
        settings = sparse_settings(dim=16)
        outcome(SparsePath.of(batch, settings), inputs_of(batch, settings, torch.float32))
    assert 0 < largest.elements < num_tokens**2 / 20

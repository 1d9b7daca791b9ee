"""The sparse path with several threads, and on rows of real music."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from meloformer.errors import MeloFormerError
from meloformer.midi.read import read_midi
from meloformer.model.batch import Batch
from meloformer.model.meloformer import MeloFormer
from meloformer.model.sparse import SparsePath
from meloformer.model.workers import side_by_side
from meloformer.tokens.encode import encode
from tests.model.test_sparse import BATCHES, assert_same, inputs_of, outcome, settings_of

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 2, 3])
def num_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["random", "a bar of a thousand tokens", "nothing but padding"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_number_of_threads_is_exact(num_threads: int, name: str, dtype: torch.dtype) -> None:  # noqa: ARG001
    assert_same(BATCHES[name], settings_of(), dtype)


def test_the_same_number_of_threads_has_the_same_bits(num_threads: int) -> None:  # noqa: ARG001
    batch, settings = Batch.of(BATCHES["random"]), settings_of()
    inputs = inputs_of(batch, settings, torch.float32)
    once, again = (outcome(SparsePath.of(batch, settings), inputs) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(once.outputs, again.outputs, strict=True))
    assert all(torch.equal(once.gradients[name], again.gradients[name]) for name in once.gradients)


def test_autocast_changes_nothing_inside_tiles(num_threads: int) -> None:  # noqa: ARG001
    batch, settings = Batch.of(BATCHES["random"]), settings_of()
    inputs = inputs_of(batch, settings, torch.float32)
    wanted = outcome(SparsePath.of(batch, settings), inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = outcome(SparsePath.of(batch, settings), inputs)
    assert all(torch.equal(one, other) for one, other in zip(wanted.outputs, found.outputs, strict=True))
    assert all(torch.equal(wanted.gradients[name], found.gradients[name]) for name in wanted.gradients)


def test_inference_mode_changes_nothing(num_threads: int) -> None:  # noqa: ARG001
    torch.manual_seed(0)
    model = MeloFormer(settings_of(attention="sparse", num_layers=2)).eval()
    batch = Batch.of(BATCHES["random"])
    with torch.no_grad():
        wanted = model(batch)
    with torch.inference_mode():
        assert torch.equal(model(batch), wanted)


def test_results_come_in_order_from_threads_of_one_core_each(num_threads: int) -> None:
    found = list(side_by_side([lambda n=n: (n, torch.get_num_threads()) for n in range(10)], CPU))
    assert found == [(n, 1) for n in range(10)]
    assert torch.get_num_threads() == num_threads


def test_what_a_thread_raises_is_raised(num_threads: int) -> None:  # noqa: ARG001
    with pytest.raises(ZeroDivisionError):
        list(side_by_side([lambda: 1 // 0, lambda: 1], CPU))


def test_rows_of_real_music_are_exact(dev_files: list[Path]) -> None:
    documents: list[np.ndarray] = []
    for path in dev_files[::50]:
        try:
            documents.append(encode(read_midi(path)).astype(np.int64))
        except MeloFormerError:  # some of the files are no music
            continue
    rows = [
        np.concatenate([one[:900], other[:600]]) for one, other in zip(documents[::2], documents[1::2], strict=False)
    ]
    assert len(rows) >= 4
    for row in rows:
        assert_same([row], settings_of())

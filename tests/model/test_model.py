"""Shapes, sizes, initial weights, rotary positions, and a golden loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from meloformer.errors import VocabularyError
from meloformer.model.batch import Batch
from meloformer.model.meloformer import MeloFormer
from meloformer.model.rope import rotate, rotation
from meloformer.settings import ModelSettings, Size
from meloformer.tokens.vocabulary import Vocabulary
from tests.model.operations import Watched
from tests.model.paths import random_row
from tests.strategies import random_document

TRUE_COUNTS: dict[Size, int] = {
    "tiny": 1_785_216,
    "small": 15_991_552,
    "base": 83_572_224,
    "large": 207_749_376,
    "xlarge": 553_593_856,
}
GOLDEN_LOSS = 6.611706


@pytest.mark.parametrize("size", list(TRUE_COUNTS))
def test_every_size_has_the_weights_that_the_docs_name(size: Size) -> None:
    with torch.device("meta"):
        counts = MeloFormer(ModelSettings.of_size(size)).parameter_counts()
    assert counts["total"] == TRUE_COUNTS[size] == sum(counts.values()) - counts["total"]


def test_without_summaries_there_are_no_weights_for_them() -> None:
    counts = MeloFormer(ModelSettings.of_size("tiny", summaries="none")).parameter_counts()
    full = MeloFormer(ModelSettings.of_size("tiny")).parameter_counts()
    assert counts["summary stream"] == 0
    assert counts["regular stream"] == full["regular stream"]


def rows(seed: int = 0, count: int = 2) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [random_document(rng, Vocabulary.default(), num_bars=4, max_tokens=60) for _ in range(count)]


def test_logits_have_a_place_for_every_token_of_the_vocabulary() -> None:
    pruned = Vocabulary.default().pruned(np.arange(len(Vocabulary.default())) % 2)
    model = MeloFormer(ModelSettings.of_size("tiny", num_layers=1), pruned)
    batch = Batch.of([np.array([1, 6, 7]), np.array([1, 6])], pruned)
    assert model(batch).shape == (2, 3, len(pruned))


def test_a_batch_of_another_vocabulary_is_refused() -> None:
    pruned = Vocabulary.default().pruned(np.ones(744) * (np.arange(744) < 700))
    model = MeloFormer(ModelSettings.of_size("tiny", num_layers=1), pruned)
    with pytest.raises(VocabularyError, match=Vocabulary.default().sha256):
        model(Batch.of(rows()))


def test_every_weight_gets_a_gradient() -> None:
    for changes in ({"summary_ffn": "own"}, {"summary_ffn": "shared"}, {"summaries": "bar"}, {"summaries": "none"}):
        model = MeloFormer(ModelSettings.of_size("tiny", num_layers=2, **changes))
        model(Batch.of(rows())).square().mean().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


def test_a_seed_gives_the_same_weights_and_another_seed_others() -> None:
    def first_weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return MeloFormer(ModelSettings.of_size("tiny", num_layers=1)).token_embedding.weight

    assert torch.equal(first_weights(1), first_weights(1))
    assert not torch.equal(first_weights(1), first_weights(2))


def test_the_golden_loss_of_fresh_weights() -> None:
    torch.manual_seed(0)
    model = MeloFormer(ModelSettings.of_size("tiny"))
    batch = Batch.of(rows(seed=5))
    logits = model(batch)[:, :-1][batch.is_target[:, 1:]]
    loss = torch.nn.functional.cross_entropy(logits, batch.ids[:, 1:][batch.is_target[:, 1:]])
    assert loss.item() == pytest.approx(GOLDEN_LOSS, abs=1e-5)


def test_rotation_depends_on_distance_alone() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)

    def score(position: tuple[int, int], time: tuple[int, int], rope: str) -> float:
        of = [
            rotation(torch.tensor([[p]]), torch.tensor([[t]]), 16, rope)  # type: ignore[arg-type]
            for p, t in zip(position, time, strict=True)
        ]
        return float((rotate(query, of[0]) * rotate(key, of[1])).sum())

    near, moved = score((9, 4), (30, 6), "both"), score((109, 104), (530, 506), "both")
    assert near == pytest.approx(moved, abs=1e-4)
    assert score((9, 4), (30, 6), "position") == pytest.approx(score((9, 4), (77, 1), "position"), abs=1e-5)
    assert score((9, 4), (30, 6), "time") == pytest.approx(score((1, 99), (30, 6), "time"), abs=1e-5)
    assert near != pytest.approx(score((10, 4), (30, 6), "both"), abs=1e-4)
    assert near != pytest.approx(score((9, 4), (31, 6), "both"), abs=1e-4)


@pytest.mark.parametrize("num_heads", [2, 4])
def test_half_of_the_heads_count_tokens_and_half_time(num_heads: int) -> None:
    torch.manual_seed(0)
    position, time = torch.randint(0, 50, (1, 7)), torch.randint(0, 50, (1, 7))
    heads = torch.randn(1, 7, num_heads, 8)
    found = rotate(heads, rotation(position, time, 8, "heads", 2))
    of_position, of_time = (rotate(heads, rotation(position, time, 8, rope)) for rope in ("position", "time"))
    per_key = num_heads // 2
    torch.testing.assert_close(found[:, :, :per_key], of_position[:, :, :per_key])
    torch.testing.assert_close(found[:, :, per_key:], of_time[:, :, per_key:])


def test_rows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="where 2 fit"):
        Batch.of([np.array([1, 6, 7])], length=2)
    with pytest.raises(ValueError, match="at least one token"):
        Batch.of([])
    for stranger in (len(Vocabulary.default()), -1):
        with pytest.raises(VocabularyError, match=f"id {stranger} is outside"):
            Batch.of([np.array([1, 6, stranger])])


def test_a_row_of_nothing_but_padding_is_finite() -> None:
    model = MeloFormer(ModelSettings.of_size("tiny", num_layers=2))
    logits = model(Batch.of([np.zeros(4, dtype=np.int64), rows()[0]]))
    logits.square().mean().backward()
    assert logits.isfinite().all()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_half_precision_agrees_with_full_to_its_precision() -> None:
    torch.manual_seed(0)
    model = MeloFormer(ModelSettings.of_size("tiny")).eval()
    batch = Batch.of(rows())
    with torch.no_grad():
        full = model(batch)
        half = model.bfloat16()(batch)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), full, rtol=0.05, atol=0.05)


def test_targets_are_what_can_be_predicted() -> None:
    batch = Batch.of([np.array([1, 6, 232, 304, 2]), np.array([1, 6])])
    assert batch.num_targets == 4 + 1


def test_fp32_attention_under_autocast_is_fp32_on_the_dense_path() -> None:
    batch = Batch.of([random_row(1)])
    seen: set[torch.dtype] = set()

    def see(name: str, arguments: Sequence[Any], _results: object) -> None:
        if "scaled_dot_product" in name:
            seen.update(each.dtype for each in arguments[:3])

    for attention_dtype, dtype in (("fp32", torch.float32), ("auto", torch.bfloat16)):
        settings = ModelSettings.of_size("tiny", num_layers=1, attention="dense", attention_dtype=attention_dtype)
        seen.clear()
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16), Watched(see):
            MeloFormer(settings)(batch)
        assert seen == {dtype}

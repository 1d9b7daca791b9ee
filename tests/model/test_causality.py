"""The gate: whatever is changed behind a token, its logits stay, bit for bit, under every setting."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from meloformer.model import attention
from meloformer.model.batch import Batch
from meloformer.model.meloformer import MeloFormer
from meloformer.settings import ModelSettings
from meloformer.tokens.vocabulary import Vocabulary
from tests.strategies import random_document

ALL_FAMILIES = {"track": 1, "ensemble": 1, "onset": 1, "pitch": 1}
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "type rule": {"type_rule": True},
    "union": {"heads": {"union": 2}},
    "union with type rule": {"heads": {"union": 2}, "type_rule": True},
    "track": {"heads": {"track": 2}},
    "ensemble": {"heads": {"ensemble": 2}},
    "ensemble with type rule": {"heads": {"ensemble": 2}, "type_rule": True},
    "onset": {"heads": {"onset": 2}},
    "pitch": {"heads": {"pitch": 2}},
    "own bar only": {"bar_offsets": (0,)},
    "far bars": {"bar_offsets": (0, 1, 2, 4, 8)},
    "position": {"rope": "position"},
    "time": {"rope": "time"},
    "shared": {"summary_ffn": "shared"},
    "grouped": {"heads": {"track": 2, "union": 2}, "num_kv_heads": 2},
}


def model_of(**changes: Any) -> MeloFormer:
    torch.manual_seed(0)
    heads = changes.pop("heads", ALL_FAMILIES)
    settings = ModelSettings.of_size("tiny", num_layers=3, dim=32, ffn_dim=48, heads=heads, **changes)
    model = MeloFormer(settings).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # far from uniform attention, so that a leak would show
    return model


def documents(seed: int, count: int, num_bars: int = 6, max_tokens: int = 90) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [random_document(rng, Vocabulary.default(), num_bars=num_bars, max_tokens=max_tokens) for _ in range(count)]


def with_other_suffix(row: np.ndarray, at: int, seed: int) -> np.ndarray:
    """The row up to ``at``, then any tokens at all, whatever the grammar says."""
    rng = np.random.default_rng(seed)
    changed = row.copy()
    changed[at:] = rng.integers(6, len(Vocabulary.default()), len(row) - at)
    return changed


def logits_of(model: MeloFormer, rows: list[np.ndarray]) -> torch.Tensor:
    length, num_bars = max(len(row) for row in rows), max(len(row) for row in rows)
    with torch.no_grad():
        return model(Batch.of(rows, length=length, num_bars=num_bars))


@pytest.mark.parametrize("name", SETTINGS)
def test_no_logit_changes_when_what_follows_changes(name: str) -> None:
    model = model_of(**SETTINGS[name])
    rows = [np.concatenate(documents(seed, 2)) for seed in (1, 2)]
    rows[1] = rows[1][: len(rows[1]) - 7]
    before = logits_of(model, rows)
    for share in (0.2, 0.5, 0.75, 0.95):
        cuts = [int(share * len(row)) for row in rows]
        changed = [with_other_suffix(row, cut, seed=9) for row, cut in zip(rows, cuts, strict=True)]
        after = logits_of(model, changed)
        for row, cut in enumerate(cuts):
            assert torch.equal(after[row, :cut], before[row, :cut]), f"leak before token {cut}"
            assert not torch.equal(after[row, cut:], before[row, cut:])


def test_the_gate_catches_a_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Summaries of unfinished bars gather a bar's later tokens: the first public implementation's mistake."""
    model = model_of()
    row = documents(3, 1)[0]

    def leaky(batch: Batch) -> torch.Tensor:
        bars = torch.arange(batch.bar_document.shape[1])
        return (bars <= batch.bar[:, :, None]) & (batch.document[:, :, None] == batch.bar_document[:, None, :])

    monkeypatch.setattr(attention, "finished_mask", leaky)
    cut = int(0.75 * len(row))
    before = logits_of(model, [row])
    after = logits_of(model, [with_other_suffix(row, cut, seed=9)])
    assert not torch.equal(after[0, :cut], before[0, :cut])


@pytest.mark.parametrize("name", ["default", "union with type rule", "grouped"])
def test_no_gradient_reaches_a_later_token(name: str) -> None:
    model = model_of(**SETTINGS[name])
    row = documents(4, 1, num_bars=4, max_tokens=40)[0]
    batch = Batch.of([row])
    embedded = model.token_embedding(batch.ids).detach().requires_grad_()
    model.token_embedding.register_forward_hook(lambda *_: embedded)
    logits = model(batch)
    for position in range(0, len(row) - 1, 5):
        (gradient,) = torch.autograd.grad(logits[0, position].square().sum(), embedded, retain_graph=True)
        assert gradient[0, position + 1 :].abs().max() == 0
        assert gradient[0, position].abs().max() > 0


@pytest.mark.parametrize("name", SETTINGS)
def test_a_document_is_the_same_alone_packed_and_in_a_batch(name: str) -> None:
    model = model_of(**SETTINGS[name])
    first, second, third = documents(5, 3)
    alone = logits_of(model, [second])[0, : len(second)]
    packed = logits_of(model, [third, np.concatenate([first, second, third])])
    part = packed[1, len(first) : len(first) + len(second)]
    torch.testing.assert_close(part, alone, rtol=2e-4, atol=2e-4)


def test_finished_bars_are_read_from_afar() -> None:
    """A token of the last bar depends on the first bar through the summaries alone."""
    model = model_of(heads={"ensemble": 2}, bar_offsets=(0,))
    row = documents(6, 1, num_bars=6)[0]
    changed = row.copy()
    vocabulary = Vocabulary.default()
    note = next(at for at, token_id in enumerate(row) if vocabulary.names[token_id].startswith("P"))
    changed[note] = vocabulary.id_of("P7") if row[note] != vocabulary.id_of("P7") else vocabulary.id_of("P8")
    last = len(row) - 2
    assert not torch.equal(logits_of(model, [row])[0, last], logits_of(model, [changed])[0, last])

"""Whether a token knows what it should not: models, rows, and what changes when others change."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from meloformer.model.batch import Batch
from meloformer.model.meloformer import MeloFormer
from meloformer.settings import ModelSettings
from meloformer.tokens.vocabulary import BOS, PAD, Vocabulary
from tests.model.paths import ALL_FAMILIES
from tests.strategies import random_document

SHARES = (0.2, 0.5, 0.75, 0.95)
ROUNDING = 2e-4
"""Of logits, absolute and relative, after three layers whose weights are far from small."""


def model_of(**changes: Any) -> MeloFormer:
    torch.manual_seed(0)
    given = {"num_layers": 3, "dim": 32, "ffn_dim": 48, "heads": ALL_FAMILIES, "attention": "dense", **changes}
    settings = ModelSettings.of_size("tiny", **given)
    model = MeloFormer(settings).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # far from uniform attention, so that a leak would show
    return model


def documents(seed: int, count: int, num_bars: int = 6, max_tokens: int = 90) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [random_document(rng, Vocabulary.default(), num_bars=num_bars, max_tokens=max_tokens) for _ in range(count)]


def two_rows() -> list[np.ndarray]:
    """Two rows of two packed documents each, different in everything, the second one shorter."""
    rows = [np.concatenate(documents(seed, 2)) for seed in (1, 2)]
    return [rows[0], rows[1][: len(rows[1]) - 7]]


def with_other_suffix(row: np.ndarray, at: int, rng: np.random.Generator) -> np.ndarray:
    """The row up to ``at``, then any tokens at all, whatever the grammar says: bars and documents end where they did
    not, others begin, and the row may end early."""
    changed = row.astype(np.int64)
    num_choices = len(Vocabulary.default()) - BOS
    changed[at] = BOS + (changed[at] - BOS + rng.integers(1, num_choices)) % num_choices  # another one for certain
    changed[at + 1 :] = rng.integers(BOS, len(Vocabulary.default()), len(row) - at - 1)
    changed[rng.integers(at + 1, len(row) + 1) :] = PAD
    return changed


def logits_of(model: MeloFormer, rows: list[np.ndarray], *, same_shape: bool = True) -> Tensor:
    """Logits of a batch; bits are compared in one shape only, so that the order of summation is the same."""
    num_bars = max(len(row) for row in rows) if same_shape else None
    with torch.no_grad():
        return model(Batch.of(rows, num_bars=num_bars))


def leaks(model: MeloFormer, rows: list[np.ndarray], shares: tuple[float, ...] = SHARES, seed: int = 9) -> list[str]:
    """Where a logit changed although only later tokens did."""
    rng = np.random.default_rng(seed)
    found: list[str] = []
    before = logits_of(model, rows)
    for share in shares:
        cuts = [int(share * len(row)) for row in rows]
        after = logits_of(model, [with_other_suffix(row, cut, rng) for row, cut in zip(rows, cuts, strict=True)])
        for row, cut in enumerate(cuts):
            tolerance = ROUNDING if model.settings.attention == "sparse" else 0.0
            same = torch.isclose(after[row], before[row], rtol=tolerance, atol=tolerance)
            differs = ~same.all(dim=-1)
            found += [f"row {row}, token {at} of {cut}" for at in differs[:cut].nonzero()[:, 0].tolist()]
            assert differs[cut], "the change itself went unnoticed"
    return found


def depends_on_company(model: MeloFormer) -> bool:
    """Whether a document's logits differ between alone, behind another in a row, and in a batch."""
    first, second, third = documents(5, 3)
    alone = logits_of(model, [second])[0]
    packed = logits_of(model, [third, np.concatenate([first, second, third])])
    in_batch = logits_of(model, [third, second], same_shape=False)
    parts = packed[1, len(first) : len(first) + len(second)], in_batch[1, : len(second)]
    return not all(torch.allclose(part, alone, rtol=ROUNDING, atol=ROUNDING) for part in parts)

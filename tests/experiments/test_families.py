"""The families that are tried pass the gate of those that are shipped."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from experiments.families import FAMILIES, interval, phrase
from meloformer.model.batch import Batch
from meloformer.tokens.vocabulary import Vocabulary
from tests.model.leaks import depends_on_company, leaks, model_of, two_rows
from tests.model.paths import row_of


@pytest.mark.parametrize("path", ["dense", "sparse"])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_no_family_reads_ahead_or_asks_who_else_is_in_the_row(family: str, path: str) -> None:
    model = model_of(heads={family: 2}, attention=path)
    assert leaks(model, two_rows(), (0.5, 0.95)) == []
    assert not depends_on_company(model)


def test_keys_by_hand() -> None:
    row = row_of("BOS G:maj 1/4 120 #D T0 P36 V9 #0 T0 P67 D3 V9 P71 N #0 T6 P60 D3 V9 N N N G:maj #0 T6 P60 D3 V9 EOS")
    batch = Batch.of([np.concatenate([row_of("BOS C:maj 1/4 120 EOS"), row])])
    names = Vocabulary.default().names
    row_at = [names[token] for token in row]
    keys = dict(zip(row_at, interval(batch)[0, 5:].tolist(), strict=True))
    assert (keys["P67"], keys["P71"], keys["P36"]) == (0, 4, 48)
    assert interval(batch)[0, 5 + row_at.index("P60")] == 0  # N counts from C
    assert interval(batch)[0, -4] == 5  # the last P60, over G
    same_place = phrase(batch)[0, [5 + row_at.index("V9"), -2]]
    assert same_place[0] % 256 == 0
    assert same_place[1] == 1 * 256 + 6  # bar 5 is the second of its phrase
    assert torch.equal(phrase(batch)[0, :5], phrase(Batch.of([row_of("BOS C:maj 1/4 120 EOS")]))[0])

"""The baseline is what it says: MeloFormer's regular stream with plain causal attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import experiments.families
from experiments.plain import PlainTransformer, as_meloformer, name_in_meloformer
from meloformer.model.batch import Batch
from meloformer.model.layout import Layout
from meloformer.model.meloformer import MeloFormer
from meloformer.settings import ModelSettings
from meloformer.tokens.vocabulary import Vocabulary
from tests.model.paths import padded, random_row

SETTINGS = ModelSettings.of_size(
    "tiny", num_layers=2, dim=32, ffn_dim=48, num_kv_heads=2, heads={"document": 4}, summaries="none"
)


def plain_with_the_weights_of(model: MeloFormer) -> PlainTransformer:
    plain = PlainTransformer(SETTINGS, Vocabulary.default(), apart=True).eval()
    weights = model.state_dict()
    plain.load_state_dict({name: weights[name_in_meloformer(name)] for name in plain.state_dict()})
    return plain


def test_it_is_our_own_model_with_the_whole_document_in_every_head_and_no_summaries() -> None:
    torch.manual_seed(0)
    model = MeloFormer(SETTINGS).eval()
    plain = plain_with_the_weights_of(model)
    batch = Batch.of([random_row(1, 3), padded(random_row(2), 40)])
    torch.testing.assert_close(plain(batch), model(batch), rtol=1e-4, atol=1e-4)
    assert sum(p.numel() for p in plain.parameters()) == model.parameter_counts()["total"]
    assert "document" in experiments.families.FAMILIES


def test_first_weights_are_as_wide_as_ours() -> None:
    torch.manual_seed(0)
    wide = {"dim": 128, "ffn_dim": 256, "num_kv_heads": 4}
    settings = ModelSettings.of_size("tiny", num_layers=2, heads={"document": 4}, summaries="none", **wide)
    plain, ours = PlainTransformer(settings, Vocabulary.default()), MeloFormer(settings)
    for name, weight in plain.state_dict().items():
        if weight.dim() == 2:
            ratio = weight.std() / ours.state_dict()[name_in_meloformer(name)].std()
            assert float(ratio) == pytest.approx(1, abs=0.05), name


def test_documents_of_a_row_see_each_other_only_in_the_form_for_benchmarks() -> None:
    torch.manual_seed(0)
    first, other, last = (random_row(seed, 1) for seed in (1, 2, 3))
    rows = [np.concatenate([each, last]) for each in (first, np.resize(other, len(first)))]
    batches = [Batch.of([row]) for row in rows]
    for apart in (True, False):
        torch.manual_seed(0)
        model = PlainTransformer(SETTINGS, Vocabulary.default(), apart=apart).eval()
        one, two = (model(batch, Layout.of(batch, SETTINGS))[0, len(first) :] for batch in batches)
        assert torch.allclose(one, two, atol=1e-5) == apart


def test_what_it_learnt_goes_on_as_a_meloformer() -> None:
    torch.manual_seed(0)
    plain = PlainTransformer(ModelSettings.of_size("tiny", num_layers=2), Vocabulary.default(), apart=True).eval()
    batch = Batch.of([random_row(1, 3), padded(random_row(2), 40)])
    torch.testing.assert_close(as_meloformer(plain).eval()(batch), plain(batch), rtol=1e-4, atol=1e-4)

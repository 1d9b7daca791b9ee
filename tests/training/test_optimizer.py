"""Who learns by which rule, and how fast over time."""

from __future__ import annotations

from itertools import pairwise

import pytest

from meloformer.model.meloformer import MeloFormer
from meloformer.settings import ModelSettings, TrainingSettings
from meloformer.training.optimizer import learning_rate_at, make_optimizers


@pytest.fixture(scope="module")
def model() -> MeloFormer:
    return MeloFormer(ModelSettings.of_size("tiny", num_layers=1, dim=32, ffn_dim=48))


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_every_parameter_has_one_optimizer_and_only_matrices_decay(model: MeloFormer, optimizer: str) -> None:
    optimizers = make_optimizers(model, TrainingSettings.model_validate({"optimizer": optimizer, "weight_decay": 0.2}))
    groups = [group for each in optimizers.values() for group in each.param_groups]
    names = [name for group in groups for name in group["param_names"]]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    decaying = {name for group in groups if group["weight_decay"] for name in group["param_names"]}
    assert decaying == {name for name, p in model.named_parameters() if p.dim() == 2 and name.startswith("layers.")}
    assert {group["weight_decay"] for group in groups} == {0.0, 0.2}


def test_muon_takes_the_matrices_of_the_layers_and_no_embedding(model: MeloFormer) -> None:
    muon = make_optimizers(model, TrainingSettings(optimizer="muon"))["muon"]
    names = muon.param_groups[0]["param_names"]
    assert len(names) == sum(p.dim() == 2 for p in model.layers.parameters())
    assert not any("embedding" in name for name in names)


def test_the_learning_rate_rises_in_a_line_and_falls_along_a_cosine() -> None:
    settings = TrainingSettings(learning_rate=1.0, warmup_share=0.1, final_rate=0.2)
    rates = [learning_rate_at(step, 100, settings) for step in range(100)]
    assert rates[:10] == pytest.approx([share / 10 for share in range(1, 11)])
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))
    assert rates[55] == pytest.approx(0.6)  # half way down
    assert 0.2 < rates[99] < 0.201


@pytest.mark.parametrize("total", [1, 2, 3])
def test_a_run_of_a_few_steps_has_learning_rates_above_zero(total: int) -> None:
    settings = TrainingSettings(learning_rate=1.0, warmup_share=0.0, final_rate=0.0)
    rates = [learning_rate_at(step, total, settings) for step in range(total)]
    assert rates[0] == 1.0
    assert min(rates) > 0


def test_warm_up_stable_decay_keeps_the_peak_and_falls_straight_at_the_end() -> None:
    settings = TrainingSettings(schedule="wsd", warmup_share=0.1, decay_share=0.2, final_rate=0.1, learning_rate=1.0)
    rates = [learning_rate_at(step, 100, settings) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert set(rates[10:81]) == {1.0}
    assert rates[90] == pytest.approx(0.1 + 0.9 * 0.5)
    assert rates[99] == pytest.approx(0.1 + 0.9 * 0.05)

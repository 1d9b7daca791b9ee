"""One step: every target weighs the same, and nothing happens where the loss is not finite."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
import torch

from meloformer.bench.music import practice_piece
from meloformer.model.batch import Batch
from meloformer.model.meloformer import MeloFormer
from meloformer.settings import ModelSettings
from meloformer.tokens.encode import encode
from meloformer.tokens.vocabulary import PAD, Vocabulary
from meloformer.training.loading import Pass
from meloformer.training.loss import target_losses
from meloformer.training.optimizer import Optimizers
from meloformer.training.state import compile_layers
from meloformer.training.step import Precision, StepOutcome, train_step
from tests.strategies import random_document

VOCABULARY = Vocabulary.default()
NO_CLIP = 1e9


def rows_of_unequal_length() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    documents = [
        random_document(rng, VOCABULARY, num_bars=bars, max_tokens=tokens) for bars, tokens in ((8, 90), (1, 4))
    ]
    width = max(map(len, documents))
    rows = [np.pad(ids, (0, width - len(ids)), constant_values=PAD) for ids in documents]
    assert Batch.of(rows[:1]).num_targets > 4 * Batch.of(rows[1:]).num_targets
    return rows


def fresh_model() -> MeloFormer:
    torch.manual_seed(0)
    return MeloFormer(ModelSettings.of_size("tiny", num_layers=1, dim=32, ffn_dim=48))


def step_of(
    model: MeloFormer, passes: list[Batch], *, learning_rate: float = 1.0, clip_norm: float = NO_CLIP
) -> StepOutcome:
    """With plain gradient descent the change of the weights is the gradient."""
    descent: Optimizers = {"sgd": torch.optim.SGD(model.parameters(), lr=0.0)}
    return train_step(
        model, descent, [Pass(batch) for batch in passes], learning_rate=learning_rate, clip_norm=clip_norm
    )


def weights(model: MeloFormer) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_several_passes_are_as_one_batch_even_where_one_has_hardly_a_target() -> None:
    rows = rows_of_unequal_length()
    together, apart = fresh_model(), fresh_model()
    before = weights(together)
    one = step_of(together, [Batch.of(rows)])
    two = step_of(apart, [Batch.of(rows[:1]), Batch.of(rows[1:])])
    assert two.loss == pytest.approx(one.loss, rel=1e-6)
    assert (two.num_targets, two.num_notes) == (one.num_targets, one.num_notes)
    change = weights(together) - before
    assert float((weights(apart) - before - change).norm()) < 1e-5 * float(change.norm())
    # the mean of the means would be something else
    with torch.no_grad():
        means = [float(target_losses(fresh_model()(Batch.of([row])), Batch.of([row])).mean()) for row in rows]
    assert abs(sum(means) / 2 - one.loss) > 1e-4


def test_a_long_gradient_is_cut_to_the_wished_norm_and_a_short_one_left() -> None:
    batch = Batch.of(rows_of_unequal_length())
    model = fresh_model()
    before = weights(model)
    outcome = step_of(model, [batch], learning_rate=0.5, clip_norm=0.01)
    assert outcome.gradient_norm > 0.1
    assert float((weights(model) - before).norm()) == pytest.approx(0.5 * 0.01, rel=1e-3)
    untouched = fresh_model()
    free = step_of(untouched, [batch], learning_rate=0.5)
    assert float((weights(untouched) - before).norm()) == pytest.approx(0.5 * free.gradient_norm, rel=1e-3)


def test_gradients_do_not_carry_over_to_the_next_step() -> None:
    model = fresh_model()
    step_of(model, [Batch.of(rows_of_unequal_length())])
    assert all(parameter.grad is None for parameter in model.parameters())


def test_nats_a_note_are_all_losses_by_the_number_of_notes() -> None:
    outcome = step_of(fresh_model(), [Batch.of(rows_of_unequal_length())])
    assert outcome.num_notes > 0
    assert outcome.nats_per_note == pytest.approx(outcome.loss * outcome.num_targets / outcome.num_notes)


def test_a_step_with_an_infinite_gradient_is_not_taken() -> None:
    model = fresh_model()
    before = weights(model)
    # the loss stays finite
    model.summary_embedding.register_hook(lambda gradient: gradient * torch.inf)
    outcome = step_of(model, [Batch.of(rows_of_unequal_length())])
    assert math.isfinite(outcome.loss)
    assert not outcome.is_finite
    assert torch.equal(weights(model), before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_step_with_a_loss_that_is_no_number_is_not_taken() -> None:
    model = fresh_model()
    with torch.no_grad():
        model.norm.weight[0] = torch.nan
    assert not step_of(model, [Batch.of(rows_of_unequal_length())]).is_finite


@pytest.mark.parametrize("name", ["bf16", "fp16"])
@pytest.mark.parametrize("attention", ["dense", "sparse"])
def test_half_precision_takes_nearly_the_same_step(name: Literal["bf16", "fp16"], attention: str) -> None:
    batch = Batch.of(rows_of_unequal_length())
    changes = {}
    for precision in (Precision(), Precision.of(name, torch.device("cpu"))):
        torch.manual_seed(0)
        settings = ModelSettings.of_size("tiny", num_layers=2, dim=32, ffn_dim=48, attention=attention)
        model = MeloFormer(settings)
        before = weights(model)
        descent: Optimizers = {"sgd": torch.optim.SGD(model.parameters(), lr=0.0)}
        outcome = train_step(model, descent, [Pass(batch)], learning_rate=1.0, clip_norm=NO_CLIP, precision=precision)
        assert outcome.is_finite
        changes[precision.dtype] = weights(model) - before
        assert model.token_embedding.weight.dtype == torch.float32
    full = changes.pop(None)
    (half,) = changes.values()
    assert 0 < float((half - full).norm()) < 0.05 * float(full.norm())


def test_half_precision_takes_long_rows_on_a_cpu() -> None:
    batch = Batch.of([encode(practice_piece(0, num_bars=32))[:1100]])
    model = MeloFormer(ModelSettings.of_size("tiny", num_layers=2))
    descent: Optimizers = {"sgd": torch.optim.SGD(model.parameters(), lr=0.0)}
    losses = [
        train_step(model, descent, [Pass(batch)], learning_rate=0.0, clip_norm=NO_CLIP, precision=precision).loss
        for precision in (Precision(), Precision.of("bf16", torch.device("cpu")))
    ]
    assert 0 < abs(losses[1] - losses[0]) < 0.01 * losses[0]


def test_a_scaler_that_overflows_skips_the_step_and_tries_a_smaller_scale() -> None:
    model = fresh_model()
    before = weights(model)
    precision = Precision.of("fp16", torch.device("cpu"))
    assert precision.scaler is not None
    precision.scaler.load_state_dict({**precision.scaler.state_dict(), "scale": 2.0**40})
    descent: Optimizers = {"sgd": torch.optim.SGD(model.parameters(), lr=0.0)}
    batch = Batch.of(rows_of_unequal_length())
    outcome = train_step(model, descent, [Pass(batch)], learning_rate=1.0, clip_norm=NO_CLIP, precision=precision)
    assert not outcome.is_finite
    assert torch.equal(weights(model), before)
    assert precision.scaler.get_scale() == 2.0**39


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_compiled_layers_take_the_same_step_with_the_same_names() -> None:
    batches = [Batch.of(rows_of_unequal_length()), Batch.of(rows_of_unequal_length()[:1])]
    plain, compiled = fresh_model(), fresh_model()
    compile_layers(compiled, backend="aot_eager")
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    for batch in batches:
        expected, found = step_of(plain, [batch]), step_of(compiled, [batch])
        assert found.loss == pytest.approx(expected.loss, rel=1e-5)
        assert found.gradient_norm == pytest.approx(expected.gradient_norm, rel=1e-4)
    assert float((weights(plain) - weights(compiled)).norm()) < 1e-4 * float(weights(plain).norm())

"""Memory of a step on a GPU, predicted on any machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from meloformer.bench.prediction import MemoryProfile, PredictedMemory, layouts_of, predict_memory, without_content
from meloformer.bench.tracking import KINDS, Trial, tensors_of, track_step
from meloformer.bench.workload import made_up_rows
from meloformer.errors import SettingsError
from meloformer.model import flex
from meloformer.model.batch import Batch
from meloformer.model.layout import Layout
from meloformer.model.meloformer import MeloFormer
from meloformer.settings import ModelSettings, TrainingSettings
from meloformer.settings_file import load_settings
from meloformer.tokens.vocabulary import Vocabulary

pytestmark = pytest.mark.usefixtures("one_thread")  # the tracker sees its own thread only
VOCABULARY = Vocabulary.default()


def predicted(*changes: str, seq_len: int = 1024) -> PredictedMemory:
    settings = ["model.size=tiny", f"bench.seq_len={seq_len}", *changes]
    return predict_memory(load_settings(None, settings))


def profile_and_trial(num_tokens: int, optimizer: Any = "adamw", **changes: Any) -> tuple[PredictedMemory, Trial]:
    """The prediction, and a trial without content of that very length and depth."""
    model = ModelSettings.of_size("tiny", **{"num_layers": 5, "attention": "flex", **changes})
    training = TrainingSettings(optimizer=optimizer, precision="bf16")
    batch, layout = without_content(layouts_of(model), num_tokens)
    return MemoryProfile.of(model, training).at(num_tokens), Trial(model, training, VOCABULARY, batch, layout)


def test_weights_and_optimiser_are_counted_exactly() -> None:
    memory = predicted("training.optimizer=adamw")
    model = MeloFormer(load_settings(None, ["model.size=tiny"]).model, VOCABULARY)
    num_bytes = 4 * model.parameter_counts()["total"]
    assert memory.weights == num_bytes
    assert memory.optimizer == pytest.approx(2 * num_bytes, rel=0.001)


def test_memory_grows_with_the_tokens_and_not_with_their_square() -> None:
    short, long = predicted(seq_len=2048), predicted(seq_len=8192)
    assert 3.5 < long.activations / short.activations < 4.2
    assert long.logits / short.logits == pytest.approx(4, rel=0.01)


def test_checkpointing_needs_less() -> None:
    none, ffn, attention = (predicted(f"model.checkpointing={mode}").total for mode in ("none", "ffn", "attention"))
    assert none > 1.2 * ffn > 1.2 * attention


@pytest.mark.parametrize(
    ("num_tokens", "changes"),
    [
        (2048, {"optimizer": "muon", "heads": {"union": 2, "onset": 2}, "type_rule": True}),
        (2048, {"checkpointing": "full", "dim": 512, "ffn_dim": 2048, "summary_ffn": "shared"}),
    ],
    ids=["most in the backward pass", "most in the update"],
)
def test_lengths_and_depths_are_told_to_the_byte_from_one_length_and_two_depths(
    num_tokens: int, changes: dict[str, Any]
) -> None:
    memory, trial = profile_and_trial(num_tokens, **changes)
    assert {name: getattr(memory, name) for name in KINDS} == track_step(trial).peak


def test_the_real_step_takes_what_was_predicted() -> None:
    settings = load_settings(None, ["bench.seq_len=2048", "bench.batch_size=2"])
    memory, trial = profile_and_trial(4096, checkpointing="attention", num_layers=4)
    rows, _ = made_up_rows(settings)
    real = track_step(Trial(trial.model, trial.training, VOCABULARY, Batch.of(rows)))
    assert sum(real.peak.values()) == pytest.approx(memory.total, rel=0.02)


@pytest.mark.parametrize(("size", "precision"), [("tiny", "fp32"), ("small", "bf16")])
def test_on_a_cpu_real_tensors_and_fake_ones_take_the_same(size: Any, precision: Any) -> None:
    model = ModelSettings.of_size(size, attention="sparse", num_layers=2)
    rows, _ = made_up_rows(load_settings(None, ["bench.seq_len=1536"]))
    trial = Trial(model, TrainingSettings(precision=precision), VOCABULARY, Batch.of(rows), for_cuda=False)
    layout = Layout.of(trial.batch, model)
    real = sum(track_step(trial).peak.values())
    fake = sum(track_step(replace(trial, layout=layout)).peak.values())
    assert fake + sum(tensor.nbytes for tensor in tensors_of(layout)) == pytest.approx(real, rel=0.02)


def test_heads_that_no_kernel_takes_have_no_prediction() -> None:
    with pytest.raises(SettingsError, match="heads of width 8"):
        predicted("model.dim=32")


def test_the_kernel_is_itself_again_afterwards() -> None:
    before = flex.attend
    predicted("model.num_layers=1")
    assert flex.attend is before

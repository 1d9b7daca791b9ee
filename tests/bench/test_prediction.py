"""Memory of a step on a GPU, predicted on any machine."""

from __future__ import annotations

import pytest

from meloformer.bench.prediction import PredictedMemory, predict_step_bytes
from meloformer.model import flex
from meloformer.model.meloformer import MeloFormer
from meloformer.settings_file import load_settings
from meloformer.tokens.vocabulary import Vocabulary


def predicted(*changes: str, seq_len: int = 1024) -> PredictedMemory:
    settings = ["model.size=tiny", "training.optimizer=adamw", f"bench.seq_len={seq_len}", *changes]
    return predict_step_bytes(load_settings(None, settings))


def test_weights_and_optimiser_are_counted_exactly() -> None:
    memory = predicted()
    model = MeloFormer(load_settings(None, ["model.size=tiny"]).model, Vocabulary.default())
    num_bytes = 4 * model.parameter_counts()["total"]
    assert memory.weights == num_bytes
    assert memory.optimizer == pytest.approx(2 * num_bytes, rel=0.001)


def test_memory_grows_with_the_tokens_and_not_with_their_square() -> None:
    short, long = predicted(seq_len=2048), predicted(seq_len=8192)
    assert 3.5 < long.activations / short.activations < 4.2


def test_checkpointing_needs_less() -> None:
    none, ffn, attention = (predicted(f"model.checkpointing={mode}").total for mode in ("none", "ffn", "attention"))
    assert none > 1.2 * ffn > 1.2 * attention


def test_the_kernel_is_itself_again_afterwards() -> None:
    before = flex.attend
    predicted()
    assert flex.attend is before

"""Selective checkpointing: the same loss and the same gradients, from less memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from meloformer.bench.music import practice_piece
from meloformer.model.batch import Batch
from meloformer.model.meloformer import MeloFormer
from meloformer.settings import ModelSettings
from meloformer.tokens.encode import encode
from meloformer.tokens.vocabulary import Vocabulary

MODES = ("none", "ffn", "attention", "full")


def step(mode: str, attention: str) -> tuple[Tensor, dict[str, Tensor], int]:
    """Loss, gradients, and bytes that are kept from the forward pass to the backward pass."""
    torch.manual_seed(0)
    settings = ModelSettings.of_size("tiny", checkpointing=mode, attention=attention)
    model = MeloFormer(settings, Vocabulary.default())
    batch = Batch.of([encode(practice_piece(seed, num_bars=6)) for seed in range(2)])
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(batch)[batch.is_target].logsumexp(-1).mean()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    num_bytes = sum(size for place, size in kept.items() if place not in weights)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert len(gradients) == len(list(model.parameters()))
    return loss.detach(), gradients, num_bytes


@pytest.mark.parametrize("attention", ["dense", "sparse"])
def test_every_mode_has_the_same_loss_and_gradients_and_less_memory_than_the_one_before(attention: str) -> None:
    loss, gradients, memory = step("none", attention)
    for mode in MODES[1:]:
        other_loss, other_gradients, other_memory = step(mode, attention)
        assert torch.equal(loss, other_loss), mode
        assert gradients.keys() == other_gradients.keys()
        for name, gradient in gradients.items():
            assert torch.equal(gradient, other_gradients[name]), (mode, name)
        assert other_memory < 0.95 * memory, mode
        memory = other_memory


def test_without_gradients_nothing_is_computed_again() -> None:
    model = MeloFormer(ModelSettings.of_size("tiny", checkpointing="full"), Vocabulary.default())
    batch = Batch.of([encode(practice_piece(0, num_bars=2))])
    with torch.no_grad():
        assert not model(batch).requires_grad

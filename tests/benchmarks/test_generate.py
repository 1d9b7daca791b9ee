"""The benchmark of generation measures what it says."""

from __future__ import annotations

import numpy as np
import torch

import meloformer as mf
from benchmarks.generate import Turn, obeyed
from meloformer.bench.music import practice_piece
from meloformer.generation.decoder import Decoder
from meloformer.settings import ModelSettings


def test_a_turn_gives_every_piece_the_tokens_behind_its_context() -> None:
    model = mf.MeloFormer(ModelSettings.of_size("tiny", num_layers=1, dim=16, ffn_dim=16)).eval()
    pieces = [mf.encode(practice_piece(seed, num_bars=4)) for seed in range(2)]
    turn = Turn(Decoder(model), pieces, context=50, num_tokens=20)
    turn()
    for cache, ids in zip(turn.caches, pieces, strict=True):
        assert cache.facts.position == 69
        going_on = Decoder(model).step([cache], [int(ids[70])])[0]
        with torch.inference_mode():
            whole = model(mf.Batch.of([ids[:71]]))[0, -1]
        np.testing.assert_allclose(going_on.numpy(), whole.numpy(), atol=1e-4)


def test_pieces_of_random_weights_obey_random_wishes() -> None:
    said = obeyed(25)
    assert said.startswith("25 pieces")
    assert "): 25 decode" in said

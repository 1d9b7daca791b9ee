"""The benchmark of generation measures what it says."""

from __future__ import annotations

import numpy as np
import torch

import meloformer as mf
from benchmarks.generate import Turn, goals, keys_read, obeyed
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


def test_what_heads_read_is_counted_as_they_read_it() -> None:
    heads = {"ensemble": 1, "track": 1, "union": 2}
    settings = ModelSettings.of_size("tiny", num_layers=1, dim=16, ffn_dim=16, heads=heads)
    text = "BOS C:maj 4/4 120 #0 T0 P60 D12 V9 P64 D12 V9 F:maj #0 T0 P40 D3 V9 EOS"
    ids = np.array([mf.Vocabulary.default().id_of(name) for name in text.split()])
    turn = Turn(Decoder(mf.MeloFormer(settings).eval()), [ids], context=16, num_tokens=2)
    # At D3 and V9: the bar, four globals and a summary; what is the piano's; both.
    assert keys_read([turn]).tolist() == [10.5, 12.5, 18.5]


def test_every_goal_is_held_against_what_was_found() -> None:
    reached = {
        "ratio at 8192": 3, "ours at 8192": 100, "flat": 0.8, "together": 3, "first note": 3, "first note, wall": 9,
        "obey": 1000,
    }  # fmt: skip
    missed = {
        "ratio at 8192": 2.9, "ours at 8192": 99, "flat": 0.79, "together": 2.9, "first note": 3.1, "obey": 999,
    }  # fmt: skip
    for figures, word in ((reached, "yes"), (missed, "no")):
        *_, last = zip(*(line.strip("| ").split(" | ") for line in goals(figures).splitlines()[2:]), strict=True)
        assert set(last) == {word}
    assert goals({}).count("not measured") == 6


def test_pieces_of_random_weights_obey_random_wishes() -> None:
    said, num_good = obeyed(25)
    assert num_good == 25
    assert said.startswith("25 pieces")
    assert "): 25 decode" in said

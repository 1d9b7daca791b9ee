"""What bench measures is there and adds up."""

from __future__ import annotations

import numpy as np

from meloformer.bench.music import practice_piece
from meloformer.bench.throughput import measure_step
from meloformer.settings import load_settings
from meloformer.tokens.encode import encode
from meloformer.tokens.grammar import grammar_errors
from meloformer.tokens.vocabulary import Vocabulary


def test_a_measured_step_has_every_part() -> None:
    settings = load_settings(
        None,
        ["model.size=tiny", "model.num_layers=1", "bench.seq_len=128", "bench.batch_size=2", "bench.repeats=2",
         "bench.device=cpu", "training.optimizer=adamw"],
    )  # fmt: skip
    measured = measure_step(settings)
    assert measured.tokens == 2 * 127
    assert 0 < measured.step_seconds_min <= measured.step_seconds <= measured.step_seconds_max
    assert measured.cpu_seconds > 0
    assert measured.weights_bytes == 4 * measured.parameters
    # AdamW keeps two moments of every weight, and a step count for every tensor
    assert 8 * measured.parameters < measured.optimizer_bytes < 8 * measured.parameters + 1000
    assert measured.to_dict()["tokens_per_second"] > 0


def test_practice_music_is_valid_and_has_four_instruments() -> None:
    ids = encode(practice_piece(3, num_bars=8))
    assert grammar_errors(ids) == []
    instruments = {Vocabulary.default().names[i] for i in ids if Vocabulary.default().names[i].startswith("#")}
    assert len(instruments) == 4
    assert not np.array_equal(ids, encode(practice_piece(4, num_bars=8)))

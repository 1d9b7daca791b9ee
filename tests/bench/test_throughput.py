"""What bench measures is there and adds up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from meloformer.bench.flops import linear_flops, step_work
from meloformer.bench.memory import peak_step_bytes
from meloformer.bench.music import practice_piece
from meloformer.bench.scaling import measure_together
from meloformer.bench.throughput import measure_step
from meloformer.bench.workload import Workload
from meloformer.errors import InputError, OutOfMemoryError, ShardError
from meloformer.model.batch import Batch
from meloformer.model.layout import Layout
from meloformer.settings import ModelSettings
from meloformer.settings_file import load_settings
from meloformer.shards.batches import BatchLoader
from meloformer.shards.store import open_shards
from meloformer.tokens.encode import encode
from meloformer.tokens.grammar import grammar_errors
from meloformer.tokens.vocabulary import Vocabulary

MIB = 2**20


def test_a_measured_step_has_every_part_and_none_of_what_the_caller_holds() -> None:
    settings = load_settings(
        None,
        ["model.size=tiny", "model.num_layers=1", "bench.seq_len=512", "bench.batch_size=2", "bench.repeats=2",
         "bench.device=cpu", "training.optimizer=adamw"],
    )  # fmt: skip
    ballast = np.ones(800 * MIB // 8)
    measured = measure_step(settings)
    assert measured.tokens == 2 * 511
    assert 0 < measured.step_seconds_min <= measured.step_seconds <= measured.step_seconds_max
    assert measured.cpu_seconds > 0
    assert measured.weights_bytes == 4 * measured.parameters
    # AdamW keeps two moments of every weight, and a step count for every tensor
    assert 8 * measured.parameters < measured.optimizer_bytes < 8 * measured.parameters + 1000
    parts = measured.weights_bytes + measured.gradients_bytes + measured.optimizer_bytes
    assert measured.peak_bytes == parts + measured.activations_bytes
    logits_bytes = 4 * measured.tokens * len(Vocabulary.default())
    assert 2 * logits_bytes < measured.activations_bytes  # the logits and their gradient
    assert measured.peak_bytes < ballast.nbytes / 2
    assert measured.to_dict()["tokens_per_second"] > 0
    assert 0 < measured.work.visible < measured.work.executed
    assert 0 < measured.utilisation()["visible"] < measured.utilisation()["dense"]


def test_what_needs_more_memory_than_there_is_says_so_and_ends_nothing() -> None:
    settings = load_settings(None, ["model.size=tiny", f"model.dim={2**18}", "bench.seq_len=64"])
    with pytest.raises(OutOfMemoryError, match=r"tiny, 64 tokens x 1 was stopped.*--seq-len"):
        peak_step_bytes(settings, None, torch.device("cpu"))


@pytest.mark.parametrize("attention", ["dense", "sparse", "flex"])
def test_a_path_computes_at_least_the_pairs_that_are_seen(attention: Any) -> None:
    settings = ModelSettings.of_size("tiny", attention=attention)
    batch = Batch.of([encode(practice_piece(0, num_bars=16))[:768]])
    work = step_work(batch, Layout.of(batch, settings), settings, len(Vocabulary.default()))
    assert work.visible <= work.executed
    if attention == "sparse":
        assert work.executed < 1.3 * work.visible
        pairs = settings.num_heads * 768**2
        linear = linear_flops(settings, len(Vocabulary.default()), 768, batch.bar_document.numel())
        assert work.dense == linear + 12 * settings.num_layers * settings.head_dim * pairs


@pytest.mark.slow
@pytest.mark.distributed
def test_several_devices_take_steps_together() -> None:
    settings = load_settings(None, ["model.size=tiny", "model.num_layers=1", "bench.seq_len=128", "bench.repeats=2"])
    assert measure_together(settings, None, ["cpu", "cpu"]) > 0
    broken = load_settings(None, ["model.size=tiny", "bench.seq_len=128"])
    with pytest.raises(InputError, match="nowhere"):
        measure_together(broken, Path("nowhere"), ["cpu", "cpu"])


def test_a_step_can_be_measured_on_the_music_of_shards(tiny_shards: Path) -> None:
    settings = load_settings(None, ["model.size=tiny", "bench.seq_len=128", "bench.batch_size=2"])
    workload = Workload(settings, tiny_shards, torch.device("cpu"))
    documents = open_shards(tiny_shards).split("train")
    wanted = next(BatchLoader(documents, Vocabulary.default(), seq_len=128, batch_size=2).batches(0))
    assert workload.batch.ids.tolist() == wanted.tolist()


def test_too_little_music_for_a_batch_is_refused(tiny_shards: Path) -> None:
    settings = load_settings(None, ["model.size=tiny", "bench.seq_len=8192", "bench.batch_size=4"])
    with pytest.raises(ShardError, match="rows of 8192 tokens to train on, 4 are wanted; choose a smaller"):
        Workload(settings, tiny_shards, torch.device("cpu"))


def test_practice_music_is_valid_and_has_four_instruments() -> None:
    ids = encode(practice_piece(3, num_bars=8))
    assert grammar_errors(ids) == []
    instruments = {Vocabulary.default().names[i] for i in ids if Vocabulary.default().names[i].startswith("#")}
    assert len(instruments) == 4
    assert not np.array_equal(ids, encode(practice_piece(4, num_bars=8)))

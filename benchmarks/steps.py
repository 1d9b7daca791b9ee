"""One training step of ours or of the plain transformer, on a row of real music, to be measured."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from experiments.plain import PlainTransformer
from meloformer.bench.memory import forget_largest_resident_bytes, largest_resident_bytes
from meloformer.bench.music import practice_piece
from meloformer.model.batch import Batch
from meloformer.model.layout import Layout
from meloformer.model.meloformer import MeloFormer
from meloformer.settings import ModelSettings, TrainingSettings
from meloformer.shards.batches import BatchLoader
from meloformer.shards.store import open_shards
from meloformer.tokens.encode import encode
from meloformer.tokens.vocabulary import Vocabulary
from meloformer.training.loss import target_losses
from meloformer.training.optimizer import make_optimizers

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
MOST_TO_REPEAT = 20_000
"""Tokens of a row that is measured more than once."""

Kind = Literal["plain", "ours", "ours, fp32 attention"]
KINDS: tuple[Kind, ...] = ("plain", "ours")


class Case(NamedTuple):
    """What is measured."""

    shards: str | None
    length: int
    dtype: str
    threads: int
    repeats: int

    @property
    def is_long(self) -> bool:
        """Whether once has to do."""
        return self.length > MOST_TO_REPEAT


def row_of(case: Case) -> tuple[Batch, Vocabulary]:
    """One row of so many tokens."""
    if case.shards is None:
        ids = encode(practice_piece(0, num_bars=case.length // 16))[: case.length]
        return Batch.of([ids], length=case.length), Vocabulary.default()
    folder = open_shards(Path(case.shards))
    loader = BatchLoader(folder.split("train"), folder.vocabulary, seq_len=case.length, batch_size=1)
    return Batch.of(list(next(iter(loader.batches(0)))), folder.vocabulary), folder.vocabulary


def settings_of(kind: Kind) -> ModelSettings:
    """Size small."""
    detour = {"attention_dtype": "fp32"} if kind == "ours, fp32 attention" else {}
    return ModelSettings.of_size("small", attention="sparse", **detour)


class Step:
    """A training step: layout, forward, backward, optimiser."""

    def __init__(self, kind: Kind, case: Case, batch: Batch, vocabulary: Vocabulary) -> None:
        torch.manual_seed(0)
        self.batch, self.settings, self.dtype = batch, settings_of(kind), DTYPES[case.dtype]
        model = PlainTransformer if kind == "plain" else MeloFormer
        self.model = model(self.settings, vocabulary).to(self.dtype)
        self.optimizers = make_optimizers(self.model, TrainingSettings.model_validate({"optimizer": "muon"}))

    def __call__(self) -> None:
        """Take it."""
        self.take(self.batch)

    def take(self, batch: Batch) -> None:
        """Take it on another batch."""
        layout = Layout.of(batch, self.settings, self.dtype)
        target_losses(self.model(batch, layout), batch).mean().backward()
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()


def one_step(kind: Kind, case: Case) -> dict[str, float]:
    """Of this process, which does nothing else: CPU seconds of a step, and by how much its memory grew at most."""
    batch, vocabulary = row_of(case)
    forget_largest_resident_bytes()
    before = largest_resident_bytes()
    step = Step(kind, case, batch, vocabulary)
    step.take(Batch.of([batch.ids[0, :512].numpy()], vocabulary))  # makes the states of the optimisers
    forget_largest_resident_bytes()
    started = time.process_time()
    step()
    return {"seconds": time.process_time() - started, "peak": largest_resident_bytes() - before}

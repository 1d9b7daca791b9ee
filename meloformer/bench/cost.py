"""How long it takes to train, and what it costs: an extrapolation from the throughput of single steps."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from meloformer.settings import BenchSettings, Size
from meloformer.shards.store import open_shards

SECONDS_PER_HOUR = 3600.0
HOPED_FOR: dict[Size, float] = {"small": 200_000, "base": 100_000, "large": 60_000}
"""Tokens a second on ``HOPED_GPUS`` GPUs of 80 GB, as published of the first version; none was measured."""
HOPED_GPUS = 8


@dataclass(frozen=True)
class Corpus:
    """What is trained on."""

    tokens: float
    """Of one epoch."""
    source: str

    @classmethod
    def of(cls, settings: BenchSettings, shards: Path | None) -> Corpus:
        """The training split of shards, or else ``bench.songs``.

        Raises:
            InputError, ShardError: The shards cannot be used.
        """
        if shards is None:
            each = settings.tokens_per_song
            return cls(settings.songs * each, f"{settings.songs:,} songs of {each:,.0f} tokens on average")
        split = open_shards(shards).manifest.splits.get("train")
        tokens = 0 if split is None else split.num_tokens
        return cls(tokens, f"the {tokens:,} tokens of the training split of {shards}")


@dataclass(frozen=True)
class TrainingTime:
    """Hours for some epochs."""

    basis: str
    """Where the throughput comes from."""
    gpus: int
    tokens_per_second: float
    """Of all of them."""
    hours: float
    cost: float | None

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def training_time(basis: str, settings: BenchSettings, corpus: Corpus, gpus: int, speed: float) -> TrainingTime:
    """Divide.

    Args:
        basis: Where ``speed`` comes from.
        settings: ``epochs`` and ``price_per_gpu_hour`` count.
        corpus: What is trained on.
        gpus: How many.
        speed: Tokens a second of all of them.
    """
    hours = corpus.tokens * settings.epochs / speed / SECONDS_PER_HOUR
    price = settings.price_per_gpu_hour
    return TrainingTime(basis, gpus, speed, hours, None if price is None else hours * gpus * price)


def speed_of(one: float, gpus: int, efficiency: float) -> float:
    """Tokens a second of several GPUs: so many times one, and of that a share."""
    return one * gpus * (efficiency if gpus > 1 else 1.0)

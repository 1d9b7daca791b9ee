"""What fits into the memory of a GPU, found by bisection over predictions, and the settings to train with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import tomli_w

from meloformer.bench.prediction import MemoryProfile, PredictedMemory
from meloformer.settings import BenchSettings, ModelSettings, Settings, Size
from meloformer.settings_file import beside_size

GIB, MIB = 2**30, 2**20
BATCH_SEQ_LEN = 4096
"""Tokens in a row where the largest batch is asked for."""
SEQ_STEP = 1024
LONGEST = 2**22
MOST_ROWS = 2**14
Checkpointing = Literal["none", "ffn", "attention", "full"]
CHECKPOINTING: tuple[Checkpointing, ...] = get_args(Checkpointing)
"""From the fastest, which computes nothing again, to the slowest."""


@dataclass(frozen=True)
class Published:
    """What was published of the first version of MeloFormer, on one GPU."""

    size: Size
    seq_len: int
    batch_size: int
    memory: str


PUBLISHED = (
    Published("small", 4096, 2, "8 GB"),
    Published("small", 16384, 1, "20 GB"),
    Published("small", 24576, 1, "out of memory at 30 GB"),
    Published("base", 8192, 4, "out of memory at 32 GB"),
)


@dataclass(frozen=True)
class Allowance:
    """What a GPU holds beside tensors."""

    context_bytes: float
    """CUDA's context, compiled kernels, workspaces."""
    fragmentation: float
    """What the allocator wastes, as a share of what tensors take."""

    @classmethod
    def of(cls, settings: BenchSettings) -> Allowance:
        """From ``bench.context_mib`` and ``bench.fragmentation``."""
        return cls(settings.context_mib * MIB, settings.fragmentation)

    def needed_bytes(self, tensors: int) -> float:
        """Of the GPU, for tensors of so many bytes."""
        return tensors * (1 + self.fragmentation) + self.context_bytes

    def __str__(self) -> str:
        return f"needs = tensors + {self.fragmentation:.0%} for fragmentation + {self.context_bytes / MIB:.0f} MiB"


def with_model(settings: Settings, **changes: Any) -> Settings:
    """Another size or way of checkpointing; what was given beside the size stays."""
    given = beside_size(settings.model)
    return settings.model_copy(update={"model": ModelSettings.of_size(**{**given, **changes})})


@dataclass(frozen=True)
class Fits:
    """What fits of one size in one way of checkpointing."""

    size: Size
    checkpointing: Checkpointing
    longest_seq_len: int
    """With one row, in steps of ``SEQ_STEP``; 0 where not even that fits, at most ``LONGEST``."""
    largest_batch: int
    """Rows of ``BATCH_SEQ_LEN`` tokens; 0 where not even one fits, at most ``MOST_ROWS``."""

    @classmethod
    def of(cls, settings: Settings, gpu_bytes: float) -> Fits:
        """Bisect.

        Raises:
            SettingsError: There is no prediction for the model.
        """
        profile, allowance = MemoryProfile.of(settings.model, settings.training), Allowance.of(settings.bench)

        def fits(num_tokens: int) -> bool:
            return allowance.needed_bytes(profile.at(num_tokens).total) <= gpu_bytes

        return cls(
            settings.model.size,
            settings.model.checkpointing,
            SEQ_STEP * largest(lambda steps: fits(SEQ_STEP * steps), LONGEST // SEQ_STEP),
            largest(lambda rows: fits(BATCH_SEQ_LEN * rows), MOST_ROWS),
        )


def largest(is_good: Callable[[int], bool], most: int) -> int:
    """The largest of 1 to ``most`` that is good, where all smaller ones are good too; 0 where none is."""
    low, high = 0, most + 1  # low is good, high is not
    while high - low > 1:
        middle = min(2 * low or 1, high - 1) if high == most + 1 else (low + high) // 2
        if is_good(middle):
            low = middle
        else:
            high = middle
    return low


@dataclass(frozen=True)
class Recommended:
    """How to train a size on one GPU."""

    size: Size
    seq_len: int
    batch_size: int
    accumulation: int
    checkpointing: Checkpointing
    memory: PredictedMemory
    needed_bytes: float

    @property
    def step_tokens(self) -> int:
        """Of an optimiser step."""
        return self.seq_len * self.batch_size * self.accumulation

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        record = asdict(self)
        return {**record, "memory": self.memory.to_dict(), "step_tokens": self.step_tokens}

    def to_toml(self, settings: Settings) -> str:
        """Settings for ``train --config``, with what was chosen for the model beside the size."""
        record = {
            "model": {**beside_size(settings.model), "size": self.size, "checkpointing": self.checkpointing},
            "training": {
                "seq_len": self.seq_len, "batch_size": self.batch_size, "accumulation": self.accumulation,
                "precision": settings.training.precision or "bf16", "optimizer": settings.training.optimizer,
            },
        }  # fmt: skip
        return tomli_w.dumps(record)


def recommend(settings: Settings, gpu_bytes: float) -> Recommended | None:
    """Rows of ``bench.target_seq_len`` tokens, or else half of that and so on, in the fastest way of checkpointing
    that has room for one; then as many rows as fit, a power of two or ``bench.target_batch_size``, and passes until
    ``bench.target_step_tokens``.

    Returns:
        ``None`` where not even 1,024 tokens, or the fewer asked for, fit in any way.
    """
    chosen, allowance = settings.bench, Allowance.of(settings.bench)
    seq_len = chosen.target_seq_len
    while seq_len >= min(SEQ_STEP, chosen.target_seq_len):
        for checkpointing in CHECKPOINTING:
            model = with_model(settings, checkpointing=checkpointing).model
            profile = MemoryProfile.of(model, settings.training)
            rows_per_step = max(chosen.target_step_tokens // seq_len, 1)
            most_rows = min(rows_per_step, chosen.target_batch_size or rows_per_step)
            batch_size = 0
            while batch_size < most_rows:
                more = min(2 * batch_size or 1, most_rows)
                if allowance.needed_bytes(profile.at(seq_len * more).total) > gpu_bytes:
                    break
                batch_size = more
            if batch_size:
                memory = profile.at(seq_len * batch_size)
                accumulation = max(round(rows_per_step / batch_size), 1)
                needed = allowance.needed_bytes(memory.total)
                return Recommended(model.size, seq_len, batch_size, accumulation, checkpointing, memory, needed)
        seq_len //= 2
    return None

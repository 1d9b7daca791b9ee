"""Settings of what is measured: music and models by `evaluate`, steps by `bench`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from meloformer.settings.section import Positive, Section, Share


class EvaluationSettings(Section):
    """What ``evaluate`` measures, and on what. The pieces that a run writes are those of ``generation``."""

    split: Literal["val", "test"] = "val"
    """The held-out documents."""
    seq_len: Annotated[int, Field(ge=64)] | None = None
    """Tokens in a row; by default as the run was trained. Every token is predicted once whatever it is, so losses at
    two lengths tell what the longer context is worth."""
    batch_size: Positive = 4
    """Rows in one forward pass."""
    num: Annotated[int, Field(ge=0)] = 16
    """Pieces that the run writes to be measured, where no others are named; 0: measure losses only."""
    device: str = "auto"
    """As in training."""


class BenchSettings(Section):
    """What ``bench`` measures and reckons with."""

    seq_len: Annotated[int, Field(ge=64)] = 1024
    """Tokens in a row of the measured step."""
    batch_size: Positive = 1
    """Rows of the measured step."""
    repeats: Positive = 5
    """Measured steps, after ``warmup``; the median is reported with the spread."""
    warmup: Annotated[int, Field(ge=0)] = 1
    """Steps before that, reported apart."""
    device: str = "auto"
    """As in training."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the weights and of the music."""
    gpu_mem: Annotated[float, Field(gt=0, le=100_000)] | None = None
    """Memory of the GPU in GiB; by default that of the GPU here, and where there is none 32. What is measured on a GPU
    may take no more."""
    context_mib: Annotated[float, Field(ge=0)] = 700
    """Of it, what CUDA's context, the compiled kernels and cuBLAS's workspaces take, in MiB: an allowance."""
    fragmentation: Share = 0.1
    """What the allocator wastes, as a share of what tensors take: an allowance."""
    target_seq_len: Annotated[int, Field(ge=64)] = 16_384
    """Tokens in a row of the recommended settings, where they fit; with ``--seq-len``, the longest of those."""
    target_batch_size: Positive | None = None
    """Most rows of the recommended settings, by default as many as fit; with ``--batch-size``, the most of those."""
    target_step_tokens: Positive = 131_072
    """Tokens of an optimiser step of the recommended settings; rows and accumulation make it up."""
    songs: Positive = 450_000
    """Pieces to train on, where no shards are given."""
    tokens_per_song: Annotated[float, Field(gt=0)] = 4_614
    """Mean of 681 real files that ``pack`` keeps."""
    epochs: Annotated[float, Field(gt=0)] = 3
    """Passes over them."""
    gpus: tuple[Positive, ...] = (1, 8)
    """Numbers of GPUs to tell the time for."""
    scaling_efficiency: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Throughput of several GPUs as a share of so many times one; an assumption, unless several are here to measure."""
    tokens_per_second: Annotated[float, Field(gt=0)] | None = None
    """Of one GPU, to reckon with instead of what is measured here."""
    price_per_gpu_hour: Annotated[float, Field(ge=0)] | None = None
    """In any currency."""

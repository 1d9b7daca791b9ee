"""Settings of training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from meloformer.settings.section import Positive, Section, Share


class TrainingSettings(Section):
    """From shards to weights."""

    shards: Path = Path("shards")
    """Folder that ``pack`` wrote."""
    seq_len: Annotated[int, Field(ge=64)] = 2048
    """Tokens in a row. Longer documents are cut at bar lines."""
    batch_size: Positive = 4
    """Rows in one forward and backward pass."""
    accumulation: Positive = 1
    """Passes of each process whose gradients are added up before a step."""
    workers: Annotated[int, Field(ge=0)] | None = None
    """Processes that make rows ready ahead of the training, for each process that trains; 0 is none. By default 1 on a
    CPU with several cores, and up to 4 on a GPU. The rows and their order are the same for any number."""
    max_damaged: Annotated[int, Field(ge=0)] = 100
    """Documents that may turn out to be damaged while a run reads them, and are left out; one more ends the run."""
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    """Of the layers; weights and optimisers are in fp32. By default bf16 on CUDA devices that have it, else fp32."""
    compile: bool = False
    """Compile the feed-forward networks and norms on CUDA (``torch.compile``); the first steps take longer."""
    init: Path | None = None
    """A run, checkpoint or file of weights to start from, or ``packaged``, the model of the package: to train on one's
    own music what others trained."""
    max_hours: Annotated[float, Field(gt=0)] | None = None
    """The run ends after this long, with a checkpoint; a resumed run has as long again."""
    steps: Positive | None = None
    """Optimiser steps; by default what ``epochs`` amounts to."""
    epochs: Annotated[float, Field(gt=0, le=1_000_000)] = 10
    """Passes over the training split; ignored where ``steps`` is given."""
    transpose: bool = True
    """Every document in another key in every epoch, -5 to +6 semitones; chords move along, drums stay."""
    tempo_bins: Annotated[int, Field(ge=0, le=16)] = 1
    """Every document faster or slower by up to so many bins of tempo, each some 4 to 10 %, anew in every epoch."""
    velocity_bins: Annotated[int, Field(ge=0, le=16)] = 2
    """Every document louder or softer by up to so many of the 32 bins of velocity, anew in every epoch."""
    optimizer: Literal["adamw", "muon"] = "muon"
    """``muon``: torch.optim.Muon for the matrices of the layers, AdamW for the rest. ``adamw``: AdamW for all."""
    learning_rate: Annotated[float, Field(gt=0)] = 8e-3
    """Peak learning rate of both: Muon's updates are scaled to the size of AdamW's. ``tiny`` after 200 steps on real
    files: 2.96, 2.71, 2.65, 2.62, 2.72 validation nats a token at 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Of matrices only."""
    warmup_share: Share = 0.05
    """Share of the steps over which the learning rate rises from 0."""
    schedule: Literal["cosine", "wsd"] = "cosine"
    """How it falls: along a cosine, or not at all until the last ``decay_share`` of the steps, and then straight."""
    decay_share: Share = 0.2
    """Of the steps, for ``wsd``."""
    final_rate: Share = 0.05
    """Where it ends, as a share of the peak."""
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are scaled down to this global norm."""
    eval_every: Positive = 100
    """Steps between two validations; the last step is always validated."""
    eval_rows: Positive = 32
    """Rows of the validation split that one validation reads at the most."""
    sample_every: Annotated[int, Field(ge=0)] = 500
    """Steps between two short pieces, written as MIDI into the run's ``samples``; 0 is never."""
    sample_bars: Annotated[int, Field(ge=1, le=64)] = 8
    """Their length."""
    checkpoint_every: Positive = 500
    """Steps between two checkpoints, each of which is validated; the last step always has one."""
    keep_checkpoints: Positive = 3
    """How many of the newest checkpoints stay on the disk, beside the one with the lowest validation loss."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the weights and of the order of the rows."""
    device: str = "auto"
    """``auto`` takes CUDA where it is present; ``cpu``, ``cuda``, ``cuda:1``, ``mps``."""

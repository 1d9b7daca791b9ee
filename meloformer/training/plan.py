"""What a run will do: rows, tokens, steps, parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from meloformer.errors import ShardError
from meloformer.model.meloformer import MeloFormer
from meloformer.settings import Settings, TrainingSettings
from meloformer.shards.augment import Augmentation
from meloformer.shards.batches import BatchLoader
from meloformer.shards.store import ShardFolder, Split, open_shards


@dataclass(frozen=True)
class Plan:
    """The data of a run, opened, and how far it reaches."""

    shards: ShardFolder
    training: BatchLoader
    validation: BatchLoader
    total_steps: int

    def validation_rows(self, limit: int) -> Iterator[np.ndarray]:
        """The first ``limit`` rows of the validation split, in batches: the same in every run of one ``seq_len``.

        Yields:
            (B, seq_len) int64 ids.
        """
        left = limit
        for ids in self.validation.batches(epoch=0):
            if left <= 0:
                return
            yield ids[:left]
            left -= len(ids)


def make_plan(shards: Path, settings: Settings) -> Plan:
    """Open the shards and count.

    Raises:
        InputError, ShardError: The shards are missing, damaged, or have nothing to train on.
    """
    folder = open_shards(shards)
    chosen = settings.training

    def loader(split: Split, seed: int, augmentation: Augmentation | None) -> BatchLoader:
        shape = {"seq_len": chosen.seq_len, "batch_size": chosen.batch_size}
        return BatchLoader(folder.split(split), folder.vocabulary, **shape, seed=seed, augmentation=augmentation)

    augmentation = Augmentation(
        folder.vocabulary,
        seed=chosen.seed,
        transpose=chosen.transpose,
        tempo_bins=chosen.tempo_bins,
        velocity_bins=chosen.velocity_bins,
    )
    training = loader("train", chosen.seed, augmentation)
    validation = loader("val", 0, None)  # the same for every seed and epoch
    if not training.fragments:
        names = ", ".join(folder.manifest.splits) or "none"
        raise ShardError(
            f"{shards} has no training documents (splits: {names})", "make shards with `meloformer pack MIDI_FOLDER`"
        )
    return Plan(folder, training, validation, chosen.steps or _steps_of(chosen, training.num_batches(0)))


def _steps_of(settings: TrainingSettings, num_batches: int) -> int:
    """Steps after which every token has been a target ``epochs`` times; every epoch has the same number of batches."""
    passes = math.ceil(round(settings.epochs * num_batches, 6))
    return -(-passes // settings.accumulation)


def ignored_settings(settings: TrainingSettings) -> list[str]:
    """A sentence for every setting that was given and has no effect."""
    given, ignored = settings.model_fields_set, []
    if "epochs" in given and settings.steps is not None:
        ignored.append("training.epochs has no effect beside a number of steps")
    if "decay_share" in given and settings.schedule != "wsd":
        ignored.append("training.decay_share has no effect with training.schedule=cosine")
    if "keep_checkpoints" in given and settings.steps is not None and settings.steps <= settings.checkpoint_every:
        ignored.append("training.keep_checkpoints has no effect: there is one checkpoint, at the end")
    return ignored


def describe(plan: Plan, settings: Settings) -> dict[str, Any]:
    """True counts of everything that a run will use; the model is built without memory."""
    with torch.device("meta"):
        parameters = MeloFormer(settings.model, plan.shards.vocabulary).parameter_counts()
    chosen, loader = settings.training, plan.training
    num_rows = len(loader.rows(0))
    per_step = num_rows / loader.num_batches(0) * chosen.accumulation
    return {
        "size": settings.model.size,
        "parameters": parameters,
        "heads": dict(settings.model.heads),
        "seq_len": chosen.seq_len,
        "documents": len(loader.documents),
        "rows_per_epoch": num_rows,
        "tokens_per_epoch": loader.num_targets,
        "padding_share": round(loader.padding_share(0), 4),
        "steps": plan.total_steps,
        "epochs": round(plan.total_steps * per_step / num_rows, 3),
        "tokens_in_all": round(loader.num_targets * plan.total_steps * per_step / num_rows),
        "validation_documents": len(plan.validation.documents),
    }

"""What a run will do: rows, tokens, steps, parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from meloformer.errors import SettingsError, ShardError
from meloformer.model.meloformer import MeloFormer
from meloformer.settings import Settings, TrainingSettings
from meloformer.shards.augment import Augmentation
from meloformer.shards.batches import BatchLoader, Damage, cut_documents, in_order
from meloformer.shards.store import ShardFolder, open_shards
from meloformer.training.distributed import ALONE, Ranks


@dataclass(frozen=True)
class Plan:
    """The data of a run, opened, and how far it reaches."""

    shards: ShardFolder
    training: BatchLoader
    validation: BatchLoader
    rows_per_step: int
    """Of all ranks together."""
    total_steps: int
    damage: Damage
    """Documents that were too long for a row and could not be read to be cut."""

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

    def of_rows_per_step(self, rows_per_step: int, settings: TrainingSettings) -> Plan:
        """The same plan with steps of another size."""
        total = settings.steps or _steps_of(settings, self.training.num_rows, rows_per_step)
        return replace(self, rows_per_step=rows_per_step, total_steps=total)


def make_plan(shards: Path, settings: Settings, ranks: Ranks = ALONE) -> Plan:
    """Open the shards and count. Each rank reads its share of what has to be read for that.

    Raises:
        InputError, ShardError: The shards are missing, damaged, or have nothing to train on.
    """
    folder = open_shards(shards)
    chosen = settings.training
    documents = folder.split("train")
    ours = ranks.share(range(len(documents)))
    cut = ranks.gathered(cut_documents(documents, ours, chosen.seq_len, folder.vocabulary))
    training = BatchLoader(
        documents,
        folder.vocabulary,
        seq_len=chosen.seq_len,
        batch_size=chosen.batch_size,
        seed=chosen.seed,
        augmentation=Augmentation(
            folder.vocabulary,
            seed=chosen.seed,
            transpose=chosen.transpose,
            tempo_bins=chosen.tempo_bins,
            velocity_bins=chosen.velocity_bins,
        ),
        fragments=in_order(fragments for fragments, _ in cut),
    )
    validation = BatchLoader(  # the same for every seed and epoch
        folder.split("val"), folder.vocabulary, seq_len=chosen.seq_len, batch_size=chosen.batch_size
    )
    if not training.fragments:
        others = ", ".join(folder.manifest.splits)
        raise ShardError(
            f"{shards} has no training documents ({f'only {others}' if others else 'none of its files was kept'})",
            f"{shards / 'rejects.jsonl'} says what became of the files; pack more music, or --set filter.* otherwise",
        )
    damage = {number: told for _, part in cut for number, told in part.items()}
    plan = Plan(folder, training, validation, 0, 0, damage)
    return plan.of_rows_per_step(chosen.batch_size * chosen.accumulation * ranks.size, chosen)


def _steps_of(settings: TrainingSettings, num_rows: int, rows_per_step: int) -> int:
    """Steps after which every token has been a target ``epochs`` times; every epoch has the same number of rows."""
    return -(-math.ceil(round(settings.epochs * num_rows, 6)) // rows_per_step)


def refuse_idle_ranks(ranks: Ranks, rows_per_step: int) -> None:
    """Every rank needs a row of every step.

    Raises:
        SettingsError: There are more ranks than rows.
    """
    if ranks.size > rows_per_step:
        raise SettingsError(
            f"{ranks.size} processes cannot share the {rows_per_step} rows of a step of this run",
            f"start {rows_per_step} at most",
        )


def ignored_settings(settings: TrainingSettings, device: torch.device) -> list[str]:
    """A sentence for every setting that was changed and has no effect."""
    without: dict[str, str] = {}
    if settings.steps is not None:
        without["epochs"] = "beside a number of steps"
        if settings.steps <= settings.checkpoint_every:
            without["keep_checkpoints"] = "with one checkpoint, at the end"
    if settings.schedule != "wsd":
        without["decay_share"] = "with training.schedule=cosine"
    if settings.sample_every == 0:
        without["sample_bars"] = "with training.sample_every=0"
    if device.type != "cuda":
        without["compile"] = f"on {device.type}: only the layers on CUDA are compiled"
    defaults = TrainingSettings()
    return [
        f"training.{name} has no effect {reason}"
        for name, reason in without.items()
        if name in settings.model_fields_set and getattr(settings, name) != getattr(defaults, name)
    ]


def describe(plan: Plan, settings: Settings) -> dict[str, Any]:
    """True counts of everything that a run will use; the model is built without memory."""
    with torch.device("meta"):
        parameters = MeloFormer(settings.model, plan.shards.vocabulary).parameter_counts()
    loader = plan.training
    epochs = plan.total_steps * plan.rows_per_step / loader.num_rows
    return {
        "size": settings.model.size,
        "parameters": parameters,
        "heads": dict(settings.model.heads),
        "seq_len": settings.training.seq_len,
        "documents": len(loader.documents),
        "rows_per_epoch": loader.num_rows,
        "rows_per_step": plan.rows_per_step,
        "tokens_per_epoch": loader.num_targets,
        "padding_share": round(loader.padding_share(0), 4),
        "steps": plan.total_steps,
        "epochs": round(epochs, 3),
        "tokens_in_all": round(loader.num_targets * epochs),
        "validation_documents": len(plan.validation.documents),
    }

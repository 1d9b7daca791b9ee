"""A plan counts what the run will do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from meloformer.errors import ShardError
from meloformer.model.meloformer import MeloFormer
from meloformer.settings import Settings
from meloformer.settings_file import load_settings
from meloformer.shards.pipeline import tokenize_pieces
from meloformer.training.plan import describe, ignored_settings, make_plan
from tests.training.conftest import TINY


def settings_with(*changes: str) -> Settings:
    return load_settings(None, [*(text for text in TINY if not text.startswith("training.steps")), *changes])


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("epochs", [0.5, 1, 2])
def test_epochs_are_rounded_up_to_whole_steps(tiny_shards: Path, epochs: float, accumulation: int) -> None:
    plan = make_plan(tiny_shards, settings_with(f"training.epochs={epochs}", f"training.accumulation={accumulation}"))
    wanted = epochs * plan.training.num_rows
    assert plan.rows_per_step == 2 * accumulation
    assert wanted <= plan.total_steps * plan.rows_per_step < wanted + plan.rows_per_step + 1


def test_steps_win_over_epochs(tiny_shards: Path) -> None:
    assert make_plan(tiny_shards, settings_with("training.steps=7", "training.epochs=3")).total_steps == 7


def test_a_description_is_true(tiny_shards: Path) -> None:
    settings = settings_with("training.epochs=2")
    plan = make_plan(tiny_shards, settings)
    facts = describe(plan, settings)
    rows = [row for batch in plan.training.batches(0) for row in batch]
    documents = list(plan.shards.split("train"))
    assert facts["documents"] == len(documents)
    assert facts["tokens_per_epoch"] == sum(len(ids) - 1 for ids in documents)
    assert facts["rows_per_epoch"] == len(rows)
    assert facts["padding_share"] == pytest.approx(np.mean(np.stack(rows) == 0), abs=1e-4)
    assert facts["steps"] == -(-2 * len(rows) // 2)
    model = MeloFormer(settings.model, plan.shards.vocabulary)
    assert facts["parameters"]["total"] == sum(parameter.numel() for parameter in model.parameters())


def test_validation_rows_are_as_many_as_wished_whatever_the_batch(tiny_shards: Path) -> None:
    def rows(limit: int, batch_size: int) -> list[list[int]]:
        plan = make_plan(tiny_shards, settings_with(f"training.batch_size={batch_size}"))
        return [row.tolist() for batch in plan.validation_rows(limit) for row in batch]

    assert len(rows(3, 2)) == 3
    assert rows(3, 2) == rows(3, 1) == rows(1000, 4)[:3]
    assert rows(1000, 4) == rows(1000, 3)


def test_tokens_without_a_training_split_are_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    from meloformer.bench.music import practice_piece
    from meloformer.midi.write import write_midi

    write_midi(practice_piece(0, num_bars=4), tmp_path / "song.mid")
    tokenize_pieces([tmp_path / "song.mid"], tmp_path / "tokens", Settings())
    with pytest.raises(
        ShardError, match=r"no training documents \(only all\); .*rejects.jsonl says what became of the files"
    ):
        make_plan(tmp_path / "tokens", settings_with())


@pytest.mark.parametrize(
    ("changes", "device", "told"),
    [
        ((), "cpu", []),
        (("training.epochs=3",), "cpu", []),
        (("training.epochs=3", "training.steps=9"), "cpu", ["training.epochs has no effect beside a number of steps"]),
        (("training.epochs=10", "training.steps=9"), "cpu", []),  # as a run writes it down
        (("training.decay_share=0.1",), "cpu", ["training.decay_share has no effect with training.schedule=cosine"]),
        (("training.decay_share=0.1", "training.schedule=wsd"), "cpu", []),
        (("training.sample_bars=2", "training.sample_every=0"), "cpu", ["training.sample_bars has no effect with"]),
        (("training.compile=true",), "cpu", ["training.compile has no effect on cpu"]),
        (("training.compile=true",), "cuda", []),
        (("training.steps=9", "training.keep_checkpoints=9"), "cpu", ["training.keep_checkpoints has no effect with"]),
    ],
)
def test_a_setting_without_effect_is_told(changes: tuple[str, ...], device: str, told: list[str]) -> None:
    found = ignored_settings(load_settings(None, list(changes)).training, torch.device(device))
    assert len(found) == len(told)
    assert all(text.startswith(wanted) for text, wanted in zip(found, told, strict=True))

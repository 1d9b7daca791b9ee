"""The loss curve shows what was logged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from meloformer.tokens.vocabulary import NUM_TOKEN_TYPES, TokenType
from meloformer.training.loss import Evaluation
from meloformer.training.plot import plot_losses, smoothed


def logged(folder: Path, *, validated: bool) -> Path:
    records = [{"step": step, "loss": 7 / step} for step in range(1, 30)]
    if validated:
        records += [{"step": step, "validation": {"nats_per_token": 8 / step}} for step in (10, 20, 29)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder / "metrics.jsonl"


def baseline_of(nats: float) -> Evaluation:
    counts = np.zeros(NUM_TOKEN_TYPES, dtype=np.int64)
    counts[TokenType.PITCH] = 10
    return Evaluation(counts * nats, counts)


def share_of_colour(picture: Path, hexadecimal: str) -> float:
    wanted = np.array([int(hexadecimal[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return float((np.abs(imread(picture)[:, :, :3] - wanted).max(axis=2) < 0.02).mean())


def test_training_and_validation_are_drawn_in_their_colours(tmp_path: Path) -> None:
    plot_losses(logged(tmp_path, validated=True), tmp_path / "loss.png", baseline_of(5.0))
    assert share_of_colour(tmp_path / "loss.png", "#33518a") > 0.001
    assert share_of_colour(tmp_path / "loss.png", "#c8452f") > 0.001
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loss.png", "metrics.jsonl"]


def test_a_run_without_validation_has_a_curve_too(tmp_path: Path) -> None:
    plot_losses(logged(tmp_path, validated=False), tmp_path / "loss.png", None)
    assert share_of_colour(tmp_path / "loss.png", "#33518a") > 0.001
    assert share_of_colour(tmp_path / "loss.png", "#c8452f") == 0


def test_a_run_that_took_no_step_has_an_empty_picture(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("")
    plot_losses(tmp_path / "metrics.jsonl", tmp_path / "loss.png", None)
    assert imread(tmp_path / "loss.png").ndim == 3


def test_smoothing_neither_lags_nor_bends_a_straight_line() -> None:
    line = np.linspace(7.0, 2.0, 301)
    assert smoothed(line) == pytest.approx(line)
    noise = np.random.default_rng(0).normal(size=301)
    assert smoothed(line + noise)[20:-20] == pytest.approx(line[20:-20], abs=1.2)
    assert np.abs(np.diff(smoothed(noise)))[20:-20].max() < 0.5 * np.abs(np.diff(noise)).max()

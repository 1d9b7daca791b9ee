"""The loss curve of a run as a picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from meloformer.files import whole_file
from meloformer.training.loss import Evaluation

SMOOTHING = 50
"""The smoothed curve averages one step in this many on either side: it must not lag behind the loss where it falls."""


def plot_losses(metrics: Path, picture: Path, baseline: Evaluation | None) -> None:
    """Draw ``metrics.jsonl`` as ``loss.png``: training and validation loss a token, and the unigram baseline.

    Args:
        metrics: What the loop logged.
        picture: The PNG to write.
        baseline: Drawn as a dashed line where there is one.
    Raises:
        OutputError: The picture cannot be written.
    """
    from matplotlib.figure import Figure

    records = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    training = [(record["step"], record["loss"]) for record in records if "loss" in record]
    validation = [(r["step"], r["validation"]["nats_per_token"]) for r in records if "validation" in r]
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    if training:
        steps, losses = zip(*training, strict=True)
        axes.plot(steps, losses, color="#b8c4d6", linewidth=0.8, label="training")
        axes.plot(steps, smoothed(np.array(losses)), color="#33518a", linewidth=1.6, label="training, smoothed")
    if validation:
        steps, losses = zip(*validation, strict=True)
        axes.plot(steps, losses, color="#c8452f", marker="o", markersize=3.5, label="validation")
        axes.annotate(
            f"{losses[-1]:.2f}", (steps[-1], losses[-1]), textcoords="offset points", xytext=(-4, 6), ha="right"
        )
    if baseline is not None:
        axes.axhline(baseline.per_token, color="#777777", linestyle="--", linewidth=1)
        label = f"unigram baseline {baseline.per_token:.2f} "
        place = axes.get_yaxis_transform()
        axes.text(0.99, baseline.per_token, label, transform=place, ha="right", va="bottom", color="#555", fontsize=8)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats a token)")
    axes.grid(alpha=0.25)
    if training or validation:
        axes.legend(frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    with whole_file(picture) as beside:
        figure.savefig(beside, format="png")


def smoothed(values: np.ndarray) -> np.ndarray:
    """(N,) mean over a window around each value, narrower towards both ends."""
    places = np.arange(len(values))
    reach = np.minimum(len(values) // SMOOTHING, np.minimum(places, places[::-1]))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return (sums[places + reach + 1] - sums[places - reach]) / (2 * reach + 1)

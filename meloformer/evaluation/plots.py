"""The figures of a report as pictures."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from meloformer.evaluation.distributions import DISTRIBUTIONS
from meloformer.evaluation.evaluate import Report
from meloformer.evaluation.prediction import DistanceBin, Prediction
from meloformer.evaluation.structure import READINGS, SetFigures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"generated": "#c8452f", "held_out": "#33518a", "corpus": "#8a8f98"}
LABELS = {"generated": "generated", "held_out": "held-out music", "corpus": "training split"}
UNIGRAM_COLOUR = "#8a8f98"
DOTS_PER_INCH = 110


def svg_of(draw: Callable[[Axes], None], *, width: float = 6.4, height: float = 3.4) -> str:
    """A picture as SVG text, without the lines that make it a file of its own.

    Args:
        draw: Draws into the axes.
        width, height: In inches.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": "meloformer"}):
        figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
        axes = figure.subplots()
        draw(axes)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.set_axisbelow(True)
        beside = io.StringIO()
        figure.savefig(beside, format="svg", metadata={"Date": None})
    text = beside.getvalue()
    before, _, rest = text[text.index("<svg") :].partition("<metadata>")
    return before + rest.partition("</metadata>")[2]


def draw_types(axes: Axes, prediction: Prediction) -> None:
    """Losses by the kind of token, beside the baseline's."""
    model, unigram = prediction.model.by_type, prediction.unigram.by_type
    names, rows = list(model), np.arange(len(model))
    axes.barh(rows - 0.2, [model[name] for name in names], height=0.38, color=COLOURS["held_out"], label="model")
    axes.barh(rows + 0.2, [unigram[name] for name in names], height=0.38, color="#c9ced6", label="unigram baseline")
    axes.set_yticks(rows, names)
    axes.invert_yaxis()
    axes.set_xlabel("nats a token of this kind", fontsize=8)
    axes.grid(axis="x", alpha=0.25)
    axes.legend(frameon=False, fontsize=8)


def draw_distance(axes: Axes, bins: Sequence[DistanceBin], unit: str) -> None:
    """Loss a note by what was read before, beside the baseline's; bins without notes are left out."""
    with_notes = [one for one in bins if one.model.num_notes]
    places = np.arange(len(with_notes))
    axes.plot(
        places, [one.unigram.per_note for one in with_notes], "--", color=UNIGRAM_COLOUR, label="unigram baseline"
    )
    axes.plot(places, [one.model.per_note for one in with_notes], "o-", color=COLOURS["held_out"], label="model")
    axes.set_xticks(places, [label_of(one) for one in with_notes], rotation=35, ha="right")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"{unit} of the piece read before", fontsize=8)
    axes.set_ylabel("nats a note", fontsize=8)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8)


def label_of(one: DistanceBin) -> str:
    """``64-127``, or a single number."""
    return f"{one.low:,}" if one.high - one.low == 1 else f"{one.low:,}-{one.high - 1:,}"


def draw_similarity(axes: Axes, sets: dict[str, SetFigures]) -> None:
    """L_t of every set."""
    for name, figures in sets.items():
        distance = np.arange(1, len(figures.similarity) + 1)
        axes.plot(distance, figures.similarity, color=COLOURS[name], label=LABELS[name], linewidth=1.6)
    for four in range(4, 41, 4):
        axes.axvline(four, color="#e4e6ea", linewidth=0.7, zorder=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("bars apart", fontsize=8)
    axes.set_ylabel("similarity of two bars", fontsize=8)
    axes.legend(frameon=False, fontsize=8)


def draw_distribution(axes: Axes, sets: dict[str, SetFigures], kind: str) -> None:
    """The shares of one distribution in every set; what occurs nowhere is left out."""
    labels = DISTRIBUTIONS[kind][1]
    shares = {name: figures.distributions[kind] for name, figures in sets.items()}
    occurs = np.flatnonzero(np.sum(list(shares.values()), axis=0) > 0)
    width = 0.84 / len(shares)
    for number, (name, values) in enumerate(shares.items()):
        place = np.arange(len(occurs)) + (number - (len(shares) - 1) / 2) * width
        axes.bar(place, 100 * values[occurs], width=width, color=COLOURS[name], label=LABELS[name])
    axes.set_xticks(np.arange(len(occurs)), [labels[at] for at in occurs], rotation=90 if len(occurs) > 12 else 0)
    axes.set_ylabel("percent", fontsize=8)
    axes.grid(axis="y", alpha=0.25)
    axes.legend(frameon=False, fontsize=8)


def draw_copies(axes: Axes, report: Report) -> None:
    """Of every set the share of its pieces that copy at least so many notes, for every reading."""
    for name, comparison in report.compared.items():
        for reading, style in zip(READINGS, ("-", ":", "--"), strict=True):
            runs = np.sort(comparison.copies[reading])[::-1]
            share = 100 * np.arange(1, len(runs) + 1) / len(runs)
            label = f"{LABELS[name]}, {reading}"
            axes.step(runs, share, where="pre", linestyle=style, color=COLOURS[name], label=label)
    axes.axvline(32, color="#555", linewidth=0.8, linestyle="--")
    axes.set_xscale("symlog", linthresh=8)
    axes.set_xlim(left=0)
    axes.set_ylim(0, 102)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xticks([value for value in (0, 4, 8, 16, 32, 64, 128, 512, 2048, 8192) if value <= axes.get_xlim()[1]])
    axes.minorticks_off()
    axes.set_xlabel("notes in the longest run that also stands in the training split", fontsize=8)
    axes.set_ylabel("percent of the pieces", fontsize=8)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8)

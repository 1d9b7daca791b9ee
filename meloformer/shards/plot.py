"""What shards hold as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from meloformer.files import whole_file
from meloformer.shards.info import ShardsInfo

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOUR = "#33518a"
MEDIAN_COLOUR = "#c8452f"
MAX_BARS_DRAWN = 14
"""Rows of a panel; there is no room for the names of more."""
NUM_BINS = 30


def plot_info(info: ShardsInfo, picture: Path, *, title: str = "") -> None:
    """Draw six panels: instruments, meters and kinds of tokens; document lengths, notes a bar and tempos.

    Args:
        info: Of the shards.
        picture: The PNG to write; it appears only when it is whole.
        title: Printed above, with the counts.
    Raises:
        OutputError: The picture cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7.6), dpi=110, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)  # type: ignore[union-attr]
    above, below = figure.subplots(2, 3, height_ratios=(1.35, 1))
    documents, bars = max(info.manifest.num_documents, 1), max(int(info.document_bars.sum()), 1)
    played = {one.name: one.documents for one in info.instruments()}
    _draw_shares(above[0], played, documents, "instruments (share of the documents)")
    _draw_shares(above[1], info.meters(), bars, "meters (share of the bars)")
    _draw_shares(above[2], info.token_types(), info.manifest.num_tokens, "tokens (share of all)")
    _draw_spread(below[0], info.document_tokens, "tokens of a document", "documents")
    notes_a_bar = info.document_notes / np.maximum(info.document_bars, 1)
    _draw_spread(below[1], notes_a_bar, "notes a bar (mean of a document)", "documents")
    _draw_tempos(below[2], info.tempos())
    facts = (
        f"{info.manifest.num_documents:,} documents, {info.seconds / 3600:,.1f} hours, {bars:,} bars, "
        f"{info.manifest.num_notes:,} notes, {info.manifest.num_tokens:,} tokens "
        f"({info.tokens_per_note:.2f} a note), compressed {info.ratio:.1f} : 1"
    )
    figure.suptitle(f"{title}   {facts}" if title else facts, fontsize=10)
    with whole_file(picture) as beside:
        figure.savefig(beside, format="png")


def _draw_shares(axes: Axes, counts: dict[str, int], whole: int, title: str) -> None:
    """A bar for each of the commonest, with its share in percent."""
    names = list(counts)[:MAX_BARS_DRAWN]
    shares = [100 * counts[name] / max(whole, 1) for name in names]
    more = len(counts) - len(names)
    axes.barh(range(len(names)), shares, color=COLOUR, height=0.72)
    for row, share in enumerate(shares):
        axes.annotate(f"{share:.0f} %" if share >= 1 else f"{share:.1g} %", (share, row), (3, 0),
                      textcoords="offset points", va="center", fontsize=7, color="#555")  # fmt: skip
    axes.set_yticks(range(len(names)), names, fontsize=7.5)
    axes.set_ylim(MAX_BARS_DRAWN - 0.4, -0.6)
    axes.set_xlim(0, 1.14 * max(shares, default=1))
    axes.set_xticks([])
    axes.set_title(f"{title}, {more} more" if more > 0 else title, fontsize=9, loc="left")
    axes.tick_params(length=0)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)


def _draw_spread(axes: Axes, values: np.ndarray, title: str, counted: str) -> None:
    """How many documents have which value, on a logarithmic axis, and the median."""
    _style(axes, title, counted)
    values = values[values > 0]
    if not len(values):
        return
    low, high = float(values.min()), max(float(values.max()), float(values.min()) * 1.01)
    axes.hist(values, bins=np.geomspace(low, high, NUM_BINS + 1).tolist(), color=COLOUR)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda _value, _position: "")
    median = float(np.quantile(values, 0.5, method="inverted_cdf"))  # as the table has it
    axes.axvline(median, color=MEDIAN_COLOUR, linewidth=2)
    shown = f"{median:,.0f}" if median >= 100 else f"{median:.1f}"
    axes.annotate(f"median {shown}", (median, 1), (4, -9), xycoords=("data", "axes fraction"),
                  textcoords="offset points", fontsize=7.5, color=MEDIAN_COLOUR)  # fmt: skip


def _draw_tempos(axes: Axes, tempos: dict[str, int]) -> None:
    """A bar for every tempo of the vocabulary that occurs."""
    _style(axes, "tempo (quarters a minute)", "bars")
    bpm = np.array([int(tempo) for tempo in tempos])
    axes.bar(bpm, list(tempos.values()), width=0.035 * bpm, color=COLOUR)


def _style(axes: Axes, title: str, counted: str) -> None:
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_ylabel(counted, fontsize=8)
    axes.tick_params(labelsize=7.5)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)

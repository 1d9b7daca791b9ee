"""Memory and throughput over the length of a row, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meloformer.bench.fits import BATCH_SEQ_LEN, GIB, PUBLISHED, Allowance, with_model
from meloformer.bench.prediction import MemoryProfile
from meloformer.bench.tables import Wishes
from meloformer.files import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LENGTHS = tuple(2**power for power in range(10, 19))
COLOURS = ("#33518a", "#c8452f", "#3b8f6b", "#8a5fb0", "#b98a2e")
DRAWN = ("none", "full")
"""Ways of checkpointing: solid and dashed."""


def plot_bench(wishes: Wishes, speeds: Sequence[dict[str, Any]], picture: Path) -> None:
    """Draw two panels.

    Args:
        wishes: The sizes, and the memory of the GPU.
        speeds: Records of ``lengths_tables``, those that ran out of memory among them.
        picture: The PNG to write; it appears only when it is whole.
    Raises:
        OutputError: The picture cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_memory(left, wishes)
    _draw_speed(right, wishes, [each for each in speeds if "tokens_per_second" in each])
    with whole_file(picture) as beside:
        figure.savefig(beside, format="png")


def _draw_memory(axes: Axes, wishes: Wishes) -> None:
    allowance = Allowance.of(wishes.settings.bench)
    top = 0.0
    for size, colour in zip(wishes.sizes, COLOURS, strict=False):
        for mode in DRAWN:
            profile = MemoryProfile.of(with_model(size, checkpointing=mode).model, size.training)
            needs = [allowance.needed_bytes(profile.at(length).total) / GIB for length in LENGTHS]
            label = size.model.size if mode == DRAWN[0] else None
            axes.plot(LENGTHS, needs, color=colour, linestyle="-" if mode == DRAWN[0] else "--", label=label)
            top = max(top, *needs)
    sizes = [size.model.size for size in wishes.sizes]
    points = [(p.seq_len * p.batch_size, float(p.memory.split()[-2]), p) for p in PUBLISHED if p.size in sizes]
    for tokens, height, published in points:
        is_short = "out of memory" in published.memory
        axes.plot([tokens], [height], marker="^" if is_short else "o", markersize=6, linestyle="",
                  color=COLOURS[sizes.index(published.size)], markerfacecolor="none" if is_short else None)  # fmt: skip
    axes.axhline(wishes.gpu_mem, color="#777777", linewidth=1, linestyle=":")
    axes.annotate(f"{wishes.gpu_mem:g} GiB", (LENGTHS[0], wishes.gpu_mem), (2, 3), textcoords="offset points",
                  fontsize=8, color="#555")  # fmt: skip
    axes.set_yscale("log", base=2)
    axes.set_ylim(0.5, 2 * max(top, wishes.gpu_mem))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    _style(axes, "memory of a step with one row, predicted (GiB)")
    axes.plot([], [], color="#555", linestyle="--", label="checkpointing full")
    if points:
        axes.plot([], [], color="#555", marker="o", linestyle="", label="published, first version")
        axes.plot([], [], color="#555", marker="^", linestyle="", markerfacecolor="none", label="published: not enough")
    axes.legend(frameon=False, fontsize=8)


def _draw_speed(axes: Axes, wishes: Wishes, speeds: Sequence[dict[str, Any]]) -> None:
    name = wishes.settings.model.size
    if speeds:
        lengths, values = zip(*((each["seq_len"], each["tokens_per_second"]) for each in speeds), strict=True)
        axes.plot(lengths, values, color=COLOURS[0], marker="o", markersize=4)
        for length, value in zip(lengths, values, strict=True):
            axes.annotate(f"{value:,.0f}", (length, value), (0, 6), textcoords="offset points", ha="center", fontsize=8)
    else:
        axes.text(0.5, 0.5, "nothing measured", transform=axes.transAxes, ha="center", color="#777")
    axes.set_ylim(0, 1.2 * max((each["tokens_per_second"] for each in speeds), default=1))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    _style(axes, f"throughput of {name} on this {wishes.device.type}, one row (tokens/s)")


def _style(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value < BATCH_SEQ_LEN else f"{value / 1024:g}k")
    axes.set_xlabel("tokens in a row", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)

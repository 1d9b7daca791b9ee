"""``meloformer info``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meloformer.cli import console, options

if TYPE_CHECKING:
    from meloformer.shards.info import ShardsInfo

MAX_ROWS = 12
"""Of a table; --json lists everything."""


@console.reports_errors
def info_command(
    shards: Annotated[Path, typer.Argument(help="What pack or tokenize wrote.")] = Path("shards"),
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw it as a picture too.")] = None,
    config: options.Config = None,
    overrides: options.Overrides = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Say what shards hold, and verify them: every document is read, and a damaged one is an error that names it."""
    from meloformer.errors import SettingsError
    from meloformer.settings_file import load_settings
    from meloformer.shards.info import read_info

    settings = load_settings(config, overrides)
    if plot is not None and plot.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise SettingsError(f"--plot {plot} is no name of a picture", "let it end in .png, .svg or .pdf")
    with console.progress("read", quiet=quiet) as bar:
        info = read_info(shards, settings, progress=bar)
    if plot is not None:
        from meloformer.shards.plot import plot_info

        plot_info(info, plot, title=str(shards))
    if as_json:
        console.json_result({"shards": str(shards), **info.to_dict(), "plot": None if plot is None else str(plot)})
        return
    _show_counts(info)
    _show_music(info)
    rows = [
        (f"{name}.{field}", str(value))
        for name, fields in info.manifest.settings.items()
        for field, value in fields.items()
    ]
    console.table("made with", ("setting", "value"), rows)
    if plot is not None:
        console.say(f"wrote {plot}", quiet=quiet)


def _show_counts(info: ShardsInfo) -> None:
    """How much there is, on which side, and what is missing."""
    facts = info.to_dict()
    rows: list[tuple[object, ...]] = [
        ("documents", facts["num_documents"]), ("hours", f"{facts['hours']:,.2f}"), ("bars", facts["num_bars"]),
        ("notes", facts["num_notes"]), ("tokens", facts["num_tokens"]),
        ("tokens a note", f"{facts['tokens_per_note']:.2f}"), ("different tokens", facts["used_tokens"]),
    ]  # fmt: skip
    rows += [(f"tokens of a document, {name}", tokens) for name, tokens in info.lengths().items()]
    rows += [("bytes", info.num_bytes), ("compression", f"{info.ratio:.2f}")]
    console.table("documents", ("", "count"), rows)
    rows = [
        (name, split.num_documents, split.num_tokens, len(split.shards), sum(shard.num_bytes for shard in split.shards))
        for name, split in info.manifest.splits.items()
    ]
    console.table("splits", ("split", "documents", "tokens", "shards", "bytes"), rows)
    rows = [("kept", info.manifest.num_documents)]
    if info.recovered:
        rows.append(("  of them recovered from damage", info.recovered))
    rows += [(f"rejected: {reason}", count) for reason, count in info.manifest.rejects.items()]
    console.table("files", ("", "count"), [*rows, ("all inputs", info.manifest.num_inputs)])


def _show_music(info: ShardsInfo) -> None:
    """What plays, in which meters and tempos."""
    documents, bars = max(info.manifest.num_documents, 1), max(int(info.document_bars.sum()), 1)
    played = [(one.name, one.documents, f"{one.documents / documents:.0%}", one.cells) for one in info.instruments()]
    _show_first("instruments", ("instrument", "documents", "share", "bars"), played)
    for title, counts in (("meters", info.meters()), ("tempos", info.tempos())):
        order = sorted(counts.items(), key=lambda pair: -pair[1])
        rows = [(name, count, f"{count / bars:.1%}") for name, count in order]
        _show_first(title, (title[:-1], "bars", "share"), rows)


def _show_first(title: str, columns: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> None:
    """A table, cut where it gets long."""
    left_out = len(rows) - MAX_ROWS
    more = [(f"... and {left_out} more", *[""] * (len(columns) - 1))] if left_out > 0 else []
    console.table(title, columns, [*rows[:MAX_ROWS], *more])

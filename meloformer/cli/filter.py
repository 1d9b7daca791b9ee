"""``meloformer filter``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meloformer.cli import console, options


@console.reports_errors
def filter_command(
    sources: options.Sources,
    out: Annotated[Path, typer.Option("--out", help="Folder for the list.")] = Path("kept"),
    exclude: options.Exclude = None,
    workers: options.Workers = None,
    scheduler: options.Scheduler = None,
    config: options.Config = None,
    overrides: options.Overrides = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Judge music: a list of every file with its statistics, kept or the reason why not.

    `pack` takes the list in place of the folder.
    """
    from meloformer.cli.report import show_report
    from meloformer.settings_file import load_settings
    from meloformer.shards.pipeline import filter_pieces

    given = {"filter.exclude": exclude or None, "pack.workers": workers, "pack.scheduler": scheduler}
    settings = load_settings(config, overrides, given)
    with console.progress("filter", quiet=quiet) as bar:
        report = filter_pieces(sources, out, settings, progress=bar)
    show_report(report, out, as_json=as_json, quiet=quiet)

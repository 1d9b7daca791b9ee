"""``meloformer pack``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meloformer.cli import console, options


@console.reports_errors
def pack_command(
    sources: options.Sources,
    out: Annotated[Path, typer.Option("--out", help="Folder for the shards.")] = Path("shards"),
    exclude: options.Exclude = None,
    workers: options.Workers = None,
    scheduler: options.Scheduler = None,
    level: Annotated[int | None, typer.Option("--level", help="zstd level, 1-22.")] = None,
    vocab: options.VocabularyFile = None,
    config: options.Config = None,
    overrides: options.Overrides = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Turn music into train, val and test shards: filter, tokenise and pack in one go.

    SRC may also be one folder that `filter` or `tokenize` wrote.
    """
    from meloformer.cli.report import show_report
    from meloformer.settings_file import load_settings
    from meloformer.shards.pipeline import pack_pieces
    from meloformer.tokens.vocabulary import Vocabulary

    given = {
        "filter.exclude": exclude or None,
        "pack.workers": workers,
        "pack.scheduler": scheduler,
        "pack.level": level,
    }
    settings = load_settings(config, overrides, given)
    vocabulary = None if vocab is None else Vocabulary.load(vocab)
    with console.progress("pack", quiet=quiet) as bar:
        report = pack_pieces(sources, out, settings, vocabulary, progress=bar)
    show_report(report, out, as_json=as_json, quiet=quiet)
    if "val" not in report.splits and settings.pack.val_share > 0:
        remark = "no document fell into the validation split, so training on this has no validation loss"
        console.say(f"{remark}; a larger pack.val_share may give it some", quiet=quiet)

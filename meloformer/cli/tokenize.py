"""``meloformer tokenize``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meloformer.cli import console, options

if TYPE_CHECKING:
    from meloformer.settings import Settings
    from meloformer.tokens.vocabulary import Vocabulary


@console.reports_errors
def tokenize_command(
    sources: options.Sources,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the tokens.")] = None,
    workers: options.Workers = None,
    scheduler: options.Scheduler = None,
    vocab: options.VocabularyFile = None,
    config: options.Config = None,
    overrides: options.Overrides = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write music as HID tokens, unjudged. One file without --out: print its tokens."""
    from meloformer.cli.report import show_report
    from meloformer.errors import InputError
    from meloformer.settings_file import load_settings
    from meloformer.shards.pipeline import tokenize_pieces
    from meloformer.tokens.vocabulary import Vocabulary

    settings = load_settings(config, overrides, {"pack.workers": workers, "pack.scheduler": scheduler})
    vocabulary = None if vocab is None else Vocabulary.load(vocab)
    if out is None:
        if len(sources) != 1 or Path(sources[0]).is_dir():
            raise InputError("only the tokens of one file can be printed", "give --out tokens/ for more")
        _print_tokens(sources[0], settings, vocabulary or Vocabulary.default(), as_json=as_json, quiet=quiet)
        return
    with console.progress("tokenize", quiet=quiet) as bar:
        report = tokenize_pieces(sources, out, settings, vocabulary, progress=bar)
    show_report(report, out, as_json=as_json, quiet=quiet)


def _print_tokens(source: str, settings: Settings, vocabulary: Vocabulary, *, as_json: bool, quiet: bool) -> None:
    from meloformer.cli.convert import read_piece

    ids = read_piece(source, settings, vocabulary, quiet=quiet)
    names = [vocabulary.names[token_id] for token_id in ids]
    if as_json:
        console.json_result({"ids": ids.tolist(), "tokens": names})
    else:
        console.result(" ".join(names))

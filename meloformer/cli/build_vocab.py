"""``meloformer build-vocab``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meloformer.cli import console, options


@console.reports_errors
def build_vocab_command(
    sources: options.Sources,
    out: Annotated[Path, typer.Option("--out", help="File to write.")] = Path("vocab.json"),
    prune: Annotated[bool, typer.Option("--prune", help="Drop tokens that never occur.")] = False,
    workers: options.Workers = None,
    scheduler: options.Scheduler = None,
    config: options.Config = None,
    overrides: options.Overrides = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Count the tokens of a corpus and write the vocabulary.

    SRC may also be one folder that `filter` or `tokenize` wrote.
    """
    import numpy as np

    from meloformer.files import write_text
    from meloformer.settings_file import load_settings
    from meloformer.shards.count import count_tokens
    from meloformer.tokens.vocabulary import Vocabulary

    if out.exists():
        Vocabulary.load(out)  # anything else is not replaced
    settings = load_settings(config, overrides, {"pack.workers": workers, "pack.scheduler": scheduler})
    with console.progress("count", quiet=quiet) as bar:
        vocabulary, report = count_tokens(sources, settings, progress=bar)
    counts = np.array(vocabulary.counts)
    if prune:
        vocabulary = vocabulary.pruned(counts)
    write_text(out, vocabulary.to_json())
    used = int((counts > 0).sum())
    facts = {"out": str(out), "tokens": len(vocabulary), "used": used, "sha256": vocabulary.sha256}
    if as_json:
        console.json_result({**facts, "counted": int(counts.sum()), "inputs": report.inputs, "kept": report.kept})
        return
    rows: list[tuple[object, ...]] = [("files counted", report.kept)]
    rows += [(f"rejected: {reason}", count) for reason, count in report.reasons().items()]
    rows += [("tokens counted", int(counts.sum())), ("different tokens", used), ("in the vocabulary", len(vocabulary))]
    console.table("vocabulary", ("", "count"), rows)
    console.say(f"wrote {out} (sha256 {vocabulary.sha256[:12]}...)", quiet=quiet)

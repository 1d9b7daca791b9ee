"""``meloformer evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meloformer.cli import console, options


@console.reports_errors
def evaluate_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Of train, a checkpoint, a .safetensors, or packaged.")],
    shards: Annotated[
        Path | None,
        typer.Option("--shards", help="By default those that the run was trained on; of other weights, shards."),
    ] = None,
    pieces: Annotated[
        list[Path] | None,
        typer.Option(
            "--pieces", metavar="DIR", help="Music to measure; by default the run writes it. May be repeated."
        ),
    ] = None,
    num: Annotated[int | None, typer.Option("--num", help="Pieces that the run writes; 0: losses only.")] = None,
    bars: Annotated[int | None, typer.Option("--bars", help="Length of a piece that the run writes.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="Held-out documents: val or test.")] = None,
    seq_len: Annotated[
        int | None, typer.Option("--seq-len", help="Tokens in a row; by default as the run was trained.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE.html", help="Write a page with plots, all in one file.")
    ] = None,
    seed: options.Seed = None,
    device: options.Device = None,
    config: options.Config = None,
    overrides: options.Overrides = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure a run: losses on held-out music, and its own music against the training split of its shards."""
    from meloformer.errors import SettingsError
    from meloformer.settings_file import load_settings

    given = {
        "evaluation.num": num,
        "evaluation.split": split,
        "evaluation.seq_len": seq_len,
        "evaluation.device": device,
        "generation.bars": bars,
        "generation.seed": seed,
    }
    options.refuse_training(overrides)
    settings = load_settings(config, overrides, given)
    if html is not None and html.suffix.lower() not in (".html", ".htm"):
        raise SettingsError(f"--html {html} is no name of a page", "let it end in .html")

    from meloformer.evaluation.evaluate import evaluate_run
    from meloformer.evaluation.page import write_page
    from meloformer.evaluation.tables import tables_of
    from meloformer.files import make_folder
    from meloformer.model.weights import is_packaged
    from meloformer.training.run_folder import shards_of

    if is_packaged(run):
        console.say(
            "packaged was trained on the music that its card names: of that, only its own split is held out",
            quiet=quiet,
        )
    if html is not None:
        make_folder(html.parent)
    with console.progress("evaluate", quiet=quiet) as bar:
        report = evaluate_run(
            run, shards or shards_of(run) or settings.training.shards, settings, pieces=pieces or (), progress=bar
        )
    if html is not None:
        write_page(report, html)
    if as_json:
        console.json_result({**report.to_dict(), "html": None if html is None else str(html)})
        return
    if report.prediction is None:
        console.say(
            f"the shards have no documents in the split {report.split}: no losses; try another --split", quiet=quiet
        )
    for table in tables_of(report):
        console.table(table.title, table.columns, table.rows)
    for name, reason in report.rejected.items():
        console.say(f"passed over {name}: {reason}", quiet=quiet)
    if html is not None:
        console.say(f"wrote {html}", quiet=quiet)

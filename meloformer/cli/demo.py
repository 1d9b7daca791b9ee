"""``meloformer demo``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from meloformer.cli import console, options

CORPORA = ("corpus:bach", "corpus:haydn", "corpus:mozart", "corpus:beethoven")
"""Public-domain music that music21 brings along: chorales and string quartets."""
RECIPE = (
    "model.size=tiny",
    "training.seq_len=512",
    "training.batch_size=4",
    "training.steps=900",
    "training.eval_every=150",
    "training.eval_rows=24",
    "training.checkpoint_every=300",
    "pack.workers=2",
    "pack.val_share=0.08",
    "pack.test_share=0",
    "generation.bars=16",
    "generation.temperature=0.95",
)
"""What turns out to be worth listening to after a few minutes on two cores."""


@console.reports_errors
def demo_command(
    out: Annotated[Path, typer.Option("--out", help="Folder for everything that the demo makes.")] = Path("demo"),
    steps: Annotated[int | None, typer.Option("--steps", help="Training steps.")] = None,
    seed: options.Seed = None,
    config: options.Config = None,
    overrides: options.Overrides = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """The whole road in minutes: public-domain music in, a tiny model, new music out.

    Needs no files and no GPU. An earlier demo in the same folder is replaced.
    """
    from meloformer.settings import load_settings
    from meloformer.shards.pipeline import pack_pieces

    given = {"training.steps": steps, "training.seed": seed, "generation.seed": seed}
    settings = load_settings(config, overrides, given, recipe=RECIPE)
    console.say("1/3  reading Bach chorales and string quartets of Haydn, Mozart and Beethoven", quiet=quiet)
    with console.progress("pack", quiet=quiet) as bar:
        report = pack_pieces(list(CORPORA), out / "shards", settings, progress=lambda done, total: bar(done, total, ""))

    from meloformer.cli.generate import write_pieces
    from meloformer.cli.train import ProgressObserver, show_result
    from meloformer.generation.generate import generate
    from meloformer.model.weights import load
    from meloformer.training.loop import train

    console.say("2/3  training a tiny model", quiet=quiet)
    shutil.rmtree(out / "run", ignore_errors=True)
    with console.progress("train", quiet=quiet) as bar:
        finished = train(out / "shards", out / "run", settings, observer=ProgressObserver(bar))
    if finished.interrupted:
        raise KeyboardInterrupt(
            f"interrupted at step {finished.step}; what was learnt is kept: meloformer generate --checkpoint {out}/run"
        )
    console.say("3/3  writing two pieces of 16 bars", quiet=quiet)
    model = load(out / "run")
    chorale, quartet = "choir", "violin,viola,cello"
    pieces = []
    with console.progress("bars", quiet=quiet) as bar:
        for number, instruments in enumerate((chorale, quartet)):
            wished = settings.generation.model_copy(update={"instruments": instruments})

            def update(done: int, total: int, before: int = number) -> None:
                bar(before * total + done, 2 * total, "")

            pieces += generate(model, settings=wished, progress=update)
    records = write_pieces(pieces, model, out, ["chorale", "quartet"])
    shutil.copyfile(out / "run" / "loss.png", out / "loss.png")
    if as_json:
        validation, baseline = finished.validation, finished.baseline
        console.json_result(
            {
                "files": report.to_dict(),
                "seconds_training": round(finished.seconds, 1),
                "validation": validation.to_dict() if validation else None,
                "unigram_baseline": baseline.to_dict() if baseline else None,
                "pieces": records,
                "loss_curve": str(out / "loss.png"),
            }
        )
        return
    show_result(finished, as_json=False)
    rows = [(record["file"], record["bars"], record["notes"], record["picture"]) for record in records]
    console.table("new pieces", ("file", "bars", "notes", "piano roll"), rows)
    console.result(f"loss curve: {out / 'loss.png'}   model: {out / 'run'}")

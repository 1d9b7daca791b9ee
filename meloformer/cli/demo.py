"""``meloformer demo``."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meloformer.cli import console, options
from meloformer.cli.generate import write_pieces
from meloformer.cli.train import ProgressObserver, show_result

if TYPE_CHECKING:
    from meloformer.settings import Settings
    from meloformer.training.result import TrainResult

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
PIECES = {"chorale": "choir", "quartet": "violin,viola,cello"}
"""Name of a piece -> the instruments that play it."""
BY_PACKAGED = "-packaged"
"""Ends the names of those that the model of the package writes."""


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

    Needs no files and no GPU. Beside the pieces of the tiny model stand those of the model that the package brings
    along, which was trained for longer. An earlier demo in the same folder is replaced.
    """
    from meloformer.settings_file import load_settings
    from meloformer.shards.pipeline import pack_pieces

    given = {"training.steps": steps, "training.seed": seed, "generation.seed": seed}
    settings = load_settings(config, overrides, given, recipe=RECIPE)
    _refuse_foreign(out)
    console.say("1/3  reading Bach chorales and string quartets of Haydn, Mozart and Beethoven", quiet=quiet)
    with console.progress("pack", quiet=quiet) as bar:
        report = pack_pieces(list(CORPORA), out / "shards", settings, progress=bar)
    console.say(f"2/3  training a model of size {settings.model.size}", quiet=quiet)
    finished = _train(out, settings, quiet=quiet)
    bars = settings.generation.bars
    length = f"{bars} {'bar' if bars == 1 else 'bars'}"
    console.say(f"3/3  writing {len(PIECES)} pieces of {length} by it, and by the model of the package", quiet=quiet)
    from meloformer.model.weights import PACKAGED

    records = _write(out, [str(out / "run"), PACKAGED], settings, quiet=quiet)
    shutil.copyfile(out / "run" / "loss.png", out / "loss.png")
    if as_json:
        facts = {"files": report.to_dict(), "training": finished.to_dict(), "pieces": records}
        console.json_result({**facts, "loss_curve": str(out / "loss.png")})
        return
    show_result(finished, as_json=False)
    rows = [[record[name] for name in ("file", "model", "bars", "notes", "picture")] for record in records]
    console.table("new pieces", ("file", "model", "bars", "notes", "piano roll"), rows)
    console.result(f"loss curve: {out / 'loss.png'}   model: {out / 'run'}")


def _refuse_foreign(out: Path) -> None:
    """Only an earlier demo is replaced.

    Raises:
        OutputError: ``out`` is a file, or holds what no demo made.
    """
    from meloformer.errors import OutputError
    from meloformer.training.run_folder import RUN_PARTS

    elsewhere = "choose another --out"
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file, not a folder", elsewhere)
    names = [*PIECES, *(name + BY_PACKAGED for name in PIECES)]
    pieces = {f"{name}{suffix}" for name in names for suffix in (".mid", ".png", ".html", ".wav")}
    parts = {out: {"shards", "run", "loss.png", *pieces}, out / "run": set(RUN_PARTS)}
    for folder, known in parts.items():
        foreign = sorted({path.name for path in folder.iterdir()} - known) if folder.is_dir() else []
        if foreign:
            raise OutputError(f"{folder} holds {foreign[0]}, which no demo made, so it is not replaced", elsewhere)


def _train(out: Path, settings: Settings, *, quiet: bool) -> TrainResult:
    """Train on the demo's shards; an earlier demo's run goes."""
    from meloformer.training.loop import train

    shutil.rmtree(out / "run", ignore_errors=True)
    with console.progress("train", quiet=quiet) as bar:
        finished = train(out / "shards", out / "run", settings, observer=ProgressObserver(bar))
    if finished.interrupted:
        again = shlex.join(["meloformer", "generate", "--checkpoint", str(out / "run")])
        raise KeyboardInterrupt(f"interrupted at step {finished.step}; what was learnt is kept: {again}")
    return finished


def _write(out: Path, models: list[str], settings: Settings, *, quiet: bool) -> list[dict[str, Any]]:
    """Write one piece for each of ``PIECES`` by each model, or all for the instruments that the settings name."""
    from meloformer.generation.generate import generate
    from meloformer.model.device import choose_device
    from meloformer.model.weights import PACKAGED, load

    records: list[dict[str, Any]] = []
    chosen = settings.generation
    with console.progress("bars", quiet=quiet) as bar:
        for source in models:
            model = load(source, device=choose_device(chosen.device))
            for name, instruments in PIECES.items():

                def update(done: int, total: int, before: int = len(records)) -> None:
                    bar(before * total + done, len(models) * len(PIECES) * total)

                wished = {"instruments": chosen.instruments or instruments, "num": 1}
                pieces = generate(model, settings=chosen.model_copy(update=wished), progress=update)
                ending = BY_PACKAGED if source == PACKAGED else ""
                (record,) = write_pieces(pieces, model, out, [name + ending], settings.render)
                records.append({**record, "model": source})
    return records

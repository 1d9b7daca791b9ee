"""``meloformer generate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meloformer.cli import console, options

if TYPE_CHECKING:
    import numpy as np

    from meloformer.model.meloformer import MeloFormer


@console.reports_errors
def generate_command(
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="A run, a checkpoint or a .safetensors; else the newest run.")
    ] = None,
    bars: Annotated[int | None, typer.Option("--bars", help="Exactly this many bars.")] = None,
    num: Annotated[int | None, typer.Option("--num", help="Number of pieces.")] = None,
    instruments: Annotated[
        str | None,
        typer.Option(
            "--instruments", help='Only these names, numbers or families, each at least once: "drums,bass,#0".'
        ),
    ] = None,
    tempo: Annotated[float | None, typer.Option("--tempo", help="Quarters a minute, to the nearest of 32.")] = None,
    meter: Annotated[str | None, typer.Option("--meter", help="Such as 3/4.")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", help="0 takes the likeliest token.")] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", help="Sample among this many tokens.")] = None,
    top_p: Annotated[float | None, typer.Option("--top-p", help="Sample among this much probability.")] = None,
    seed: options.Seed = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the pieces.")] = Path("generated"),
    device: options.Device = None,
    config: options.Config = None,
    overrides: options.Overrides = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write new music: a MIDI file and a piano roll for every piece."""
    from meloformer.settings_file import load_settings

    given = {
        "generation.bars": bars,
        "generation.num": num,
        "generation.instruments": instruments,
        "generation.tempo": tempo,
        "generation.meter": meter,
        "generation.temperature": temperature,
        "generation.top_k": top_k,
        "generation.top_p": top_p,
        "generation.seed": seed,
        "generation.device": device,
    }
    settings = load_settings(config, overrides, given)
    source = checkpoint or newest_run(Path("runs"))

    from meloformer.generation.generate import generate
    from meloformer.model.device import choose_device
    from meloformer.model.weights import best_checkpoint, checkpoints_of, load

    if (best := best_checkpoint(source)) not in (None, *checkpoints_of(source)[:1]):
        console.say(f"the newest checkpoint of {source} plays; {best} has the lowest validation loss", quiet=quiet)
    model = load(source, device=choose_device(settings.generation.device))
    make_folder(out)
    with console.progress("bars", quiet=quiet) as bar:
        pieces = generate(model, settings=settings.generation, progress=bar)
    first = settings.generation.seed
    records = write_pieces(pieces, model, out, [f"seed{first}-{number}" for number in range(1, len(pieces) + 1)])
    if as_json:
        console.json_result({"checkpoint": str(source), "pieces": records})
        return
    columns = ("file", "bars", "notes", "instruments", "seconds")
    console.table("new pieces", columns, [[record[column] for column in columns] for record in records])


def write_pieces(pieces: list[np.ndarray], model: MeloFormer, out: Path, names: list[str]) -> list[dict[str, Any]]:
    """Write ``NAME.mid`` and ``NAME.png`` for every piece; what each of them is.

    Raises:
        OutputError: ``out`` cannot be written.
    """
    from meloformer.midi.bars import seconds_of
    from meloformer.midi.picture import piano_roll
    from meloformer.midi.score import ending_with_its_bars
    from meloformer.midi.write import write_midi
    from meloformer.tokens.decode import decode

    make_folder(out)
    records = []
    for ids, name in zip(pieces, names, strict=True):
        score = ending_with_its_bars(decode(ids, model.vocabulary))
        assert score.chords is not None
        path = out / f"{name}.mid"
        write_midi(score, path)
        piano_roll(score, path.with_suffix(".png"), title=name)
        seconds = seconds_of(score, score.end_ticks)
        records.append(
            {
                "file": str(path),
                "picture": str(path.with_suffix(".png")),
                "bars": len(score.chords),
                "notes": score.num_notes,
                "tokens": len(ids),
                "instruments": len(set(score.program.tolist())),
                "seconds": round(float(seconds), 1),
            }
        )
    return records


def make_folder(out: Path) -> None:
    """A folder for pieces, made before the work begins.

    Raises:
        OutputError: ``out`` cannot be one.
    """
    from meloformer.errors import OutputError

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}", "choose another --out") from None


def newest_run(runs: Path) -> Path:
    """The run whose checkpoint was written last.

    Raises:
        InputError: There is none.
    """
    from meloformer.errors import InputError

    states = sorted(runs.glob("*/checkpoints/step-*/state.json"), key=lambda path: path.stat().st_mtime)
    if not states:
        raise InputError(
            f"there is no trained model in {runs}/", "train one with `meloformer train`, or name it with --checkpoint"
        )
    return states[-1].parents[2]

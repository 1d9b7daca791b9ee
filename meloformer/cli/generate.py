"""``meloformer generate``."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meloformer.cli import console, live, options
from meloformer.files import make_folder

if TYPE_CHECKING:
    import numpy as np

    from meloformer.model.meloformer import MeloFormer
    from meloformer.settings import RenderSettings, Settings


@console.reports_errors
def generate_command(
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="A run, a checkpoint, a .safetensors, or packaged; else the newest run."),
    ] = None,
    bars: Annotated[int | None, typer.Option("--bars", help="Exactly this many bars, with those of a primer.")] = None,
    num: Annotated[int | None, typer.Option("--num", help="Number of pieces, written side by side.")] = None,
    instruments: Annotated[
        str | None,
        typer.Option(
            "--instruments",
            help="Only these, and they keep playing; names, families (bass, strings) or numbers: drums,bass,#40.",
        ),
    ] = None,
    chords: Annotated[
        str | None, typer.Option("--chords", help='One a bar, over and over: "C:maj A:min F:maj G:7".')
    ] = None,
    tempo: Annotated[float | None, typer.Option("--tempo", help="Quarters a minute, to the nearest of 32.")] = None,
    meter: Annotated[str | None, typer.Option("--meter", help='Such as 3/4, or "1:4/4 9:3/4".')] = None,
    max_polyphony: Annotated[
        int | None, typer.Option("--max-polyphony", help="Notes of one instrument at once, at most.")
    ] = None,
    pitch_range: Annotated[
        str | None, typer.Option("--pitch-range", help="Such as 36-84 or C2-C6; drums are exempt.")
    ] = None,
    density: Annotated[
        float | None, typer.Option("--density", help="Notes a bar and instrument, about; a target, not a rule.")
    ] = None,
    primer: Annotated[
        Path | None,
        typer.Option(
            "--primer", metavar="SONG", help="Music of your own, which goes on; wishes hold for the new bars only."
        ),
    ] = None,
    primer_bars: Annotated[int | None, typer.Option("--primer-bars", help="Take only so many bars of it.")] = None,
    replace: Annotated[
        str | None, typer.Option("--replace", help="Write these instruments of the primer anew, and keep all else.")
    ] = None,
    add: Annotated[str | None, typer.Option("--add", help="Give the primer these instruments besides.")] = None,
    vary: Annotated[
        str | None,
        typer.Option(
            "--vary",
            metavar="9-16",
            help="Write only in these bars of the primer: all of them, chords too, or what --replace and --add name.",
        ),
    ] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", help="0 takes the likeliest token.")] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", help="Sample among this many tokens.")] = None,
    top_p: Annotated[float | None, typer.Option("--top-p", help="Sample among this much probability.")] = None,
    min_p: Annotated[
        float | None, typer.Option("--min-p", help="Sample among tokens of this share of the likeliest's probability.")
    ] = None,
    seed: options.Seed = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the pieces.")] = Path("generated"),
    html: options.Html = None,
    audio: options.Audio = None,
    soundfont: options.SoundFont = None,
    port: options.Port = None,
    list_ports: options.ListPorts = False,  # noqa: ARG001 (its callback does it)
    device: options.Device = None,
    config: options.Config = None,
    overrides: options.Overrides = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write new music: a MIDI file and a piano roll for every piece; with --port play it meanwhile.

    Where nothing has been trained in runs/, the model that the package brings along writes (--checkpoint packaged).
    """
    from meloformer.render.render import check_wishes
    from meloformer.settings_file import load_settings

    wishes = {
        "bars": bars, "num": num, "instruments": instruments, "chords": chords, "tempo": tempo, "meter": meter,
        "max_polyphony": max_polyphony, "pitch_range": pitch_range, "density": density, "primer": primer,
        "primer_bars": primer_bars, "replace": replace, "add": add, "vary": vary, "temperature": temperature,
        "top_k": top_k, "top_p": top_p, "min_p": min_p, "seed": seed, "device": device,
    }  # fmt: skip
    rendering = {"html": html, "audio": audio, "soundfont": soundfont, "port": port}
    given = {f"generation.{name}": value for name, value in wishes.items()}
    given |= {f"render.{name}": value for name, value in rendering.items()}
    options.refuse_training(overrides)
    settings = load_settings(config, overrides, given)
    check_wishes(settings.render)

    from meloformer.generation.generate import generate
    from meloformer.generation.plan import assignment
    from meloformer.model.device import choose_device
    from meloformer.model.weights import PACKAGED, best_checkpoint, checkpoints_of, load

    source = checkpoint or newest_run(Path("runs"))
    if source is None:
        source = Path(PACKAGED)
        console.say("there is no checkpoint in runs/: the model of the package writes", quiet=quiet)
    if (best := best_checkpoint(source)) not in (None, *checkpoints_of(source)[:1]):
        console.say(f"the newest checkpoint of {source} plays; {best} has the lowest validation loss", quiet=quiet)
    model = load(source, device=choose_device(settings.generation.device))
    assignment(settings.generation, model.vocabulary)  # a wish that cannot be fulfilled leaves no folder behind
    make_folder(out)
    if settings.render.port is not None:
        _play(model, settings, source, out, as_json=as_json, quiet=quiet)
        return
    with console.progress("bars", quiet=quiet) as bar:
        pieces = generate(model, settings=settings.generation, progress=bar)
    names = _free_names(out, settings.generation.seed, len(pieces))
    records = write_pieces(pieces, model, out, names, settings.render)
    for record in records:
        _remark(record, settings, quiet=quiet)
    _show(source, records, as_json=as_json)


def _remark(record: dict[str, Any], settings: Settings, *, quiet: bool) -> None:
    """Say what nobody would want of a piece."""
    bars, empty = record["bars"], record["empty_bars"]
    if empty > bars / 2:
        what = "there is not a single note" if empty == bars else f"{empty} of its {bars} bars are empty"
        or_name = "" if settings.generation.instruments else ", or name --instruments"
        console.say(f"{record['file']}: {what}; try another --seed{or_name}", quiet=quiet)


def _show(source: Path, records: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        console.json_result({"checkpoint": str(source), "pieces": records})
        return
    columns = ("file", "bars", "notes", "instruments", "seconds")
    rows = [[record[column] for column in columns] for record in records]
    console.table(f"new pieces by {source}", (*columns[:-1], "seconds of music"), rows)


def _play(model: MeloFormer, settings: Settings, source: Path, out: Path, *, as_json: bool, quiet: bool) -> None:
    """Write one piece, play it meanwhile, and keep what was played.

    Raises:
        KeyboardInterrupt: It was stopped; says what is kept.
    """
    ids, facts, was_stopped = live.play_while_generating(model, settings, quiet=quiet)
    if ids is None:
        raise KeyboardInterrupt("interrupted before the first bar, so nothing is kept")
    (record,) = write_pieces([ids], model, out, _free_names(out, settings.generation.seed, 1), settings.render)
    _remark(record, settings, quiet=quiet)
    if was_stopped:
        raise KeyboardInterrupt(f"stopped in bar {facts['played_bars']}; what was played is in {record['file']}")
    live.tell(facts, quiet=quiet)
    _show(source, [{**record, **facts}], as_json=as_json)


def write_pieces(
    pieces: list[np.ndarray], model: MeloFormer, out: Path, names: list[str], settings: RenderSettings
) -> list[dict[str, Any]]:
    """Write ``NAME.mid`` and what stands beside it for every piece; what each of them is.

    Raises:
        OutputError: ``out`` cannot be written.
    """
    from meloformer.midi.bars import empty_bars, seconds_of
    from meloformer.midi.score import ending_with_its_bars
    from meloformer.midi.write import write_midi
    from meloformer.render.render import render
    from meloformer.tokens.decode import decode

    make_folder(out)
    records: list[dict[str, Any]] = []
    for ids, name in zip(pieces, names, strict=True):
        path = out / f"{name}.mid"
        try:
            score = ending_with_its_bars(decode(ids, model.vocabulary))
            write_midi(score, path)
            made = render(score, out / name, settings, title=name)
        except KeyboardInterrupt:
            told = f"interrupted; {path} may lack what stands beside it, {len(records)} of {len(pieces)} are whole"
            raise KeyboardInterrupt(told) from None
        assert score.chords is not None
        seconds = seconds_of(score, score.end_ticks)
        records.append(
            {
                "file": str(path),
                **made,
                "bars": len(score.chords),
                "empty_bars": empty_bars(score),
                "notes": score.num_notes,
                "tokens": len(ids),
                "instruments": len(set(score.program.tolist())),
                "seconds": round(float(seconds), 1),
            }
        )
    return records


def _free_names(out: Path, seed: int, num: int) -> list[str]:
    """``seed0-1`` and so on, or ``seed0-1-take2`` and so on where any of the names is taken: nothing is replaced."""
    taken = {path.stem for path in out.iterdir()}
    takes = (
        [f"seed{seed}-{number}{'' if take == 1 else f'-take{take}'}" for number in range(1, num + 1)]
        for take in count(1)
    )
    return next(names for names in takes if taken.isdisjoint(names))


def newest_run(runs: Path) -> Path | None:
    """The run whose checkpoint was written last, where there is any."""
    states = sorted(runs.glob("*/checkpoints/step-*/state.json"), key=lambda path: path.stat().st_mtime)
    return states[-1].parents[2] if states else None

"""``meloformer bench``."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meloformer.cli import console, options

if TYPE_CHECKING:
    from meloformer.bench.compare import Contestant
    from meloformer.bench.tables import Wishes
    from meloformer.settings import Settings

SIZES_TO_FIT = ["small", "base", "large", "xlarge"]
LENGTHS_OF_GRID = [4096, 16384]


@console.reports_errors
def bench_command(
    gpu_mem: Annotated[
        float | None,
        typer.Option("--gpu-mem", metavar="GIB", help="Memory of the GPU; by default of the one here, or 32."),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="A,B", help="tiny, small, base, large, xlarge; the first is measured."),
    ] = None,
    seq_len: Annotated[
        str | None,
        typer.Option(
            "--seq-len",
            metavar="N,N",
            help="Tokens in a row; the first is measured, the longest recommended where it fits.",
        ),
    ] = None,
    batch_size: Annotated[
        str | None,
        typer.Option(
            "--batch-size",
            metavar="N,N",
            help="Rows in a step; the first is measured, the most recommended where they fit.",
        ),
    ] = None,
    checkpointing: Annotated[
        str | None, typer.Option("--checkpointing", metavar="A,B", help="none, ffn, attention, full.")
    ] = None,
    precision: Annotated[str | None, typer.Option("--precision", metavar="A,B", help="bf16, fp32, fp16.")] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option("--compare", metavar="SETTING=A,B", help="Only this: a setting's values side by side, in turns."),
    ] = None,
    predict: Annotated[bool, typer.Option("--predict", help="Measure nothing.")] = False,
    shards: Annotated[
        Path | None, typer.Option("--shards", help="Measure on, and reckon with, the music that pack wrote.")
    ] = None,
    songs: Annotated[int | None, typer.Option("--songs", help="How many to train on, without shards.")] = None,
    epochs: Annotated[float | None, typer.Option("--epochs", help="Passes over them.")] = None,
    gpus: Annotated[str | None, typer.Option("--gpus", metavar="N,N", help="Numbers of GPUs to train on.")] = None,
    tokens_per_second: Annotated[
        float | None, typer.Option("--tokens-per-second", help="Of one GPU, in place of what is measured.")
    ] = None,
    efficiency: Annotated[
        float | None, typer.Option("--efficiency", help="Of several GPUs: share of so many times one.")
    ] = None,
    price: Annotated[float | None, typer.Option("--price", help="Of a GPU for an hour.")] = None,
    repeats: Annotated[int | None, typer.Option("--repeats", help="Measured steps.")] = None,
    device: options.Device = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE.toml", help="Write the settings recommended for the first size."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw memory and throughput over length.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables in Markdown.")] = False,
    config: options.Config = None,
    overrides: options.Overrides = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """What fits into a GPU, how fast a step is here, and how long training takes.

    Memory is predicted with no GPU at hand, and measured too where there is one. Ctrl-C prints what is known so far.

    meloformer bench --gpu-mem 32

    meloformer bench --gpu-mem 24 --size base --out base.toml

    meloformer bench --predict --size small,base --seq-len 4096,65536

    meloformer bench --compare attention_dtype=bf16,fp32 --precision bf16

    meloformer bench --tokens-per-second 40000 --gpus 1,8 --price 2.5
    """
    given: dict[str, object] = {
        "bench.gpu_mem": gpu_mem, "bench.repeats": repeats, "bench.device": device, "bench.songs": songs,
        "bench.epochs": epochs, "bench.tokens_per_second": tokens_per_second, "bench.scaling_efficiency": efficiency,
        "bench.price_per_gpu_hour": price, "bench.gpus": _numbers(gpus, "--gpus"),
    }  # fmt: skip
    lists: dict[str, list[Any] | None] = {
        "model.size": _texts(size, "--size"),
        "model.checkpointing": _texts(checkpointing, "--checkpointing"),
        "training.precision": _texts(precision, "--precision"),
        "bench.seq_len": _numbers(seq_len, "--seq-len"),
        "bench.batch_size": _numbers(batch_size, "--batch-size"),
    }  # fmt: skip
    _check_name(plot, ".png", "--plot")
    _check_name(out, ".toml", "--out")
    wishes, contests = _wishes(config, overrides or [], given, lists, compare or [], shards)

    from meloformer.cli.bench_session import Session

    with Session(wishes, as_json=as_json, markdown=markdown, quiet=quiet) as session:
        if out is not None:
            session.write_toml(out)
        if contests:
            for name, contestants in contests:
                session.compare(name, contestants)
        else:
            session.tell_all(predict=predict, plot=plot)


def _wishes(
    config: Path | None,
    overrides: list[str],
    given: dict[str, object],
    lists: dict[str, list[Any] | None],
    compared: list[str],
    shards: Path | None,
) -> tuple[Wishes, list[tuple[str, list[Contestant]]]]:
    """Every combination of what was given as a list, validated; and what is to be compared."""
    from meloformer.settings_file import load_settings

    def settings_of(*more: str, **chosen: Any) -> Settings:
        return load_settings(config, [*overrides, *more], {**given, **chosen})

    first = {name: values[0] for name, values in lists.items() if values}
    settings = settings_of(**first)
    is_asked = any(lists.values())
    lengths = lists["bench.seq_len"] or LENGTHS_OF_GRID
    choices = {name: values or [None] for name, values in {**lists, "bench.seq_len": lengths}.items()}
    grid = [settings_of(**dict(zip(choices, each, strict=True))) for each in product(*choices.values())]
    targets = {f"bench.target_{name}": max(lists[f"bench.{name}"] or [0]) or None for name in ("seq_len", "batch_size")}
    sizes = [settings_of(**{**first, **targets, "model.size": size}) for size in lists["model.size"] or SIZES_TO_FIT]

    from meloformer.bench.compare import Contestant, split_comparison

    contests: list[tuple[str, list[Contestant]]] = []
    for text in compared:
        name, values = split_comparison(text)
        without = {option: value for option, value in first.items() if option != name}
        contests.append((name, [Contestant(v, settings_of(f"{name}={v}", **without)) for v in values]))

    from meloformer.bench.tables import Wishes, gpu_memory
    from meloformer.model.device import choose_device

    device = choose_device(settings.bench.device)
    return Wishes(settings, grid if is_asked else None, sizes, shards, gpu_memory(settings), device), contests


def _texts(text: str | None, option: str) -> list[str] | None:
    """``a,b`` -> its parts."""
    if text is None:
        return None

    from meloformer.errors import SettingsError

    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise SettingsError(f"{option} {text!r} has an empty place", f"write {option} A,B")
    return parts


def _numbers(text: str | None, option: str) -> list[int] | None:
    """``1,8`` -> whole numbers."""
    parts = _texts(text, option)
    if parts is None:
        return None

    from meloformer.errors import SettingsError

    try:
        return [int(part) for part in parts]
    except ValueError:
        raise SettingsError(f"{option} {text!r} is no list of whole numbers", f"write {option} 1,8") from None


def _check_name(path: Path | None, ending: str, option: str) -> None:
    from meloformer.errors import SettingsError

    if path is not None and path.suffix.lower() != ending:
        raise SettingsError(f"{option} {path} does not end in {ending}", f"write {option} {path.stem}{ending}")

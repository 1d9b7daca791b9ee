"""``meloformer train``."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meloformer.cli import console, options

if TYPE_CHECKING:
    from meloformer.model.meloformer import MeloFormer
    from meloformer.settings import Settings
    from meloformer.training.distributed import Ranks
    from meloformer.training.loop import Sampler
    from meloformer.training.loss import Evaluation
    from meloformer.training.result import TrainResult


class ProgressObserver:
    """Shows a run as one line: loss, speed, share of the time that waits for data, validation."""

    def __init__(self, update: console.Progress) -> None:
        self._update = update
        self._total = 0
        self._validation = ""

    def on_start(self, total_steps: int, first_step: int) -> None:
        """Show the bar where the run begins."""
        self._total = total_steps
        self._update(first_step, total_steps, "")

    def on_step(self, step: int, metrics: dict[str, float]) -> None:
        """Show the newest loss."""
        remark = (  # with a bar of ten thousand steps it fits into 80 columns
            f"loss {metrics['loss']:.2f}{self._validation} note {metrics['nats_per_note']:.2f} "
            f"{_short(metrics['tokens_per_second'])} tok/s wait {metrics['data_wait']:.0%}"
        )
        self._update(step, self._total, remark)

    def on_evaluation(self, step: int, validation: Evaluation) -> None:  # noqa: ARG002
        """Keep the newest validation loss."""
        self._validation = f" val {validation.per_token:.2f}"

    def on_damage(self, message: str) -> None:
        """Say so."""
        console.say(f"warning: left out: {message}")


@console.reports_errors
def train_command(
    shards: Annotated[
        Path | None, typer.Argument(metavar="SHARDS", help="Folder that pack wrote; by default shards.")
    ] = None,
    size: options.Size = None,
    seq_len: options.SeqLen = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Optimiser steps; wins over --epochs.")] = None,
    epochs: Annotated[
        float | None, typer.Option("--epochs", help="Passes over the training split; by default 10.")
    ] = None,
    batch_size: options.BatchSize = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the run; by default runs/SIZE-NUMBER.")] = None,
    init: Annotated[
        Path | None,
        typer.Option("--init", metavar="RUN", help="Start from its weights, or packaged: train on, on other music."),
    ] = None,
    max_hours: Annotated[
        float | None, typer.Option("--max-hours", help="End after so long, with a checkpoint.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", help="fp32, bf16 or fp16; by default bf16 on CUDA.")
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the feed-forward networks and norms, on CUDA.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint of --out.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what the run would do, and stop.")] = False,
    device: options.Device = None,
    seed: options.Seed = None,
    config: options.Config = None,
    overrides: options.Overrides = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a model on shards. Ctrl-C saves a checkpoint first and prints how to go on.

    On several GPUs: torchrun --nproc-per-node 8 -m meloformer train ...; see docs/training.md.
    """
    from meloformer.errors import InputError
    from meloformer.settings_file import load_settings

    if resume and out is None:
        raise InputError("--resume needs the run to go on with", "name it with --out runs/NAME")
    if resume and config is None and out is not None and (out / "settings.toml").is_file():
        config = out / "settings.toml"
    given = {
        "model.size": size,
        "training.shards": None if shards is None else str(shards),
        "training.seq_len": seq_len,
        "training.steps": steps,
        "training.epochs": epochs,
        "training.batch_size": batch_size,
        "training.device": device,
        "training.seed": seed,
        "training.init": None if init is None else str(init),
        "training.max_hours": max_hours,
        "training.precision": precision,
        "training.compile": compiled or None,
    }
    with _joined_ranks() as ranks:
        quiet = quiet or not ranks.is_first
        settings = load_settings(config, overrides, given)
        if settings.training.init is not None and not resume:
            asked = size is not None or any(text.lstrip().startswith("model.") for text in overrides or ())
            settings = _with_model_of(settings, settings.training.init, quiet=quiet, asked=asked)
        from meloformer.training.plan import ignored_settings
        from meloformer.training.run_folder import refuse_existing, refuse_missing

        without_effect = ignored_settings(settings.training, ranks.device(settings.training.device))
        without_effect += _foreign(overrides or [])
        if init is not None and resume:
            without_effect.append("--init has no effect with --resume: the run goes on from its own weights")
        for sentence in without_effect:
            console.say(f"warning: {sentence}", quiet=quiet)
        if dry_run:
            if out is not None and ranks.is_first:
                (refuse_missing if resume else refuse_existing)(out)
            _show_plan(settings, ranks, as_json=as_json)
            return
        (run, *_) = ranks.gathered(out or _next_run(settings.model.size))
        is_interrupted = _train(run, settings, ranks, resume=resume, as_json=as_json, quiet=quiet)
    if is_interrupted:  # and the first rank has told it
        raise typer.Exit(console.INTERRUPTED)


@contextmanager
def _joined_ranks() -> Iterator[Ranks]:
    """The processes that torchrun started; all but one of them end in silence."""
    from meloformer.training.distributed import AnotherRankTellsError, joined_ranks

    try:
        with joined_ranks() as ranks:
            if not ranks.is_first:
                warnings.simplefilter("ignore")
            yield ranks
    except AnotherRankTellsError:
        raise typer.Exit(1) from None


def _train(run: Path, settings: Settings, ranks: Ranks, *, resume: bool, as_json: bool, quiet: bool) -> bool:
    """Train, and tell how it ended; whether it was interrupted, on all ranks but the first, which raises."""
    from meloformer.errors import RankError
    from meloformer.training.distributed import command_to_go_on
    from meloformer.training.loop import train
    from meloformer.training.run_folder import SETTINGS_FILE

    shards = settings.training.shards
    again = command_to_go_on(shards, run, ranks)
    try:
        with console.progress("train", quiet=quiet) as bar:
            finished = train(
                shards,
                run,
                settings,
                resume=resume,
                observer=ProgressObserver(bar),
                sampler=_sampler(settings),
                ranks=ranks,
            )
    except RankError as error:
        raise RankError(error.message, f"{error.hint + '; ' if error.hint else ''}go on with: {again}") from None
    except KeyboardInterrupt as stop:
        if not (run / SETTINGS_FILE).is_file():
            raise
        raise KeyboardInterrupt(f"interrupted at once, without a checkpoint; go on with: {again}") from stop
    if not ranks.is_first:
        return finished.interrupted
    if finished.interrupted:
        raise KeyboardInterrupt(
            f"interrupted at step {finished.step:,} of {finished.total_steps:,}, saved; go on with: {again}"
        )
    show_result(finished, as_json=as_json)
    if finished.skipped:
        console.say(f"{finished.skipped} steps were skipped: their loss or gradient was not finite", quiet=quiet)
    if finished.damaged:
        console.say(f"{finished.damaged} documents were left out: they are damaged", quiet=quiet)
    if finished.step < finished.total_steps:
        console.say(
            f"ended after {settings.training.max_hours:g} hours, at step {finished.step:,} of "
            f"{finished.total_steps:,}; go on with: {again}",
            quiet=quiet,
        )
    if finished.best is not None and finished.best.name != f"step-{finished.step:06d}":
        console.say(f"the lowest validation loss is that of {finished.best}", quiet=quiet)
    console.say(f"wrote {run}; try: meloformer generate --checkpoint {run}", quiet=quiet)
    return False


def _foreign(overrides: list[str]) -> list[str]:
    """A sentence for every setting of a section that training does not read."""
    names = [text.partition("=")[0].strip() for text in overrides]
    return [
        f"{name} has no effect on training"
        for name in names
        if name.partition(".")[0] not in ("model", "training", "generation")
    ]


def _sampler(settings: Settings) -> Sampler:
    """Writes short pieces; the same seed each time, so that they can be compared."""

    def sample(model: MeloFormer, path: Path) -> None:
        from meloformer.cli.generate import write_pieces
        from meloformer.generation.generate import generate
        from meloformer.settings import RenderSettings

        was_training = model.training
        chosen = settings.generation.model_copy(update={"num": 1, "bars": settings.training.sample_bars})
        pieces = generate(model.eval(), settings=chosen)
        model.train(was_training)
        write_pieces(pieces, model, path.parent, [path.stem], RenderSettings())

    return sample


def _with_model_of(settings: Settings, source: Path, *, quiet: bool, asked: bool) -> Settings:
    """The settings with the model that the weights at ``source`` have; how it is computed stays as it was chosen.

    Says so where another model was asked for, by the command line or by a file of settings.
    """
    from meloformer.model.weights import load
    from meloformer.settings import ModelSettings
    from meloformer.training.state import COMPUTED_BY

    base = load(source).settings
    chosen = {name: getattr(settings.model, name) for name in COMPUTED_BY}
    wanted, is_default = settings.model, settings.model == ModelSettings().model_copy(update=chosen)
    if wanted != base.model_copy(update=chosen) and (asked or not is_default):
        console.say(f"warning: the model is that of {source}; --size and model.* beside it have no effect", quiet=quiet)
    return settings.model_copy(update={"model": base.model_copy(update=chosen)})


def show_result(finished: TrainResult, *, as_json: bool) -> None:
    """Print losses beside their baseline."""
    validation, baseline = finished.validation, finished.baseline
    if as_json:
        console.json_result(finished.to_dict())
        return
    if validation is None or baseline is None:
        said = "no step was left to take" if math.isnan(finished.loss) else f"loss {finished.loss:.3f} nats a token"
        console.result(f"{said}; the shards have no validation documents")
        return
    ours, theirs = validation.by_type, baseline.by_type
    rows = [
        ("a note, all its tokens", f"{validation.per_note:.3f}", f"{baseline.per_note:.3f}"),
        ("a token", f"{validation.per_token:.3f}", f"{baseline.per_token:.3f}"),
        *((f"  {name}", f"{ours[name]:.3f}", f"{theirs[name]:.3f}") for name in ours),
    ]
    console.table("validation loss in nats", ("", "model", "unigram baseline"), rows)


def _show_plan(settings: Settings, ranks: Ranks, *, as_json: bool) -> None:
    from meloformer.training.plan import describe, make_plan

    facts = describe(make_plan(settings.training.shards, settings, ranks), settings)
    if not ranks.is_first:
        return
    facts["predicted_memory_mib"] = _predicted_mebibytes(settings, ranks)
    if as_json:
        console.json_result(facts)
        return
    rows: list[tuple[str, object]] = []
    for name, value in facts.items():
        if isinstance(value, dict):
            rows += [(f"{name.replace('_', ' ')}: {part}", count) for part, count in value.items()]
        else:
            rows.append((name.replace("_", " "), value))
    console.table("what this run would do", ("", ""), rows)


def _predicted_mebibytes(settings: Settings, ranks: Ranks) -> dict[str, int] | str:
    """What the tensors of a step take at most, by kind; a word where that cannot be told."""
    from meloformer.bench.prediction import predict_memory
    from meloformer.model.flex import FlexPath
    from meloformer.training.step import default_precision

    if not FlexPath.fits(settings.model):
        return "unknown: its heads are too narrow"
    chosen = settings.training
    precision = chosen.precision or default_precision(ranks.device(chosen.device))
    as_chosen = settings.model_copy(update={"training": chosen.model_copy(update={"precision": precision})})
    predicted = predict_memory(as_chosen, seq_len=chosen.seq_len, batch_size=chosen.batch_size)
    return {name: round(size / 2**20) for name, size in {**predicted.to_dict(), "total": predicted.total}.items()}


def _short(count: float) -> str:
    """Such as 950, 12.3k or 1.2M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.1f}{letter}"
    return f"{count:.0f}"


def _next_run(size: str) -> Path:
    """The first free ``runs/SIZE-NUMBER``."""
    number = 1
    while (run := Path("runs") / f"{size}-{number:03d}").exists():
        number += 1
    return run

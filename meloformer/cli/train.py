"""``meloformer train``."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meloformer.cli import console, options

if TYPE_CHECKING:
    from meloformer.settings import Settings
    from meloformer.training.loop import TrainResult
    from meloformer.training.loss import Evaluation


class ProgressObserver:
    """Shows a run as one line: loss, validation, tokens/s."""

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
        remark = f"loss {metrics['loss']:.2f}, {metrics['tokens_per_second']:,.0f} tokens/s{self._validation}"
        self._update(step, self._total, remark)

    def on_evaluation(self, step: int, validation: Evaluation) -> None:  # noqa: ARG002
        """Keep the newest validation loss."""
        self._validation = f", validation {validation.per_token:.2f}"


@console.reports_errors
def train_command(
    shards: Annotated[Path, typer.Argument(metavar="SHARDS", help="Folder that pack wrote.")] = Path("shards"),
    size: options.Size = None,
    seq_len: options.SeqLen = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Optimiser steps; wins over --epochs.")] = None,
    epochs: Annotated[float | None, typer.Option("--epochs", help="Passes over the training split.")] = None,
    batch_size: options.BatchSize = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the run; by default runs/SIZE-NUMBER.")] = None,
    init: Annotated[
        Path | None, typer.Option("--init", metavar="RUN", help="Start from its weights: train on, on other music.")
    ] = None,
    max_hours: Annotated[
        float | None, typer.Option("--max-hours", help="End after so long, with a checkpoint.")
    ] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="fp32, bf16 or fp16.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint of --out.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what the run would do, and stop.")] = False,
    device: options.Device = None,
    seed: options.Seed = None,
    config: options.Config = None,
    overrides: options.Overrides = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a model on shards. Ctrl-C saves a checkpoint first and prints how to go on."""
    from meloformer.errors import InputError
    from meloformer.settings_file import load_settings

    if resume and out is None:
        raise InputError("--resume needs the run to go on with", "name it with --out runs/NAME")
    if resume and config is None and out is not None and (out / "settings.toml").is_file():
        config = out / "settings.toml"
    given = {
        "model.size": size,
        "training.seq_len": seq_len,
        "training.steps": steps,
        "training.epochs": epochs,
        "training.batch_size": batch_size,
        "training.device": device,
        "training.seed": seed,
        "training.init": None if init is None else str(init),
        "training.max_hours": max_hours,
        "training.precision": precision,
    }
    settings = load_settings(config, overrides, given)
    if settings.training.init is not None and not resume:
        settings = _with_model_of(settings, settings.training.init, quiet=quiet)
    from meloformer.training.plan import ignored_settings

    for sentence in ignored_settings(settings.training):
        console.say(f"warning: {sentence}", quiet=quiet)
    if dry_run:
        _show_plan(shards, settings, as_json=as_json)
        return
    run = out or _next_run(settings.model.size)

    from meloformer.training.loop import train

    with console.progress("train", quiet=quiet) as bar:
        finished = train(shards, run, settings, resume=resume, observer=ProgressObserver(bar))
    if finished.interrupted:
        raise KeyboardInterrupt(
            f"interrupted at step {finished.step:,} of {finished.total_steps:,}, saved; go on with: "
            + shlex.join(["meloformer", "train", str(shards), "--out", str(run), "--resume"])
        )
    show_result(finished, as_json=as_json)
    if finished.skipped:
        console.say(f"{finished.skipped} steps were skipped: their loss or gradient was not finite", quiet=quiet)
    if finished.step < finished.total_steps:
        again = shlex.join(["meloformer", "train", str(shards), "--out", str(run), "--resume"])
        console.say(
            f"ended after {settings.training.max_hours:g} hours, at step {finished.step:,} of "
            f"{finished.total_steps:,}; go on with: {again}",
            quiet=quiet,
        )
    console.say(f"wrote {run}; try: meloformer generate --checkpoint {run}", quiet=quiet)


def _with_model_of(settings: Settings, source: Path, *, quiet: bool) -> Settings:
    """The settings with the model that the weights at ``source`` have; how it is computed stays as it was chosen."""
    from meloformer.model.weights import load
    from meloformer.training.state import COMPUTED_BY

    base = load(source).settings
    chosen = {name: getattr(settings.model, name) for name in COMPUTED_BY}
    if settings.model.model_fields_set - COMPUTED_BY and settings.model != base.model_copy(update=chosen):
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
    rows = [
        ("model", f"{validation.per_token:.3f}", f"{validation.per_note:.3f}"),
        ("unigram baseline", f"{baseline.per_token:.3f}", f"{baseline.per_note:.3f}"),
    ]
    console.table("validation loss in nats", ("", "a token", "a note"), rows)


def _show_plan(shards: Path, settings: Settings, *, as_json: bool) -> None:
    from meloformer.training.plan import describe, make_plan

    facts = describe(make_plan(shards, settings), settings)
    if as_json:
        console.json_result(facts)
        return
    rows: list[tuple[str, object]] = []
    for name, value in facts.items():
        if isinstance(value, dict):
            rows += [(f"{name}: {part}", count) for part, count in value.items()]
        else:
            rows.append((name.replace("_", " "), value))
    console.table("what this run would do", ("", ""), rows)


def _next_run(size: str) -> Path:
    """The first free ``runs/SIZE-NUMBER``."""
    number = 1
    while (run := Path("runs") / f"{size}-{number:03d}").exists():
        number += 1
    return run

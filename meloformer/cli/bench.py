"""``meloformer bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meloformer.cli import console, options

MEBIBYTE = 2**20


@console.reports_errors
def bench_command(
    shards: Annotated[
        Path | None, typer.Option("--shards", help="Measure on the music that pack wrote; by default on made-up music.")
    ] = None,
    size: options.Size = None,
    seq_len: options.SeqLen = None,
    batch_size: options.BatchSize = None,
    repeats: Annotated[int | None, typer.Option("--repeats", help="Measured steps.")] = None,
    device: options.Device = None,
    config: options.Config = None,
    overrides: options.Overrides = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure speed and memory of a training step on this machine."""
    from meloformer.settings_file import load_settings

    given = {
        "model.size": size,
        "bench.seq_len": seq_len,
        "bench.batch_size": batch_size,
        "bench.repeats": repeats,
        "bench.device": device,
    }
    settings = load_settings(config, overrides, given)
    console.say(f"measuring {settings.bench.warmup + settings.bench.repeats} steps ...", quiet=quiet)

    from meloformer.bench.throughput import measure_step

    measured = measure_step(settings, shards)
    shape = {"size": settings.model.size, "seq_len": settings.bench.seq_len, "batch_size": settings.bench.batch_size}
    if as_json:
        console.json_result({**shape, **measured.to_dict()})
        return
    spread = f"{measured.step_seconds_min:.3f}-{measured.step_seconds_max:.3f}"
    rows = [
        ("device", measured.device),
        ("parameters", measured.parameters),
        ("tokens a step", measured.tokens),
        ("first step", f"{measured.first_step_seconds:.3f} s"),
        ("step, median", f"{measured.step_seconds:.3f} s ({spread})"),
        ("step, CPU time", f"{measured.cpu_seconds:.3f} s"),
        ("throughput", f"{measured.tokens_per_second:,.0f} tokens/s"),
        ("weights", _mib(measured.weights_bytes)),
        ("gradients", _mib(measured.gradients_bytes)),
        ("optimiser", _mib(measured.optimizer_bytes)),
        ("activations and workspace", _mib(measured.activations_bytes)),
        ("peak of a step, all included", _mib(measured.peak_bytes)),
    ]
    title = f"training step: {shape['size']}, {shape['seq_len']:,} tokens x {shape['batch_size']}"
    console.table(title, ("", ""), rows)


def _mib(count: int) -> str:
    return f"{count / MEBIBYTE:,.0f} MiB"

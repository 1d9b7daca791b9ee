"""The tables of time: a step here, training, and settings side by side."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from meloformer.bench.compare import Contestant, compare
from meloformer.bench.cost import HOPED_FOR, HOPED_GPUS, Corpus, TrainingTime, speed_of, training_time
from meloformer.bench.fits import MIB
from meloformer.bench.scaling import measure_together, several_devices
from meloformer.bench.tables import Progress, Table, Tables, Wishes, gib, hours, mib, step_name, with_bench
from meloformer.bench.throughput import StepMeasurement, measure_step
from meloformer.errors import MeloFormerError, OutOfMemoryError

LENGTHS_ON_CPU = (512, 1024, 2048, 4096)
LENGTHS_ON_CUDA = (1024, 4096, 16384, 65536)


def throughput_tables(wishes: Wishes, progress: Progress) -> Tables:
    """One step, measured here."""
    settings = wishes.settings
    title = f"a training step here: {step_name(settings)}"
    table = Table("throughput", title, ["", ""])
    progress(0, settings.bench.warmup + settings.bench.repeats, "measuring a step")
    yield table
    try:
        measured = measure_step(settings, wishes.shards, lambda done, total: progress(done, total, "measuring a step"))
    except OutOfMemoryError as error:
        table.add(["problem", "out of memory"], {"problem": str(error)})
        yield table
        return
    record = {"size": settings.model.size, "seq_len": settings.bench.seq_len, "batch_size": settings.bench.batch_size}
    table.rows = throughput_rows(measured)
    table.records = [{**record, **measured.to_dict()}]
    table.notes = [
        "Published of the first version: 83.5, 37.2 and 19.5 s for its first three epochs, compilation in the first.",
        f"Utilisation is of {measured.peak_speed.flops / 1e12:.3g} TFLOP/s ({measured.peak_speed.source}).",
    ]
    table.found = measured
    yield table


def throughput_rows(measured: StepMeasurement) -> list[Sequence[str]]:
    """Of the table."""
    spread = f"{measured.step_seconds_min:.3f}-{measured.step_seconds_max:.3f}"
    names = {"visible": "visible pairs", "executed": "executed pairs", "dense": "dense convention, all pairs"}
    return [
        ("device", f"{measured.device}, {measured.precision}"),
        ("parameters", f"{measured.parameters:,}"),
        ("tokens a step", f"{measured.tokens:,}"),
        ("first step, more than the median: set-up, compilation", f"{measured.setup_seconds:.3f} s"),
        ("step, median (spread)", f"{measured.step_seconds:.3f} s ({spread})"),
        ("step, CPU time", f"{measured.cpu_seconds:.3f} s"),
        ("throughput", f"{measured.tokens_per_second:,.0f} tokens/s"),
        *((f"FLOP utilisation, {names[name]}", f"{share:.1%}") for name, share in measured.utilisation().items()),
        ("measured memory: weights", mib(measured.weights_bytes)),
        ("  gradients", mib(measured.gradients_bytes)),
        ("  optimiser", mib(measured.optimizer_bytes)),
        ("  activations, logits and workspace", mib(measured.activations_bytes)),
        ("  peak of a step, all included", mib(measured.peak_bytes)),
    ]


def scaling_tables(wishes: Wishes, one: StepMeasurement, progress: Progress) -> Tables:
    """Several devices, where they are here: ``found`` has the tokens a second of each number of them."""
    table = Table(
        "scaling", "several devices here, measured", ["devices", "tokens/s", "of so many times one"], found={}
    )
    numbers = several_devices(wishes.settings, wishes.device)
    yield table
    for done, number in enumerate(numbers):
        progress(done, len(numbers), f"measuring {number} devices")
        devices = [f"{wishes.device.type}:{index}" for index in range(number)]
        record: dict[str, Any] = {"devices": number}
        try:
            speed = measure_together(wishes.settings, wishes.shards, devices)
        except MeloFormerError as error:
            table.add([str(number), error.message, ""], {**record, "problem": str(error)})
        else:
            share = speed / (number * one.tokens_per_second)
            table.found[number] = speed
            table.add(
                [str(number), f"{speed:,.0f}", f"{share:.0%}"],
                {**record, "tokens_per_second": speed, "efficiency": share},
            )
        yield table


def cost_tables(wishes: Wishes, measured: StepMeasurement | None, scaling: dict[int, float]) -> Tables:
    """Hours, and money where a price is given; an extrapolation, and called one.

    Args:
        wishes: Corpus, GPUs, epochs.
        measured: Of this device, if anything.
        scaling: Number of devices -> measured tokens a second of all of them, where several are here.
    """
    bench = wishes.settings.bench
    corpus = Corpus.of(bench, wishes.shards)
    price = bench.price_per_gpu_hour
    columns = ["", "devices", "tokens/s", f"hours, {bench.epochs:g} epochs", *(["cost"] if price is not None else ())]
    table = Table("training_time", "time to train: an EXTRAPOLATION", columns)
    for time in _times(wishes, measured, scaling, corpus):
        row = [time.basis, str(time.gpus), f"{time.tokens_per_second:,.0f}", hours(time.hours)]
        table.add([*row, *([] if time.cost is None else [f"{time.cost:,.2f}"])], time.to_dict())
    table.notes = [
        f"Assumed: {corpus.source}; no time for validation, checkpoints or waiting; several GPUs reach "
        f"{bench.scaling_efficiency:.0%} of so many times one (bench.scaling_efficiency) unless measured. The hopes "
        "were published of the first version for eight GPUs of 80 GB, and never measured."
    ]
    yield table


def _times(
    wishes: Wishes, measured: StepMeasurement | None, scaling: dict[int, float], corpus: Corpus
) -> Iterable[TrainingTime]:
    bench, size = wishes.settings.bench, wishes.settings.model.size
    stated = bench.tokens_per_second
    if stated is not None:
        for gpus in bench.gpus:
            speed = speed_of(stated, gpus, bench.scaling_efficiency)
            yield training_time(f"{size}, {stated:,.0f} tokens/s stated", bench, corpus, gpus, speed)
    elif measured is not None:
        device = "GPU" if wishes.device.type == "cuda" else f"this {wishes.device.type}"
        for gpus in bench.gpus:
            speed = scaling.get(gpus) or speed_of(measured.tokens_per_second, gpus, bench.scaling_efficiency)
            how = "measured" if gpus == 1 or gpus in scaling else "extrapolated"
            yield training_time(f"{size}, {device}, {how}", bench, corpus, gpus, speed)
    for hoped, speed in HOPED_FOR.items():
        yield training_time(f"{hoped}, published hope", bench, corpus, HOPED_GPUS, speed)


def compare_tables(
    name: str, contestants: list[Contestant], shards: Path | None, device: torch.device, progress: Progress
) -> Tables:
    """One setting, value by value."""
    first = contestants[0]
    on_cpu = device.type == "cpu"
    columns = ["", "CPU s" if on_cpu else "s", "spread", "time", "GPU GiB", "ratio", "here MiB", "ratio"]
    title = f"{name}: {step_name(first.settings)}, {first.settings.training.precision or 'default precision'}"
    table = Table("compare", title, columns)
    yield table
    try:
        compare(contestants, shards, lambda done, total: progress(done, total, f"comparing {name}"))
    finally:  # Ctrl-C: what is known
        for contestant in contestants:
            record = contestant.to_dict(first)
            table.add(_compare_row(contestant, record), {"setting": name, **record})
    table.notes = [
        f"Ratios are to {first.value}: time as the median over {first.settings.bench.repeats} turns in which all "
        f"take a step{', in CPU time of the process' if on_cpu else ''}; GPU: tensors, predicted; here: measured."
    ]
    yield table


def _compare_row(contestant: Contestant, record: dict[str, Any]) -> list[str]:
    seconds = contestant.seconds
    step = f"{statistics.median(seconds):.3f}" if seconds else contestant.problem or "not known"
    spread = f"{min(seconds):.3f}-{max(seconds):.3f}" if seconds else ""
    predicted = gib(contestant.predicted.total) if contestant.predicted else ""
    measured = f"{contestant.measured_bytes / MIB:,.0f}" if contestant.measured_bytes else ""
    ratios = [record[name] for name in ("time_ratio", "predicted_ratio", "measured_ratio")]
    time, memory, here = ("" if ratio is None else f"x {ratio:.2f}" for ratio in ratios)
    return [contestant.value, step, spread, time, predicted, memory, measured, here]


def lengths_tables(wishes: Wishes, progress: Progress) -> Tables:
    """Throughput here over the length of a row, for a picture."""
    lengths = LENGTHS_ON_CUDA if wishes.device.type == "cuda" else LENGTHS_ON_CPU
    settings = wishes.settings
    few = settings.bench.model_copy(update={"repeats": min(settings.bench.repeats, 3)})
    settings = settings.model_copy(update={"bench": few})
    title = f"throughput here over the length of a row: {settings.model.size}"
    table = Table("throughput_by_length", title, ["tokens in a row", "step, median", "tokens/s"])
    yield table
    for number, length in enumerate(lengths):
        progress(number, len(lengths), f"measuring {length:,} tokens")
        record: dict[str, Any] = {"size": settings.model.size, "seq_len": length, "batch_size": 1}
        try:
            measured = measure_step(with_bench(settings, length, 1), wishes.shards)
        except OutOfMemoryError:
            table.add([f"{length:,}", "out of memory", ""], {**record, "problem": "out of memory"})
        else:
            row = [f"{length:,}", f"{measured.step_seconds:.3f} s", f"{measured.tokens_per_second:,.0f}"]
            table.add(row, {**record, "tokens_per_second": measured.tokens_per_second})
        yield table

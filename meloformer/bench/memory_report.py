"""The tables of memory: steps, what fits, and what to train with."""

from __future__ import annotations

from typing import Any

from meloformer.bench.fits import (
    BATCH_SEQ_LEN,
    CHECKPOINTING,
    GIB,
    LONGEST,
    MOST_ROWS,
    PUBLISHED,
    Allowance,
    Fits,
    recommend,
    with_model,
)
from meloformer.bench.memory import peak_step_bytes
from meloformer.bench.prediction import PredictedMemory, predict_memory
from meloformer.bench.tables import Progress, Table, Tables, Wishes, gib, step_name, with_bench
from meloformer.errors import MeloFormerError, OutOfMemoryError, SettingsError
from meloformer.settings import Settings


def memory_tables(wishes: Wishes, progress: Progress) -> Tables:
    """Predicted and, on CUDA, measured peaks; a table for each way of checkpointing and precision."""
    grid = wishes.grid or [
        with_bench(with_model(wishes.settings, size=each.size, checkpointing=mode), each.seq_len, each.batch_size)
        for mode in ("none", "ffn")
        for each in PUBLISHED
    ]
    is_measured = wishes.device.type == "cuda"
    by_way: dict[tuple[str, str], list[Settings]] = {}
    for step in grid:
        by_way.setdefault((step.model.checkpointing, step.training.precision or "bf16"), []).append(step)
    columns = ["", "weights", "grads", "optim", "activ", "logits", "other", "tensors", "needs"]
    done = 0
    for (mode, precision), steps in by_way.items():
        title = f"memory of a training step on a GPU, predicted, GiB: checkpointing {mode}, {precision}"
        table = Table("memory", title, [*columns, *(["measured", "off by"] if is_measured else ())])
        for step in steps:
            progress(done, len(grid), f"memory of {step_name(step)}")
            _add_memory(table, step, wishes)
            done += 1
            yield table
        if done == len(grid):
            table.notes.append(f"{Allowance.of(wishes.settings.bench)}; other = temporary, batch and masks.")
            table.notes.append(
                "Parts are what is alive at the peak; where that comes early in backward, few gradients are."
            )
            if not is_measured:
                table.notes.append("No GPU here: nothing of this is measured.")
            yield table


def _add_memory(table: Table, step: Settings, wishes: Wishes) -> None:
    bench = step.bench
    record: dict[str, Any] = {
        "size": step.model.size, "seq_len": bench.seq_len, "batch_size": bench.batch_size,
        "checkpointing": step.model.checkpointing, "precision": step.training.precision or "bf16",
        "optimizer": step.training.optimizer,
    }  # fmt: skip
    try:
        predicted = predict_memory(step)
    except SettingsError as error:
        table.add([step_name(step), error.message, *[""] * (len(table.columns) - 2)], {**record, "problem": str(error)})
        return
    needs = Allowance.of(bench).needed_bytes(predicted.total)
    parts = parts_of(predicted)
    row = [step_name(step), *(gib(parts[name]) for name in parts), gib(predicted.total), gib(needs)]
    record |= {"predicted_bytes": predicted.total, "parts": predicted.to_dict(), "needed_bytes": round(needs)}
    record |= {"fits": needs <= wishes.gpu_mem * GIB}
    if wishes.device.type == "cuda":
        try:
            measured = peak_step_bytes(step, wishes.shards, wishes.device)
        except OutOfMemoryError:
            row += ["out of memory", ""]
            record |= {"measured_bytes": None, "problem": "out of memory"}
        else:
            off = predicted.total / measured - 1
            row += [gib(measured), f"{off:+.1%}"]
            record |= {"measured_bytes": measured, "off_by": off}
    table.add(row, record)


def fits_tables(wishes: Wishes, progress: Progress) -> Tables:
    """The longest row and the most rows of every size, and beside it what was published."""
    gpu = f"{wishes.gpu_mem:g} GiB"
    columns = ["", "checkpointing", "longest sequence, 1 row", f"most rows of {BATCH_SEQ_LEN:,}"]
    table = Table("fits", f"what fits into {gpu}, predicted", columns)
    found: dict[tuple[str, str], Fits] = {}
    total = len(wishes.sizes) * len(CHECKPOINTING)
    for number, size in enumerate(wishes.sizes):
        for place, mode in enumerate(CHECKPOINTING):
            progress(number * len(CHECKPOINTING) + place, total, f"what fits of {size.model.size}, {mode}")
            fits = Fits.of(with_model(size, checkpointing=mode), wishes.gpu_mem * GIB)
            found[size.model.size, mode] = fits
            longest = f"{fits.longest_seq_len:,}" if fits.longest_seq_len < LONGEST else f"{LONGEST:,} or more"
            rows = f"{fits.largest_batch:,}" if fits.largest_batch < MOST_ROWS else f"{MOST_ROWS:,} or more"
            name = size.model.size if place == 0 else ""
            table.add(
                [name, mode, longest if fits.longest_seq_len else "none", rows if fits.largest_batch else "none"],
                {"size": fits.size, "checkpointing": mode, "longest_seq_len": fits.longest_seq_len,
                 "largest_batch": fits.largest_batch, "batch_seq_len": BATCH_SEQ_LEN},
            )  # fmt: skip
            yield table
    table.notes.append(f"{Allowance.of(wishes.settings.bench)}; found by bisection.")
    yield table
    yield from _published_table(wishes)


def _published_table(wishes: Wishes) -> Tables:
    columns = ["", "published", *CHECKPOINTING]
    table = Table("published", "memory as published of the first version, and needs predicted here, GiB", columns)
    sizes = {size.model.size for size in wishes.sizes}
    for each in [each for each in PUBLISHED if each.size in sizes]:
        step = with_bench(with_model(wishes.settings, size=each.size), each.seq_len, each.batch_size)
        needs = {
            mode: Allowance.of(step.bench).needed_bytes(predict_memory(with_model(step, checkpointing=mode)).total)
            for mode in CHECKPOINTING
        }
        table.add(
            [step_name(step), each.memory, *(gib(value) for value in needs.values())],
            {"size": each.size, "seq_len": each.seq_len, "batch_size": each.batch_size, "published": each.memory,
             "needed_bytes": {mode: round(value) for mode, value in needs.items()}},
        )  # fmt: skip
        yield table


def recommended_tables(wishes: Wishes, progress: Progress) -> Tables:
    """How to train every size."""
    columns = ["", "sequence", "rows", "accumulation", "checkpointing", "needs, GiB", "tokens a step"]
    table = Table("recommended", f"recommended for {wishes.gpu_mem:g} GiB", columns)
    for number, size in enumerate(wishes.sizes):
        progress(number, len(wishes.sizes), f"settings for {size.model.size}")
        best = recommend(size, wishes.gpu_mem * GIB)
        if best is None:
            row = [size.model.size, "does not fit", *[""] * 5]
            table.add(row, {"size": size.model.size, "problem": "does not fit"})
        else:
            row = [
                best.size, f"{best.seq_len:,}", str(best.batch_size), str(best.accumulation), best.checkpointing,
                gib(best.needed_bytes), f"{best.step_tokens:,}",
            ]  # fmt: skip
            table.add(row, best.to_dict())
        yield table
    table.notes.append("Write one with --size SIZE --out FILE.toml, for train --config FILE.toml.")
    yield table


def recommended_toml(wishes: Wishes) -> str:
    """Of the first size.

    Raises:
        MeloFormerError: It does not fit.
    """
    best = recommend(wishes.sizes[0], wishes.gpu_mem * GIB)
    if best is None:
        size = wishes.sizes[0].model.size
        raise MeloFormerError(
            f"{size} does not fit into {wishes.gpu_mem:g} GiB in any way",
            "choose a smaller --size or a larger --gpu-mem",
        )
    head = (
        f"# `meloformer bench` for a GPU of {wishes.gpu_mem:g} GiB; predicted need {gib(best.needed_bytes)} GiB.\n"
        "# Use it with `meloformer train --config THIS_FILE`.\n\n"
    )
    return head + best.to_toml(wishes.sizes[0])


def parts_of(memory: PredictedMemory) -> dict[str, int]:
    """The columns of the table."""
    parts = memory.to_dict()
    other = parts.pop("temporary") + parts.pop("layout")
    return {**parts, "other": other}

"""The training loop beside its own bare step, and beside a plain transformer given the same time.

    python -m benchmarks.training SHARDS                            loop, padding, stop and resume, a long row: minutes
    python -m benchmarks.training SHARDS --quality --results FILE   six runs of ten minutes each; goes on where it was
    ... --write                                                     into docs/benchmarks.md too

Times are process CPU time: other programs may run beside.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import machine, table, tell
from benchmarks.steps import Case, Step, row_of
from experiments.plain import PlainTransformer
from meloformer.model.batch import Batch
from meloformer.model.meloformer import MeloFormer
from meloformer.settings_file import load_settings
from meloformer.shards.batches import BatchLoader
from meloformer.shards.store import open_shards
from meloformer.training.loading import Rows, prepared_passes
from meloformer.training.loop import train
from meloformer.training.loss import evaluate
from meloformer.training.optimizer import learning_rate_at, make_optimizers
from meloformer.training.plan import make_plan
from meloformer.training.result import Silence
from meloformer.training.step import train_step

QUALITY = ("model.size=tiny", "training.seq_len=1024", "training.batch_size=4", "training.device=cpu")


class BesideBareStep(Silence):
    """Takes a bare step after every step of the loop, and the CPU time of both."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.loop: list[float] = []
        self.bare: list[float] = []
        self.waits: list[float] = []
        self._since = 0.0

    def on_start(self, total_steps: int, first_step: int) -> None:  # noqa: ARG002
        """Begin to measure."""
        self._since = time.process_time()

    def on_step(self, step: int, metrics: dict[str, float]) -> None:  # noqa: ARG002
        """The loop's turn is over."""
        between = time.process_time()
        self.loop.append(between - self._since)
        self.waits.append(metrics["data_wait"])
        self.step()
        self._since = time.process_time()
        self.bare.append(self._since - between)


def loop_beside_bare_step(shards: Path, workers: int, folder: Path) -> list[str]:
    """A row of the table of speed: size small, one row of 4,096 tokens."""
    words = [
        "model.size=small", "model.attention=sparse", "training.seq_len=4096", "training.batch_size=1",
        "training.steps=9", "training.device=cpu", "training.eval_every=100", "training.eval_rows=1",
        "training.sample_every=0", "training.checkpoint_every=100", f"training.workers={workers}",
    ]  # fmt: skip
    case = Case(str(shards), 4096, "fp32", 1, 1)
    watcher = BesideBareStep(Step("ours", case, *row_of(case)))
    train(shards, folder / f"loop-{workers}", load_settings(None, words), observer=watcher)
    loop, bare = (statistics.median(found[2:]) for found in (watcher.loop, watcher.bare))
    waits = statistics.median(watcher.waits[2:])
    return [f"{workers}", f"{bare:.2f}", f"{loop:.2f}", f"**{bare / loop:.2f}**", f"{waits:.1%}"]


def padding(shards: Path, seq_len: int) -> list[str]:
    """A row of the table of padding."""
    folder = open_shards(shards)
    documents = folder.split("train")
    loader = BatchLoader(documents, folder.vocabulary, seq_len=seq_len, batch_size=1)
    alone = documents.lengths.clip(max=seq_len)  # what is longer would be cut off, as usual
    apart = 1 - alone.sum() / (len(alone) * alone.max())
    return [f"{seq_len:,}", f"{loader.num_rows:,}", f"**{loader.padding_share(0):.2%}**", f"{apart:.0%}"]


def run_command(shards: Path, out: Path, *words: str) -> tuple[float, float, int]:
    """CPU and wall seconds, and the largest resident kilobytes, of a training command."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "meloformer", "train", str(shards), "--out", str(out), "--quiet", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.perf_counter() - started, after.ru_maxrss


def stop_and_resume(shards: Path, folder: Path) -> str:
    """What it costs to do in two processes what one could do."""
    words = ["--size", "tiny", "--seq-len", "1024", "--device", "cpu"]
    for text in ("training.eval_rows=1", "training.sample_every=0", "training.workers=0"):
        words += ["--set", text]
    whole, _, _ = run_command(shards, folder / "whole", *words, "--steps", "8")
    first, _, _ = run_command(shards, folder / "halves", *words, "--steps", "4")
    second, _, _ = run_command(shards, folder / "halves", *words, "--steps", "8", "--resume")
    cost = first + second - whole
    return f"A stop and a resume cost {cost:.1f} s of CPU time, the checkpoint's writing and reading in it."


def long_row(shards: Path, folder: Path) -> str:
    """Size small, 16,384 tokens in a row, three steps."""
    words = ["--size", "small", "--seq-len", "16384", "--batch-size", "1", "--steps", "3", "--device", "cpu"]
    for text in ("training.eval_rows=1", "training.sample_every=0"):
        words += ["--set", text]
    _, _, kilobytes = run_command(shards, folder / "long", *words)
    records = [json.loads(line) for line in (folder / "long/metrics.jsonl").read_text("utf-8").splitlines()]
    speeds = [record["tokens_per_second"] for record in records if "loss" in record]
    return (
        f"`small` with one row of 16,384 tokens: {statistics.median(speeds):,.0f} tokens a second by the clock, "
        f"{kilobytes / 2**20:.1f} GiB of memory at most."
    )


def quality_of(kind: str, seed: int, shards: Path, seconds: float) -> dict[str, float]:
    """Validation loss after so many CPU seconds of training on all cores, readers not counted."""
    settings = load_settings(None, [*QUALITY, f"training.seed={seed}"])
    plan, chosen = make_plan(shards, settings), settings.training
    torch.manual_seed(seed)
    vocabulary = plan.shards.vocabulary
    model: Any = (PlainTransformer if kind == "plain" else MeloFormer)(settings.model, vocabulary)
    optimizers = make_optimizers(model, chosen)
    rows, device = Rows(0, plan.rows_per_step, chosen.batch_size), torch.device("cpu")
    budget, started, steps = seconds * torch.get_num_threads(), time.process_time(), 0
    with prepared_passes(plan.training, rows, settings.model, device, workers=1) as passes:
        while (spent := time.process_time() - started) < budget:
            rate = learning_rate_at(int(spent), max(int(budget), 1), chosen)
            train_step(model, optimizers, [next(passes)], learning_rate=rate, clip_norm=chosen.clip_norm)
            steps += 1
    batches = [Batch.of(list(ids), vocabulary) for ids in plan.validation_rows(1_000_000)]
    found = evaluate(model, batches)
    return {"nats_per_note": found.per_note, "nats_per_token": found.per_token, "steps": steps}


def quality(shards: Path, seconds: float, results: Path) -> str:
    """The table of quality for the time; what is in the file of results is not trained again."""
    found: dict[str, dict[str, float]] = json.loads(results.read_text("utf-8")) if results.exists() else {}
    rows = []
    for kind in ("plain", "ours"):
        for seed in range(3):
            key = f"{kind}, seed {seed}, {seconds:g} s"
            if key not in found:
                found[key] = quality_of(kind, seed, shards, seconds)
                results.write_text(json.dumps(found, indent=1), "utf-8")
                sys.stderr.write(f"{key}: {found[key]}\n")
        ours = [found[f"{kind}, seed {seed}, {seconds:g} s"] for seed in range(3)]
        notes = [f"{each['nats_per_note']:.3f}" for each in ours]
        mean = statistics.mean(each["nats_per_note"] for each in ours)
        rows.append([kind, *notes, f"**{mean:.3f}**", f"{statistics.mean(each['steps'] for each in ours):,.0f}"])
    return table(["nats a note", "seed 0", "seed 1", "seed 2", "mean", "steps"], rows)


def report(args: argparse.Namespace) -> str:
    """All that was asked for, with the machine, the date and the command."""
    said = (
        f"{machine('torch')}, {torch.get_num_threads()} threads; {datetime.now(UTC):%Y-%m-%d}; `python -m benchmarks."
    )
    if args.quality:
        said += f"training SHARDS --quality --seconds {args.seconds:g}`: `tiny`, 4 rows of 1,024 tokens.\n\n"
        return said + quality(args.shards, args.seconds, args.results)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        columns = ["workers", "bare step, s", "step of the loop, s", "bare / loop", "of the step waiting for data"]
        speed = table(columns, [loop_beside_bare_step(args.shards, workers, folder) for workers in (0, 1)])
        columns = ["tokens in a row", "rows", "padding", "each piece padded to the longest"]
        rows = table(columns, [padding(args.shards, length) for length in (2048, 4096, 8192, 16384)])
        rest = [stop_and_resume(args.shards, folder), long_row(args.shards, folder)]
    return "\n\n".join([f"{said}training SHARDS`.", speed, rows, *rest])


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path, help="what `meloformer pack` wrote")
    parser.add_argument("--quality", action="store_true", help="the six long runs instead")
    parser.add_argument("--seconds", type=float, default=600, help="of each long run, on all threads")
    parser.add_argument("--results", type=Path, default=Path("quality.json"), help="what was trained already")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    args = parser.parse_args()
    text = report(args)
    tell(text, "quality" if args.quality else "training", write=args.write)


if __name__ == "__main__":
    main()

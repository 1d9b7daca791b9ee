"""FlexAttention beside plain causal attention by the flash kernel, on one GPU: time, memory, and share of its peak.

    python -m benchmarks.gpu [SHARDS] [--size small] [--shapes 4096x8 16384x1 65536x1] [--write]

Both models have the same width, depth, heads and feed-forward networks, in bf16; the plain one has no summaries. They
take turns, and what is told is the median of the wall time between two synchronisations. A training step of ours makes
its layout anew. Needs torch, numpy and pydantic, and with SHARDS zstandard. Where there is no CUDA it says so and ends
well.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.measure import table, tell
from experiments.plain import PlainTransformer, attention_alone
from meloformer.bench.flops import PEAK_FLOPS, linear_flops, pair_flops, visible_pairs
from meloformer.bench.music import practice_piece
from meloformer.model.batch import Batch
from meloformer.model.flex import FlexPath
from meloformer.model.layout import Layout
from meloformer.model.meloformer import MeloFormer
from meloformer.settings import SIZES, ModelSettings, Size, TrainingSettings
from meloformer.tokens.encode import encode
from meloformer.tokens.vocabulary import Vocabulary
from meloformer.training.loss import target_losses
from meloformer.training.optimizer import make_optimizers

DTYPE = torch.bfloat16
COLUMNS = (
    "tokens x rows", "tokens/s, plain", "tokens/s, ours", "attention alone, ms: plain / ours", "by document / ours",
    "step, ms: ours / plain",
    "of peak, plain", "of peak, ours", "peak GiB, plain", "peak GiB, ours", "layout, ms", "layout in the step",
)  # fmt: skip


@dataclass(frozen=True)
class Contest:
    """One batch of music, and what both models are to do with it."""

    batch: Batch
    settings: ModelSettings
    vocabulary: Vocabulary

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.batch.ids.device

    def layout(self) -> Layout:
        """A new one."""
        return Layout.of(self.batch, self.settings, DTYPE)

    def ready_layout(self) -> None:
        """A new one, and the masks that are otherwise made when they are first asked for."""
        path = self.layout().path
        if isinstance(path, FlexPath):
            for reading in (path.summarised, *path.updated.values()):
                assert reading.mask is not None

    def step(self, kind: str) -> Callable[[], object]:
        """A training step: layout (ours), forward, backward, optimiser."""
        torch.manual_seed(0)
        model: nn.Module = (PlainTransformer if kind == "plain" else MeloFormer)(self.settings, self.vocabulary)
        model = model.to(self.device, DTYPE)
        optimizers = make_optimizers(model, TrainingSettings())
        kept = self.layout() if kind == "plain" else None

        def step() -> None:
            logits = model(self.batch, kept or self.layout())
            target_losses(logits, self.batch).mean().backward()
            for optimizer in optimizers.values():
                optimizer.step()
                optimizer.zero_grad()

        return step

    def flops(self, kind: str) -> float:
        """Of the matrix products of a training step, the optimiser left out."""
        return self.linear_flops(kind) + self.attention_flops(kind)

    def linear_flops(self, kind: str) -> float:
        """Of all weights."""
        num_summaries = self.batch.bar_document.numel() if kind == "ours" else 0
        return linear_flops(self.settings, len(self.vocabulary), self.batch.ids.numel(), num_summaries)

    def attention_flops(self, kind: str) -> float:
        """Of all visible pairs."""
        rows, length = self.batch.ids.shape
        plain_pairs = self.settings.num_heads * rows * length * (length + 1) / 2
        return pair_flops(self.settings, plain_pairs if kind == "plain" else visible_pairs(self.batch, self.settings))


def batch_of(shards: Path | None, vocabulary: Vocabulary, length: int, rows: int, device: torch.device) -> Batch:
    """The first batch of the first epoch, or music made by rule."""
    if shards is None:
        pieces = (encode(practice_piece(seed, num_bars=max(length // 16, 4))) for seed in range(rows))
        return Batch.of([piece[:length] for piece in pieces], vocabulary, length=length, device=device)
    from meloformer.shards.batches import BatchLoader  # these need zstandard
    from meloformer.shards.store import open_shards

    loader = BatchLoader(open_shards(shards).split("train"), vocabulary, seq_len=length, batch_size=rows)
    return Batch.of(list(next(loader.batches(0))), vocabulary, device=device)


def seconds_of(tasks: dict[str, Callable[[], object]], device: torch.device, repeats: int) -> dict[str, float]:
    """Median wall seconds of each, in turns, after a first turn that compiles."""
    taken: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(repeats + 1):
        for name, task in tasks.items():
            synchronize(device)
            started = time.perf_counter()
            task()
            synchronize(device)
            if turn:
                taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def synchronize(device: torch.device) -> None:
    """Wait for all that was asked of the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_gib(make: Callable[[], Callable[[], object]], device: torch.device) -> float:
    """Most memory of a model, its optimisers and two of its steps; NaN where nobody counts it."""
    if device.type != "cuda":
        return float("nan")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step = make()
    step()
    step()
    return (torch.cuda.max_memory_allocated(device) - before) / 2**30


def row_of_table(contest: Contest, peak_flops: float | None, repeats: int) -> list[str]:
    """All that is told of one shape."""
    device, (rows, length) = contest.device, contest.batch.ids.shape
    peaks = {kind: peak_gib(lambda kind=kind: contest.step(kind), device) for kind in ("plain", "ours")}
    alone = seconds_of(attention_alone(contest.batch, contest.settings, contest.layout(), DTYPE), device, repeats)
    steps = seconds_of({kind: contest.step(kind) for kind in ("plain", "ours")}, device, repeats)
    making = seconds_of({"layout": contest.ready_layout}, device, repeats)["layout"]
    shares = {kind: contest.flops(kind) / steps[kind] / peak_flops if peak_flops else None for kind in steps}
    return [
        f"{length:,} x {rows}",
        *(f"{rows * length / steps[kind]:,.0f}" for kind in ("plain", "ours")),
        f"{1000 * alone['plain']:.2f} / {1000 * alone['ours']:.2f} = **{alone['plain'] / alone['ours']:.2f}**",
        f"{alone['by document'] / alone['ours']:.2f}",
        f"{1000 * steps['ours']:.1f} / {1000 * steps['plain']:.1f} = **{steps['ours'] / steps['plain']:.2f}**",
        *("" if share is None else f"{share:.1%}" for share in (shares["plain"], shares["ours"])),
        *(f"{peaks[kind]:.2f}" for kind in ("plain", "ours")),
        f"{1000 * making:.1f}",
        f"{making / steps['ours']:.1%}",
    ]


def report(args: Options, device: torch.device) -> str:
    """The table, with device, date and command."""
    vocabulary = Vocabulary.default()
    if args.shards is not None:
        from meloformer.shards.store import open_shards

        vocabulary = open_shards(args.shards).vocabulary
    settings = ModelSettings.of_size(args.size, attention="flex" if device.type == "cuda" else "sparse")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    peak_flops = next((flops for part, flops in PEAK_FLOPS.items() if part in name), None)
    rows: list[list[str]] = []
    for length, count in args.shapes:
        batch = batch_of(args.shards, vocabulary, length, count, device)
        rows.append(row_of_table(Contest(batch, settings, vocabulary), peak_flops, args.repeats))
    of_peak = f", peak {peak_flops / 1e12:.0f} TFLOP/s bf16" if peak_flops else ""
    command = f"python -m benchmarks.gpu{' SHARDS' if args.shards else ''} --size {args.size}"
    head = f"{name}{of_peak}, torch {torch.__version__}; {datetime.now(UTC):%Y-%m-%d}; `{command}`."
    return f"{head}\n\n{table(COLUMNS, rows)}"


class Options(argparse.Namespace):
    """What was asked for."""

    shards: Path | None
    size: Size
    shapes: list[tuple[int, int]]
    repeats: int
    device: str
    write: bool


def shape(text: str) -> tuple[int, int]:
    """``4096x8`` -> tokens in a row, and rows."""
    length, _, rows = text.partition("x")
    return int(length), int(rows or 1)


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("shards", nargs="?", type=Path, help="by default music made by rule")
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--shapes", nargs="+", type=shape, default=[(4096, 8), (16384, 1), (65536, 1)])
    parser.add_argument("--repeats", type=int, default=10, help="turns of every measurement; the median counts")
    parser.add_argument("--device", default="cuda", help="cpu tries the program itself, on the sparse path")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    args = parser.parse_args(arguments, namespace=Options())
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        sys.stdout.write("there is no CUDA device here: nothing is measured\n")
        return
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION] if args.device.startswith("cuda") else [SDPBackend.MATH]):
        text = report(args, torch.device(args.device))
    tell(text, "gpu", write=args.write)
    if args.device.startswith("cuda"):
        from benchmarks.gpu_memory import measured_table  # it needs zstandard

        tell(measured_table(torch.device(args.device)), "gpu-memory-measured", write=args.write)


if __name__ == "__main__":
    main()

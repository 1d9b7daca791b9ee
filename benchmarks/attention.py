"""Sparse attention beside plain causal attention, on real music: time, memory, and how sparse it is.

    python -m benchmarks.attention [SHARDS] [--lengths 4096 16384 65536] [--threads 1] [--dtype fp32] [--keep-memory]

Both models have the same width, depth, heads and feed-forward networks; the plain one has no summaries. They take
turns, and what is told is the median of process CPU time, which a busy machine disturbs least. Writes a markdown table.
"""

from __future__ import annotations

import argparse
import ctypes
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from meloformer.bench.music import practice_piece
from meloformer.model.batch import NO_DOCUMENT, Batch
from meloformer.model.ffn import SwiGLU
from meloformer.model.layout import Layout
from meloformer.model.meloformer import MeloFormer
from meloformer.model.norm import RMSNorm
from meloformer.model.rope import Rotation, rotate
from meloformer.model.sparse import SparsePath
from meloformer.model.tiling import Tiling
from meloformer.model.visibility import EQUAL_KEY
from meloformer.settings import ModelSettings, TrainingSettings
from meloformer.shards.batches import BatchLoader
from meloformer.shards.store import open_shards
from meloformer.tokens.encode import encode
from meloformer.tokens.vocabulary import Vocabulary
from meloformer.training.loss import target_losses
from meloformer.training.optimizer import make_optimizers

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SIDE = 128
"""Of the blocks that are counted as touched or not."""


MOST_TO_REPEAT = 20_000
"""Tokens; a plain step at 65,536 takes ten minutes."""


class PlainBlock(nn.Module):
    """A layer as everybody has it: causal attention with rotary positions, then SwiGLU, each behind an RMSNorm."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.head_dim = settings.head_dim
        self.norms = nn.ModuleList(RMSNorm(settings.dim) for _ in range(2))
        kv_dim = settings.num_kv_heads * settings.head_dim
        self.query = nn.Linear(settings.dim, settings.dim, bias=False)
        self.key = nn.Linear(settings.dim, kv_dim, bias=False)
        self.value = nn.Linear(settings.dim, kv_dim, bias=False)
        self.out = nn.Linear(settings.dim, settings.dim, bias=False)
        self.ffn = SwiGLU(settings.dim, settings.ffn_dim)

    def forward(self, x_BTD: Tensor, by: Rotation) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        normed = self.norms[0](x_BTD)
        query, key, value = (
            project(normed).unflatten(-1, (-1, self.head_dim)) for project in (self.query, self.key, self.value)
        )
        x_BTD = x_BTD + self.out(plain_attention(rotate(query, by), rotate(key, by), value).flatten(2))
        return x_BTD + self.ffn(self.norms[1](x_BTD))


class PlainTransformer(nn.Module):
    """The baseline; it looks at everything before a token, other documents of the row too."""

    def __init__(self, settings: ModelSettings, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(vocabulary), settings.dim)
        self.layers = nn.ModuleList(PlainBlock(settings) for _ in range(settings.num_layers))
        self.norm = RMSNorm(settings.dim)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, batch: Batch, layout: Layout) -> Tensor:
        """(B, T, vocabulary size) logits."""
        x = self.embedding(batch.ids)
        for layer in self.layers:
            x = layer(x, layout.regular)
        return linear(self.norm(x), self.embedding.weight)


def plain_attention(query_BTHE: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(B, T, H, E)."""
    query, key, value = (each.transpose(1, 2) for each in (query_BTHE, key, value))
    return scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True).transpose(1, 2)


def real_batches(shards: Path | None, length: int) -> Iterator[Batch]:
    """Batches of one row of ``length`` tokens."""
    if shards is None:
        for seed in range(100):
            yield Batch.of([encode(practice_piece(seed, num_bars=length // 16))[:length]], length=length)
        return
    folder = open_shards(shards)
    loader = BatchLoader(folder.split("train"), folder.vocabulary, seq_len=length, batch_size=1)
    for ids in loader.batches(0):
        yield Batch.of(list(ids), folder.vocabulary)


def attention_alone(batch: Batch, settings: ModelSettings, dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    """Forward and backward of one layer's attention, projections left out: plain, and all four phases."""
    layout = Layout.of(batch, settings, dtype)
    tokens = (*batch.ids.shape, settings.num_heads, settings.head_dim)
    bars = (*batch.bar_document.shape, settings.num_heads, settings.head_dim)
    shared_tokens, shared_bars = ((*shape[:2], settings.num_kv_heads, shape[3]) for shape in (tokens, bars))

    def of(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, dtype=dtype, requires_grad=True)

    query, key, value = of(tokens), of(shared_tokens), of(shared_tokens)
    summaries = of(bars), of(shared_bars), of(shared_bars)
    second = of(shared_bars), of(shared_bars)
    gradient, of_summaries = torch.randn(tokens, dtype=dtype), torch.randn(bars, dtype=dtype)

    def plain() -> None:
        plain_attention(query, key, value).backward(gradient)

    def sparse() -> None:
        summarised = layout.path.summarise(*summaries, key, value)
        updated = layout.path.update(query, key, value, *second)
        torch.autograd.backward([summarised, updated], [of_summaries, gradient])

    return {"plain": plain, "sparse": sparse}


class Step:
    """A training step: layout, forward, backward, optimiser."""

    def __init__(self, kind: str, batch: Batch, settings: ModelSettings, vocabulary: Vocabulary, args: Options) -> None:
        torch.manual_seed(0)
        model = PlainTransformer if kind == "plain" else MeloFormer
        self.model = model(settings, vocabulary).to(DTYPES[args.dtype])
        self.optimizers = make_optimizers(self.model, TrainingSettings.model_validate({"optimizer": args.optimizer}))
        self.batch, self.settings = batch, settings
        self.dtype = DTYPES[args.dtype]
        self.layout = Layout.of(batch, settings, self.dtype) if kind == "plain" else None

    def __call__(self) -> None:
        """Take it."""
        layout = self.layout or Layout.of(self.batch, self.settings, self.dtype)
        target_losses(self.model(self.batch, layout), self.batch).mean().backward()
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()


def medians(taking_turns: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median process CPU seconds of each; the first round does not count where there are more."""
    seconds: dict[str, list[float]] = {name: [] for name in taking_turns}
    for _ in range(repeats + (repeats > 1)):
        for name, run in taking_turns.items():
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(each[repeats > 1 :]) for name, each in seconds.items()}


def peak_bytes(kind: str, length: int, args: Options) -> int:
    """Growth of the largest resident set in two steps, in a process that does nothing else."""
    command = [sys.executable, "-m", "benchmarks.attention", *([str(args.shards)] if args.shards else [])]
    command += ["--keep-memory"] * args.keep_memory
    command += ["--lengths", str(length), "--threads", str(args.threads), "--dtype", args.dtype, "--peak-of", kind]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def keep_memory() -> None:
    """Have glibc keep what is freed, for both models.

    It gives large blocks back to the system at once, and on a virtual machine to get a page again took 6 to 9 us: a
    third of a training step at 16,384 tokens, which says nothing about attention.
    """
    glibc = ctypes.CDLL(None)
    m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
    glibc.mallopt(m_mmap_max, 0)
    glibc.mallopt(m_trim_threshold, -1)


def own_peak_bytes(kind: str, args: Options) -> int:
    """The same of this process."""
    batch = next(real_batches(args.shards, args.lengths[0]))
    before = _largest_resident_bytes()
    step = Step(kind, batch, args.settings, args.vocabulary, args)
    step()
    step()
    return _largest_resident_bytes() - before


def _largest_resident_bytes() -> int:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def pairs(batch: Batch, settings: ModelSettings, layout: Layout) -> tuple[float, float]:
    """Share of the pairs of plain causal attention that are visible, and that are computed, summaries included."""
    assert isinstance(layout.path, SparsePath)
    length = batch.ids.shape[1]
    plain = settings.num_heads * length * (length + 1) / 2
    all_tilings = [(layout.path.summarised, settings.num_heads)]
    all_tilings += [(layout.path.updated[family], count) for family, count in settings.heads.items()]
    visible = sum(count * visible_pairs(tiling) for tiling, count in all_tilings)
    computed = sum(count * tiling.num_pairs for tiling, count in all_tilings)
    return visible / plain, computed / plain


def visible_pairs(tiling: Tiling) -> int:
    """Pairs that no mask hides."""
    return tiling.num_pairs - int(tiling.hidden.sum())


def blocks_touched(batch: Batch, settings: ModelSettings, *, is_sorted: bool) -> float:
    """Share of the causal blocks of a row of ``SIDE`` tokens a side that hold a visible pair, mean over the heads.

    Args:
        batch: Of one row.
        settings: Head families.
        is_sorted: Whether the tokens of equal-key families stand sorted by document and key, or as they are written.
    """
    length = batch.ids.shape[1]
    num_blocks = -(-length // SIDE)
    touched = 0.0
    document = batch.document[0]
    real = (document != NO_DOCUMENT).nonzero()[:, 0]
    for family, count in settings.heads.items():
        groups = EQUAL_KEY[family](batch)[0] if family in EQUAL_KEY else torch.zeros_like(document)
        group = torch.unique(torch.stack([document[real], groups[real]]), dim=1, return_inverse=True)[1]
        block = torch.arange(len(real)) // SIDE
        if is_sorted and family in EQUAL_KEY:
            group = group.sort(stable=True)[0]
        held = torch.zeros(int(group.max()) + 1, num_blocks)
        held[group, block] = 1
        grid = held.T @ held > 0 if family in EQUAL_KEY else _ensemble_blocks(batch, settings, num_blocks)
        touched += count * float(grid.tril().sum())
    return touched / settings.num_heads / (num_blocks * (num_blocks + 1) / 2)


def _ensemble_blocks(batch: Batch, settings: ModelSettings, num_blocks: int) -> Tensor:
    """(n, n) bool, rows of blocks of queries, of the pairs of regular tokens that ``ensemble`` heads see."""
    path = SparsePath.of(batch, ModelSettings.of_size("tiny", heads={"ensemble": 4}, bar_offsets=settings.bar_offsets))
    grid = torch.zeros(num_blocks, num_blocks, dtype=torch.bool)
    length, is_global = batch.ids.shape[1], path.globals
    for tile in path.updated["ensemble"].tiles():
        columns = torch.cat([torch.arange(low, high) for low, high in tile.ranges])
        seen = torch.ones(tile.stop - tile.start, len(columns), dtype=torch.bool)
        if tile.hidden is not None:
            seen[:, -tile.hidden.shape[1] :] = ~tile.hidden
        is_token = columns < length + len(is_global)
        seen, columns = seen[:, is_token], columns[is_token]
        columns = torch.where(columns < length, columns, is_global[(columns - length).clamp(min=0)])
        query, column = seen.nonzero(as_tuple=True)
        grid[(query + tile.start) // SIDE, columns[column] // SIDE] = True
    return grid


class Options(argparse.Namespace):
    """What was asked for."""

    shards: Path | None
    lengths: list[int]
    threads: int
    dtype: str
    optimizer: str
    repeats: int
    peak_of: str | None
    keep_memory: bool
    settings: ModelSettings
    vocabulary: Vocabulary


def options() -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("shards", nargs="?", type=Path, help="by default music made by rule")
    parser.add_argument("--lengths", nargs="+", type=int, default=[4096, 16384, 65536])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=list(DTYPES), default="fp32")
    parser.add_argument("--optimizer", choices=["muon", "adamw"], default="muon")
    parser.add_argument("--repeats", type=int, default=3, help=f"one at lengths above {MOST_TO_REPEAT:,}")
    parser.add_argument("--keep-memory", action="store_true", help="do not give freed memory back (glibc)")
    parser.add_argument("--peak-of", choices=["plain", "sparse"], help=argparse.SUPPRESS)
    args = parser.parse_args(namespace=Options())
    args.settings = ModelSettings.of_size("small", attention="sparse")
    args.vocabulary = Vocabulary.default() if args.shards is None else open_shards(args.shards).vocabulary
    return args


def row_of_table(length: int, args: Options) -> list[str]:
    """All that is told of one length."""
    # First of all, while this process holds nothing: at 65,536 tokens a step takes 15 GiB.
    peaks = [f"{peak_bytes(kind, length, args) / 2**30:.2f}" for kind in ("plain", "sparse")]
    batch = next(real_batches(args.shards, length))
    repeats = args.repeats if length <= MOST_TO_REPEAT else 1
    alone = medians(attention_alone(batch, args.settings, DTYPES[args.dtype]), repeats)
    steps = {kind: Step(kind, batch, args.settings, args.vocabulary, args) for kind in ("plain", "sparse")}
    whole = medians(dict(steps), repeats)
    making = medians({"layout": lambda: Layout.of(batch, args.settings, DTYPES[args.dtype])}, 3)["layout"]
    visible, computed = pairs(batch, args.settings, Layout.of(batch, args.settings))
    touched = [blocks_touched(batch, args.settings, is_sorted=is_sorted) for is_sorted in (False, True)]
    return [
        f"{length:,}",
        f"{alone['plain']:.3f} / {alone['sparse']:.3f} = **{alone['plain'] / alone['sparse']:.1f}**",
        f"{whole['sparse']:.2f} / {whole['plain']:.2f} = **{whole['sparse'] / whole['plain']:.2f}**",
        f"{visible:.3f}",
        f"{computed:.3f}",
        f"{touched[0]:.2f}",
        f"{touched[1]:.2f}",
        f"{making / whole['sparse']:.1%}",
        *peaks,
    ]


HEADER = [
    "tokens", "attention alone: plain / ours, s", "training step: ours / plain, s", "pairs visible", "pairs computed",
    "blocks touched as written", "blocks touched sorted", "layout in the step", "peak GiB plain", "peak GiB ours",
]  # fmt: skip


def main() -> None:
    """Measure and print."""
    args = options()
    torch.set_num_threads(args.threads)
    if args.keep_memory:
        keep_memory()
    if args.peak_of:
        sys.stdout.write(str(own_peak_bytes(args.peak_of, args)))
        return
    lines = [HEADER, ["---"] * len(HEADER)]
    for cells in lines:
        sys.stdout.write(f"| {' | '.join(cells)} |\n")
    for length in args.lengths:
        sys.stdout.write(f"| {' | '.join(row_of_table(length, args))} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    np.seterr(all="raise")
    main()

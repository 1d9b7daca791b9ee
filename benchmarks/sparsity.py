"""How sparse attention is: pairs of tokens and blocks of pairs, of real rows.

python -m benchmarks.sparsity SHARDS           print which blocks the layouts for CUDA read, and how long they take
python -m benchmarks.sparsity SHARDS --write   put it into docs/attention.md too
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import PAGE, interleaved, machine, table, tell
from meloformer.model.batch import NO_DOCUMENT, Batch
from meloformer.model.flex import FlexPath
from meloformer.model.layout import Layout
from meloformer.model.sparse import SparsePath
from meloformer.model.tiling import Tiling
from meloformer.model.visibility import EQUAL_KEY, READS_SUMMARIES
from meloformer.settings import ModelSettings
from meloformer.shards.batches import BatchLoader
from meloformer.shards.store import open_shards

SIDE = 128
"""Of the blocks that are counted as touched or not."""
ROW = 16_384
"""Tokens of the rows whose layouts for CUDA are told of."""


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


def blocks_by_layout(shards: Path, num_rows: int) -> str:
    """A table of the blocks that each layout for CUDA reads, and the time that making the layouts takes."""
    folder = open_shards(shards)
    loader = BatchLoader(folder.split("train"), folder.vocabulary, seq_len=ROW, batch_size=1)
    heads = dict.fromkeys((*EQUAL_KEY, *READS_SUMMARIES), 1)
    settings = ModelSettings.of_size("small", heads=heads, dim=64 * len(heads), attention="flex")
    default = ModelSettings.of_size("small", attention="flex")
    shares: dict[str, list[tuple[float, float]]] = {}
    seconds = []
    for ids in islice(loader.batches(0), num_rows):
        batch = Batch.of(list(ids), folder.vocabulary)
        seconds.append(interleaved({"layout": lambda batch=batch: Layout.of(batch, default)}, repeats=3)["layout"])
        path = Layout.of(batch, settings).path
        assert isinstance(path, FlexPath)
        side = path.num_tokens // SIDE
        for name, reading in (*path.updated.items(), ("summaries", path.summarised)):
            mask = reading.mask
            assert mask.full_kv_num_blocks is not None
            full, partial = int(mask.full_kv_num_blocks.sum()), int(mask.kv_num_blocks.sum())
            causal = side * (side + 1) / 2
            shares.setdefault(name, []).append(((full + partial) / causal, full / causal))
    rows = [
        [f"`{name}`" if name != "summaries" else name, *(f"{value:.3f}" for value in np.mean(found, axis=0))]
        for name, found in shares.items()
    ]
    said = (
        f"{machine('torch')}; {datetime.now(UTC):%Y-%m-%d}; `python -m benchmarks.sparsity SHARDS --rows {num_rows}`. "
    )
    said += (
        f"Making the layouts of a row, of the default families, takes {1000 * np.median(seconds):.0f} ms of one core."
    )
    return f"{said}\n\n{table(['layout', 'read', 'full'], rows)}"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path, help="what `meloformer pack` wrote")
    parser.add_argument("--rows", type=int, default=20, help=f"of {ROW:,} tokens")
    parser.add_argument("--write", action="store_true", help="into docs/attention.md")
    args = parser.parse_args()
    text = blocks_by_layout(args.shards, args.rows)
    tell(text, "blocks", write=args.write, page=PAGE.with_name("attention.md"))


if __name__ == "__main__":
    main()

"""How sparse attention is: pairs of tokens and blocks of pairs, of real rows."""

from __future__ import annotations

import torch
from torch import Tensor

from meloformer.model.batch import NO_DOCUMENT, Batch
from meloformer.model.layout import Layout
from meloformer.model.sparse import SparsePath
from meloformer.model.tiling import Tiling
from meloformer.model.visibility import EQUAL_KEY
from meloformer.settings import ModelSettings

SIDE = 128
"""Of the blocks that are counted as touched or not."""


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

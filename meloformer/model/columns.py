"""Keys and values as tiles read them: stretches of a few pieces that lie where they are, and are not copied together.

Shapes: R keys in all, r of a piece, C of a tile; K key-value heads, E width of a head, Q queries of a tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from meloformer.model.tiling import Tile


class Stretch(NamedTuple):
    """Some columns of a tile: keys ``low`` to ``high`` of a piece."""

    piece: int
    low: int
    high: int


class PlacedTile(NamedTuple):
    """A tile, and its columns stretch by stretch."""

    tile: Tile
    stretches: list[Stretch]

    @property
    def num_pairs(self) -> int:
        """Of query and key that are computed for one head."""
        return (self.tile.stop - self.tile.start) * sum(high - low for _, low, high in self.stretches)


def placed(tiles: Iterator[Tile], sizes: list[int]) -> list[PlacedTile]:
    """Cut the columns of tiles where pieces of so many keys meet."""
    starts = [sum(sizes[:piece]) for piece in range(len(sizes))]
    found: list[PlacedTile] = []
    for tile in tiles:
        stretches = [
            Stretch(piece, max(low - start, 0), min(high - start, size))
            for low, high in tile.ranges
            for piece, (start, size) in enumerate(zip(starts, sizes, strict=True))
            if low < start + size and high > start
        ]
        found.append(PlacedTile(tile, stretches))
    return found


def read(pieces_KrE: list[Tensor], stretches: list[Stretch]) -> Tensor:
    """(K, C, E) the columns in fp32."""
    parts = [pieces_KrE[piece][:, low:high] for piece, low, high in stretches]
    columns = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
    return columns if columns.dtype == torch.float32 else columns.float()


class Sums:
    """What some tiles add to the gradients of keys or of values.

    The width comes before the keys: so a product in fp32 takes a fifth less time than with the keys before the width.
    Only what lies between the first and the last key that a tile reads takes memory.
    """

    def __init__(self, tiles: list[PlacedTile], pieces_KrE: list[Tensor]) -> None:
        num_keys, _, width = pieces_KrE[0].shape
        bounds: dict[int, tuple[int, int]] = {}
        for _, stretches in tiles:
            for piece, low, high in stretches:
                first, last = bounds.get(piece, (low, high))
                bounds[piece] = min(first, low), max(last, high)
        self.bounds = bounds
        self.parts = {
            piece: pieces_KrE[0].new_zeros((num_keys, width, high - low), dtype=torch.float32)
            for piece, (low, high) in bounds.items()
        }

    def add(self, stretches: list[Stretch], rows_KQE: Tensor, weights_KQC: Tensor) -> None:
        """Add ``weights^T @ rows`` where the columns came from."""
        at = 0
        for piece, low, high in stretches:
            first = self.bounds[piece][0]
            part = self.parts[piece][:, :, low - first : high - first]
            weights = weights_KQC if len(stretches) == 1 else weights_KQC[:, :, at : at + high - low]
            part.baddbmm_(rows_KQE.mT, weights)
            at += high - low

    def add_to(self, piece: int, sum_rKE: Tensor, numbers: Tensor | None) -> None:
        """Add a piece to the gradients of all keys; ``numbers`` says, if anything, where each of its keys stands."""
        if piece not in self.parts:
            return
        low, high = self.bounds[piece]
        own = self.parts[piece].permute(2, 0, 1)
        if numbers is None:
            sum_rKE[low:high] += own
            return
        # No number occurs twice.
        sum_rKE.index_copy_(0, numbers[low:high], sum_rKE.index_select(0, numbers[low:high]).add_(own))

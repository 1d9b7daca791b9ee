"""Keys and values of all layers in one growing tensor, so that what a head reads is one stretch.

Tokens come last: each dimension of the keys, and of the values, lies token beside token. On a CPU the tensor is read
and written as an array of numpy, whose OpenBLAS multiplies one row by a matrix from memory at 29 GB/s where MKL reaches
21, and whose views cost a third of PyTorch's. One head of 64 dimensions reads 100, 300, 1,000 and 4,000 tokens that are
in no cache of the CPU in 6, 10, 22 and 73 microseconds; the same by PyTorch takes 8, 14, 31 and 95, and its attention,
token after token, up to 140.

Shapes: L layers, S key-value heads that are kept ("slots"), E width of a head, n tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

Array: TypeAlias = Tensor | np.ndarray
"""Of numpy on a CPU, of PyTorch elsewhere; the two share memory, and what is used of them here is spelt the same."""

LEAST_ROOM = 8
"""Tokens that a new store has room for. One that is full gets room for a quarter more, and for so many at least: then a
token is copied four times in all, as stores grow, and a fifth of the memory is empty at the most of a long store."""

COLUMNS = ("type", "note", "instrument", "bar")
"""What a mask asks about a key; a summary has type 0, note -1, no bar, and belongs to all."""


class Place(NamedTuple):
    """Where the newest token of a store goes, and what it reads."""

    write: Sequence[Array]
    """Of every layer (2, S, E): key and value."""
    read: Sequence[Array]
    """Of every layer two of (S, E, n): keys, then values, with the newest; of a single slot (E, n)."""
    hidden: Array | None
    """(n,) bool, which of them it does not see; ``None`` where it sees all."""


class Store:
    """Keys and values in the order in which they came.

    Args:
        num_layers, num_slots, width: L, S, E.
        device: Where they are.
        has_columns: Whether masks will ask for what tokens are.
    """

    def __init__(
        self, num_layers: int, num_slots: int, width: int, device: torch.device, *, has_columns: bool = False
    ) -> None:
        self.length = 0
        self._table = torch.empty((2 * num_layers, num_slots, width, LEAST_ROOM), device=device)
        self._columns = np.empty((len(COLUMNS), LEAST_ROOM), dtype=np.int64) if has_columns else None

    @property
    def keys_values(self) -> Tensor:
        """(2 L, S, E, n): of every layer the keys, then the values."""
        return self._table[..., : self.length]

    @property
    def columns(self) -> np.ndarray:
        """(4, n) what ``COLUMNS`` says; without columns (4, 0)."""
        return np.empty((len(COLUMNS), 0), dtype=np.int64) if self._columns is None else self._columns[:, : self.length]

    @property
    def num_bytes(self) -> int:
        """Memory that is held, room to grow with it."""
        return self._table.nbytes + (0 if self._columns is None else self._columns.nbytes)

    def copy(self) -> Store:
        """Another one with the same content."""
        other = object.__new__(Store)
        other.length = self.length
        other._table = self._table.clone()
        other._columns = None if self._columns is None else self._columns.copy()
        return other

    def append(self, columns: tuple[int, ...]) -> int:
        """Make room for one token; its number. What is written there comes later."""
        self._reserve(self.length + 1)
        if self._columns is not None:
            self._columns[:, self.length] = columns
        self.length += 1
        return self.length - 1

    @property
    def newest(self) -> Tensor:
        """(2 L, S, E) of the newest token."""
        return self._table[..., self.length - 1]

    def place(self, hidden: Array | None) -> Place:
        """Where the newest token goes, and what it reads."""
        table = as_array(self._table)
        num_rows, num_slots, width, _ = table.shape
        seen = table[..., : self.length] if num_slots > 1 else table[:, 0, :, : self.length]
        newest = table[..., self.length - 1].reshape((num_rows // 2, 2, num_slots, width))
        return Place(list(newest), list(seen), hidden)

    def extend(self, keys_values: Tensor, columns: np.ndarray) -> None:
        """Append (2 L, S, E, n) and, where there are columns, (4, n)."""
        first, count = self.length, keys_values.shape[-1]
        self._reserve(first + count)
        self._table[..., first : first + count] = keys_values
        if self._columns is not None:
            self._columns[:, first : first + count] = columns
        self.length = first + count

    def cut(self, length: int) -> None:
        """Forget all but the first ``length`` tokens."""
        self.length = length

    def _reserve(self, wanted: int) -> None:
        room = self._table.shape[-1]
        if wanted <= room:
            return
        room = wanted + max(wanted // 4, LEAST_ROOM)
        table = self._table.new_empty((*self._table.shape[:3], room))
        table[..., : self.length] = self.keys_values
        self._table = table
        if self._columns is not None:
            columns = np.empty((len(COLUMNS), room), dtype=np.int64)
            columns[:, : self.length] = self._columns[:, : self.length]
            self._columns = columns


def as_array(tensor: Tensor) -> Array:
    """The same memory, as it is best worked with where it is."""
    return tensor.numpy() if tensor.device.type == "cpu" else tensor

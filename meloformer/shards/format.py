"""A shard: an ordinary zstd file in which every document is a frame of its own.

    frame of document 0     uint16 little-endian ids, with a checksum of the content
    frame of document 1
    ...
    skippable frame         the seek table: compressed and decompressed size of every frame

So ``zstd -d`` reads the whole, and one document is one seek.

Source: RFC 8878 for frames; "Zstandard Seekable Format" 0.1.0 for the table.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import zstandard

from meloformer.errors import ShardError

SUFFIX = ".hid.zst"
_ID = np.dtype("<u2")
_SKIPPABLE_MAGIC = 0x184D2A5E
_SEEKABLE_MAGIC = 0x8F92EAB1
_HEADER = struct.Struct("<II")
_FOOTER = struct.Struct("<IBI")
_AGAIN = "make the shards again with `meloformer pack`"


class ShardWriter:
    """Write documents one after another; :meth:`close` writes the seek table, without which it is no shard.

    Args:
        path: The file.
        level: zstd level, 1-22.
    """

    def __init__(self, path: Path, *, level: int) -> None:
        self._file = path.open("wb")
        self._compressor = zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)
        self._sizes: list[tuple[int, int]] = []
        self.num_tokens = 0

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, ids: np.ndarray) -> None:
        """Append one document, (T,) ids below 65,536."""
        raw = np.ascontiguousarray(ids, dtype=_ID).tobytes()
        frame = self._compressor.compress(raw)
        self._file.write(frame)
        self._sizes.append((len(frame), len(raw)))
        self.num_tokens += len(ids)

    def close(self) -> None:
        """Write the seek table and close the file."""
        table = np.array(self._sizes, dtype="<u4").tobytes()
        self._file.write(_HEADER.pack(_SKIPPABLE_MAGIC, len(table) + _FOOTER.size))
        self._file.write(table)
        self._file.write(_FOOTER.pack(len(self._sizes), 0, _SEEKABLE_MAGIC))
        self._file.close()


class Shard:
    """Random access to the documents of one file.

    Args:
        path: The file.
    Raises:
        ShardError: It is no shard, or cut short.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise ShardError(f"cannot read the shard {path}: {error}", _AGAIN) from None
        sizes = self._seek_table()
        self._offsets = np.concatenate([[0], np.cumsum(sizes[:, 0])])
        self.lengths = sizes[:, 1] // _ID.itemsize
        """(N,) int64 number of tokens of every document."""
        self._decompressor = zstandard.ZstdDecompressor()

    def _seek_table(self) -> np.ndarray:
        """(N, 2) int64 compressed and decompressed sizes."""
        total = len(self._bytes)
        not_whole = ShardError(f"{self.path} is no shard or was cut short: it has no seek table at its end", _AGAIN)
        if total < _HEADER.size + _FOOTER.size:
            raise not_whole
        count, descriptor, magic = _FOOTER.unpack(self._bytes[-_FOOTER.size :])
        # bit 7 of the descriptor: every entry has a checksum too
        width = 12 if descriptor & 0x80 else 8
        start = total - _FOOTER.size - count * width
        if magic != _SEEKABLE_MAGIC or start < _HEADER.size:
            raise not_whole
        frame_magic, frame_size = _HEADER.unpack(self._bytes[start - _HEADER.size : start])
        table = np.frombuffer(self._bytes[start : start + count * width], dtype="<u4").reshape(count, width // 4)
        sizes = table[:, :2].astype(np.int64)
        fits = frame_magic == _SKIPPABLE_MAGIC and frame_size == count * width + _FOOTER.size
        if not fits or int(sizes[:, 0].sum()) != start - _HEADER.size or (sizes[:, 1] % _ID.itemsize).any():
            raise ShardError(f"{self.path}: the seek table does not fit the file", _AGAIN)
        return sizes

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> np.ndarray:
        """(T,) uint16 ids of one document.

        Raises:
            IndexError: There is no such document.
            ShardError: Its frame is damaged; names shard and document.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        frame = self._bytes[self._offsets[index] : self._offsets[index + 1]]
        try:
            raw = self._decompressor.decompress(frame)
        except zstandard.ZstdError as error:
            raise ShardError(f"{self.path}, document {index}: the frame is damaged ({error})", _AGAIN) from None
        if len(raw) != self.lengths[index] * _ID.itemsize:
            raise ShardError(f"{self.path}, document {index}: the frame has another length than the table says", _AGAIN)
        return np.frombuffer(raw, dtype=_ID)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))

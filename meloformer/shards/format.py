"""A shard: an ordinary zstd file in which every document is a frame of its own.

    frame of document 0     uint16 little-endian ids, with their size and a checksum of the content
    frame of document 1
    ...
    skippable frame         the seek table: compressed and decompressed size of every frame

So ``zstd -d`` reads the whole, and one document is one seek.

Source: RFC 8878 for frames; "Zstandard Seekable Format" 0.1.0 for the table.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import zstandard

from meloformer.errors import ShardError

SUFFIX = ".hid.zst"
_ID = np.dtype("<u2")
ID_BYTES = _ID.itemsize
_MAX_ID = 2**16 - 1
_SKIPPABLE_MAGIC = 0x184D2A5E
_SEEKABLE_MAGIC = 0x8F92EAB1
_HAS_CHECKSUMS = 0x80  # in the descriptor: every entry of the table has a checksum too
_HEADER = struct.Struct("<II")
_FOOTER = struct.Struct("<IBI")
AGAIN = "make the shards again with `meloformer pack`"


class ShardWriter:
    """Write documents one after another; :meth:`close` writes the seek table, without which it is no shard.

    As a context manager it closes at the end, or, after an exception, leaves a file that no reader takes for a shard.

    Args:
        path: The file.
        level: zstd level, 1-22.
        frames: To go on with a file that ends behind its last frame: compressed and decompressed size of each.
    Raises:
        OSError: The file cannot be written.
    """

    def __init__(self, path: Path, *, level: int, frames: Sequence[tuple[int, int]] = ()) -> None:
        self._file = path.open("ab" if frames else "wb")
        self._compressor = zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)
        self._sizes = list(frames)
        self.num_tokens = sum(raw for _, raw in frames) // _ID.itemsize
        self.num_bytes = sum(compressed for compressed, _ in frames)
        """Of the file so far."""

    def __len__(self) -> int:
        return len(self._sizes)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def add(self, ids: np.ndarray) -> int:
        """Append one document.

        Args:
            ids: (T,) ids from 0 to 65,535.
        Returns:
            Number of bytes of its frame.
        Raises:
            ValueError: An id does not fit into 16 bits.
        """
        if ids.dtype != _ID and len(ids) and not (0 <= int(ids.min()) and int(ids.max()) <= _MAX_ID):
            raise ValueError(f"ids go from {ids.min()} to {ids.max()}, but a shard holds 0 to {_MAX_ID}")
        raw = np.ascontiguousarray(ids, dtype=_ID).tobytes()
        frame = self._compressor.compress(raw)
        self._write(frame)
        self._sizes.append((len(frame), len(raw)))
        self.num_tokens += len(ids)
        return len(frame)

    def sync(self) -> int:
        """Bring all that was added to the disk; the length of the file in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self.num_bytes

    def close(self) -> None:
        """Write the seek table and close the file."""
        table = np.array(self._sizes, dtype="<u4").tobytes()
        self._write(_HEADER.pack(_SKIPPABLE_MAGIC, len(table) + _FOOTER.size))
        self._write(table)
        self._write(_FOOTER.pack(len(self._sizes), 0, _SEEKABLE_MAGIC))
        self._file.close()

    def abandon(self) -> None:
        """Close the file as it is, without a seek table; no reader takes it for a shard."""
        self._file.close()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self.num_bytes += len(data)


class Shard:
    """Random access to the documents of one file. Not for several threads at once: they would share a decompressor.

    Args:
        path: The file.
    Raises:
        ShardError: It is no shard, or cut short.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._bytes = memoryview(self._mapped)
        except FileNotFoundError:
            raise ShardError(f"the shard {path} is missing", AGAIN) from None
        except (OSError, ValueError) as error:  # an empty file cannot be mapped: ValueError
            raise ShardError(f"cannot read the shard {path}: {error}", AGAIN) from None
        sizes = self._seek_table()
        self.offsets = [0, *np.cumsum(sizes[:, 0]).tolist()]
        """Where in the file each document begins, and the last one ends."""
        self.lengths = sizes[:, 1] // _ID.itemsize
        """(N,) int64 number of tokens of every document."""
        self._decompressor = zstandard.ZstdDecompressor()

    def __reduce__(self) -> tuple[type[Shard], tuple[Path]]:
        return Shard, (self.path,)  # another process opens the file itself

    @property
    def num_bytes(self) -> int:
        """Size of the file."""
        return len(self._bytes)

    def _seek_table(self) -> np.ndarray:
        """(N, 2) int64 compressed and decompressed sizes."""
        total = len(self._bytes)
        not_whole = ShardError(f"{self.path} is no shard or was cut short: it has no seek table at its end", AGAIN)
        if total < _HEADER.size + _FOOTER.size:
            raise not_whole
        count, descriptor, magic = _FOOTER.unpack(self._bytes[-_FOOTER.size :])
        width = 12 if descriptor & _HAS_CHECKSUMS else 8
        start = total - _FOOTER.size - count * width
        if magic != _SEEKABLE_MAGIC or start < _HEADER.size:
            raise not_whole
        frame_magic, frame_size = _HEADER.unpack(self._bytes[start - _HEADER.size : start])
        table = np.frombuffer(self._bytes[start : start + count * width], dtype="<u4").reshape(count, width // 4)
        sizes = table[:, :2].astype(np.int64)
        fits = frame_magic == _SKIPPABLE_MAGIC and frame_size == count * width + _FOOTER.size
        if not fits or int(sizes[:, 0].sum()) != start - _HEADER.size or (sizes[:, 1] % _ID.itemsize).any():
            raise ShardError(f"{self.path}: the seek table does not fit the file", AGAIN)
        return sizes

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> np.ndarray:
        """(T,) uint16 ids of one document, read-only.

        Raises:
            IndexError: There is no such document.
            ShardError: Its frame is damaged; names shard and document.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        if self._mapped.size() < self.offsets[index + 1]:  # to read there would end the process (SIGBUS)
            raise ShardError(f"{self.path}, document {index}: the file was cut short while it was in use", AGAIN)
        frame = self._bytes[self.offsets[index] : self.offsets[index + 1]]
        wanted = int(self.lengths[index]) * _ID.itemsize
        try:
            # the size first: a damaged header may ask for more memory than there is
            found = zstandard.frame_content_size(frame)
            if found != wanted:
                raise ShardError(
                    f"{self.path}, document {index}: its frame holds {found} bytes, the seek table says {wanted}", AGAIN
                )
            raw = self._decompressor.decompress(frame, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise ShardError(f"{self.path}, document {index}: the frame is damaged ({error})", AGAIN) from None
        return np.frombuffer(raw, dtype=_ID)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))

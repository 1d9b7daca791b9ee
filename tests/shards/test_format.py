"""The file format: exact, readable by others, and never silently wrong."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from meloformer.errors import ShardError
from meloformer.shards.format import Shard, ShardWriter

DOCUMENTS = [np.arange(1, 40), np.array([1, 2]), np.full(300, 65_535), np.arange(7) * 1000]
some_documents = st.lists(arrays(np.uint16, st.integers(0, 60)), max_size=6)


def write(path: Path, documents: list[np.ndarray], *, level: int = 3) -> bytes:
    with ShardWriter(path, level=level) as writer:
        for document in documents:
            writer.add(document)
    assert writer.num_bytes == path.stat().st_size
    assert writer.num_tokens == sum(map(len, documents))
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "all-00000.hid.zst"


@given(some_documents, st.integers(1, 22))
def test_what_was_written_is_read_back_in_any_order(documents: list[np.ndarray], level: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "shard")
        write(path, documents, level=level)
        shard = Shard(path)
        assert len(shard) == len(documents)
        assert shard.lengths.tolist() == [len(document) for document in documents]
        for index in reversed(range(len(documents))):
            assert shard[index].dtype == np.uint16
            assert np.array_equal(shard[index], documents[index])
        assert all(np.array_equal(a, b) for a, b in zip(shard, documents, strict=True))
        for outside in (-1, len(documents)):
            with pytest.raises(IndexError):
                shard[outside]


def test_any_zstd_reader_gives_all_ids_in_order(path: Path) -> None:
    data = write(path, DOCUMENTS)
    expected = np.concatenate(DOCUMENTS).astype("<u2").tobytes()
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True) as reader:
        assert reader.read() == expected
    program = shutil.which("zstd")
    if program is not None:
        assert subprocess.run([program, "-dc", path], check=True, capture_output=True).stdout == expected


def test_the_seek_table_is_laid_out_as_the_seekable_format_says(path: Path) -> None:
    data = write(path, DOCUMENTS)
    number_of_frames, descriptor, magic = struct.unpack("<IBI", data[-9:])
    assert (number_of_frames, descriptor, magic) == (len(DOCUMENTS), 0, 0x8F92EAB1)
    table = data[-9 - 8 * number_of_frames - 8 :]
    assert struct.unpack("<II", table[:8]) == (0x184D2A5E, 8 * number_of_frames + 9)
    position = 0
    for entry, document in zip(struct.iter_unpack("<II", table[8:-9]), DOCUMENTS, strict=True):
        compressed, decompressed = entry
        assert decompressed == 2 * len(document)
        frame = zstandard.get_frame_parameters(data[position : position + compressed])
        assert frame.has_checksum
        assert frame.content_size == decompressed
        position += compressed
    assert position == len(data) - len(table)


def test_a_seek_table_that_also_has_checksums_is_read(path: Path) -> None:
    data = write(path, DOCUMENTS)
    count = len(DOCUMENTS)
    frames, entries = data[: -17 - 8 * count], data[-9 - 8 * count : -9]
    table = b"".join(entries[at : at + 8] + b"\xaa\xbb\xcc\xdd" for at in range(0, len(entries), 8))
    header = struct.pack("<II", 0x184D2A5E, len(table) + 9)
    path.write_bytes(frames + header + table + struct.pack("<IBI", count, 0x80, 0x8F92EAB1))
    assert all(np.array_equal(a, b) for a, b in zip(Shard(path), DOCUMENTS, strict=True))


def test_no_flipped_bit_changes_what_is_read_unnoticed(path: Path) -> None:
    documents = [np.arange(1, 12), np.full(50, 7), np.array([1, 2])]
    good = write(path, documents)
    noticed = 0
    for bit in range(8 * len(good)):
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        path.unlink()  # some file systems flush a file that is written over
        path.write_bytes(damaged)
        try:
            found = list(Shard(path))
        except ShardError:
            noticed += 1
        else:
            assert len(found) == len(documents)
            assert all(np.array_equal(a, b) for a, b in zip(found, documents, strict=True))
    assert noticed > 7 * len(good)


def test_a_file_cut_anywhere_is_no_shard(path: Path) -> None:
    good = write(path, DOCUMENTS)
    for length in range(len(good)):
        path.unlink()
        path.write_bytes(good[:length])
        with pytest.raises(ShardError, match=r"all-00000\.hid\.zst"):
            Shard(path)


def test_a_damaged_document_is_named_and_the_others_are_read(path: Path) -> None:
    data = bytearray(write(path, DOCUMENTS))
    first, second = (entry[0] for entry in struct.iter_unpack("<II", data[-9 - 8 * len(DOCUMENTS) : -9][:16]))
    data[first + second // 2] ^= 0xFF
    path.write_bytes(data)
    shard = Shard(path)
    with pytest.raises(ShardError, match=r"all-00000\.hid\.zst, document 1\b.*meloformer pack"):
        shard[1]
    for index in (0, 2, 3):
        assert np.array_equal(shard[index], DOCUMENTS[index])


def test_a_frame_that_claims_to_be_huge_is_not_believed(path: Path) -> None:
    frame = struct.pack("<IB", 0xFD2FB528, 0xE0) + struct.pack("<Q", 2**62) + bytes([0x01, 0x00, 0x00])
    table = struct.pack("<II", len(frame), 8)
    path.write_bytes(frame + struct.pack("<II", 0x184D2A5E, 17) + table + struct.pack("<IBI", 1, 0, 0x8F92EAB1))
    assert zstandard.frame_content_size(frame) == 2**62
    with pytest.raises(ShardError, match="document 0"):
        Shard(path)[0]


@pytest.mark.parametrize(
    "content",
    [b"", b"MThd", b"x" * 1000, zstandard.ZstdCompressor().compress(b"some other zstd file")],
    ids=["empty", "short", "text", "plain zstd"],
)
def test_a_foreign_file_is_no_shard(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ShardError, match=r"all-00000\.hid\.zst"):
        Shard(path)


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(ShardError, match=r"all-00000\.hid\.zst is missing"):
        Shard(path)


@pytest.mark.parametrize("ids", [[-1, 5], [5, 65_536]])
def test_ids_that_do_not_fit_are_refused_rather_than_wrapped(path: Path, ids: list[int]) -> None:
    with ShardWriter(path, level=3) as writer, pytest.raises(ValueError, match="0 to 65535"):
        writer.add(np.array(ids))


def test_after_an_exception_there_is_no_shard(path: Path) -> None:
    def fail() -> None:
        with ShardWriter(path, level=3) as writer:
            writer.add(DOCUMENTS[0])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with pytest.raises(ShardError):
        Shard(path)


def test_the_bytes_depend_on_documents_and_level_alone(tmp_path: Path) -> None:
    assert write(tmp_path / "a", DOCUMENTS) == write(tmp_path / "b", DOCUMENTS)

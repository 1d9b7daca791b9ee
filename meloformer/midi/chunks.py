"""The bytes of a Standard MIDI File below its events: header, chunks, and how long a track is in ticks.

Source: Standard MIDI Files 1.0, "Chunk Types" and "Track Events"; RP-029 for the RIFF wrapper (RMID).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from meloformer.errors import RejectError

MAX_TICKS = 2**31 - 1
"""symusic reckons in 32 bits with a sign: past this tick its notes lie at negative or at wrong positive times."""

_HEADER_BYTES = 14
_DATA_BYTES = {0x8: 2, 0x9: 2, 0xA: 2, 0xB: 2, 0xC: 1, 0xD: 1, 0xE: 2}
"""Upper half of a channel message's status -> data bytes."""
_SYSTEM_DATA_BYTES = {0xF1: 1, 0xF2: 2, 0xF3: 1}
"""System common messages, which do not belong into a file but occur; all others have no data."""


def standard_bytes(data: bytes) -> bytes:
    """The file without a RIFF wrapper, and with a header of the length that every reader accepts.

    Raises:
        RejectError: ``empty-file``, ``not-midi``, ``truncated``, ``bad-header`` or ``smpte-division``.
    """
    if not data:
        raise RejectError("empty-file", "the file has no bytes")
    if data[:4] == b"RIFF" and data[8:12] == b"RMID":
        start = data.find(b"MThd")
        data = data[start:] if start >= 0 else data
    if data[:4] != b"MThd":
        raise RejectError("not-midi", f"the file begins with {data[:12]!r}, not with 'MThd'")
    if len(data) < _HEADER_BYTES:
        raise RejectError("truncated", f"the file ends inside its header, after {len(data)} bytes")
    header_length, midi_format, num_tracks, division = struct.unpack(">IHHH", data[4:_HEADER_BYTES])
    if header_length != 6 and data[_HEADER_BYTES : _HEADER_BYTES + 4] == b"MTrk":
        header_length = 6  # whatever it says: the first track begins where it begins in every file
        data = data[:4] + struct.pack(">I", header_length) + data[8:]
    if header_length < 6 or header_length > len(data) - 8:
        raise RejectError("bad-header", f"the header says that it is {header_length} bytes long")
    if midi_format > 2:
        raise RejectError("bad-header", f"the header says format {midi_format}; there are 0, 1 and 2")
    if division & 0x8000:
        raise RejectError("smpte-division", "time is in SMPTE frames, not in parts of a quarter note")
    if division == 0:
        raise RejectError("bad-header", "the resolution is 0 ticks a quarter note")
    if num_tracks == 0:
        raise RejectError("bad-header", "the header says that there are 0 tracks")
    if len(data) == 8 + header_length:
        raise RejectError("truncated", f"the file ends after its header, which promises {num_tracks} tracks")
    if header_length > 6:
        data = data[:4] + struct.pack(">I", 6) + data[8:_HEADER_BYTES] + data[8 + header_length :]
    return data


def first_cut_chunk(data: bytes) -> int | None:
    """Byte offset of the first chunk that is longer than the rest of the file; ``None`` for a whole file."""
    position = _HEADER_BYTES
    while position < len(data):
        if position + 8 > len(data):
            return position
        (length,) = struct.unpack(">I", data[position + 4 : position + 8])
        if position + 8 + length > len(data):
            return position
        position += 8 + length
    return None


def refuse_too_many_ticks(data: bytes) -> None:
    """Raise where a track goes on past the last tick that 32 bits hold, which symusic does not notice.

    Only where a quick bound cannot exclude it (a few microseconds for an ordinary file) are the events walked through.

    Raises:
        RejectError: ``too-many-ticks``.
    """
    if _bound_on_ticks(data) <= MAX_TICKS:
        return
    for body in _track_bodies(data):
        ticks = track_ticks(body)
        if ticks > MAX_TICKS:
            raise RejectError("too-many-ticks", f"a track is {ticks:,} ticks long, more than {MAX_TICKS:,}")


def _bound_on_ticks(data: bytes) -> int:
    """A number that no track's ticks exceed: all bytes counted as if they were delta times of one track.

    A byte of a variable-length quantity weighs its seven bits, shifted by seven for every byte that follows in it. Such
    a quantity has at most four bytes, and all but the last have their high bit set.
    """
    values = np.frombuffer(data, dtype=np.uint8)
    is_high = values >= 0x80
    in_pair = is_high[:-1] & is_high[1:]
    starts = np.flatnonzero(in_pair)
    in_three = in_pair[np.minimum(starts + 1, len(in_pair) - 1)]
    # An event takes at least two bytes, and its delta time is below 2^14 ticks unless it begins with such a pair.
    coarse = len(data) // 2 * 2**14 + int(((values[starts] & 0x7F) + np.int64(1) << 14 + 7 * in_three).sum())
    if coarse <= MAX_TICKS:
        return coarse
    shift = 7 * is_high.astype(np.int64)
    shift[:-1] += 7 * in_pair
    shift[:-2] += 7 * (in_pair[:-1] & in_pair[1:])
    return int(((values & 0x7F).astype(np.int64) << shift).sum())


def _track_bodies(data: bytes) -> Iterator[bytes]:
    """The events of every whole track chunk."""
    position = _HEADER_BYTES
    while position + 8 <= len(data):
        (length,) = struct.unpack(">I", data[position + 4 : position + 8])
        if data[position : position + 4] == b"MTrk":
            yield data[position + 8 : position + 8 + length]
        position += 8 + length


def track_ticks(body: bytes) -> int:
    """Sum of the delta times of a track's events, up to its end or to the first byte that makes no sense."""
    ticks, position, running_status = 0, 0, 0
    try:
        while position < len(body):
            delta, position = _variable_length(body, position)
            ticks += delta
            if body[position] >= 0x80:
                status, position = body[position], position + 1
            else:
                status = running_status
            if status == 0xFF:
                if body[position] == 0x2F:
                    break
                length, position = _variable_length(body, position + 1)
                position += length
            elif status in (0xF0, 0xF7):
                length, position = _variable_length(body, position)
                position += length
            elif status >= 0xF0:
                position += _SYSTEM_DATA_BYTES.get(status, 0)
            elif status >= 0x80:
                running_status = status
                position += _DATA_BYTES[status >> 4]
            else:
                break
    except IndexError:
        pass
    return ticks


def _variable_length(body: bytes, position: int) -> tuple[int, int]:
    """Value of the variable-length quantity at ``position``, at most four bytes, and the position after it."""
    value = 0
    for _ in range(4):
        byte = body[position]
        value, position = value << 7 | byte & 0x7F, position + 1
        if byte < 0x80:
            break
    return value, position

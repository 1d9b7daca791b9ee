"""The bytes of a Standard MIDI File below its events: header, chunks, and how long a track is in ticks.

Source: Standard MIDI Files 1.0, "Chunk Types" and "Track Events"; RP-029 for the RIFF wrapper (RMID).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from meloformer.errors import RejectError
from meloformer.midi.events import walk
from meloformer.midi.foreign import kind_of

MAX_TICKS = 2**31 - 1
"""symusic reckons in 32 bits with a sign: past this tick its notes lie at negative or at wrong positive times."""

HEADER = struct.Struct(">IHHH")
"""After ``MThd``: length of what follows (6), format (0-2), number of tracks, resolution."""
_CHUNK = struct.Struct(">4sI")
HEADER_BYTES = 4 + HEADER.size
TRACK_END = b"\xff\x2f\x00"
"""The event End of Track, without its delta time."""
_MAX_BYTES_BEFORE = 4096
"""How far from the start of a file its header is looked for; a MacBinary header has 128 bytes."""


def midi_bytes(data: bytes) -> bytes:
    """The bytes from the header on: without a RIFF wrapper or what else stands before it.

    A header chunk under another name is one too, if it is six bytes long and a track follows it.

    Raises:
        RejectError: ``empty-file``, ``not-midi`` or ``truncated``.
    """
    if not data:
        raise RejectError("empty-file", "the file has no bytes")
    if not data.startswith(b"MThd"):
        data = data[_header_start(data) :]
    if len(data) < HEADER_BYTES:
        raise RejectError("truncated", f"the file ends inside its header, after {len(data)} bytes")
    return data


def _header_start(data: bytes) -> int:
    """Where the header begins in a file that does not begin with it."""
    if data[:4] == b"RIFF" and data[8:12] == b"RMID":
        start = data.find(b"MThd")
        if start >= 0:
            return start
    kind = kind_of(data)
    if kind is not None:
        raise RejectError("not-midi", f"the file is {kind}, not MIDI")
    start = data.find(b"MThd\x00\x00\x00\x06", 0, _MAX_BYTES_BEFORE)
    if start >= 0:
        return start
    if data[4:8] == b"\x00\x00\x00\x06" and data[HEADER_BYTES : HEADER_BYTES + 4] == b"MTrk":
        return 0
    raise RejectError("not-midi", f"the file is no MIDI file: it begins with {in_words(data[:12])}, not with MThd")


def in_words(data: bytes) -> str:
    """Bytes for people: as text in quotes where they are text, else as hexadecimal numbers."""
    text = data.decode("ascii", errors="replace")
    return f'"{text}"' if text.isprintable() and text.isascii() else f"the bytes {data.hex(' ')}"


def is_whole(data: bytes) -> bool:
    """Whether the chunks of a file follow each other to its end and are as many tracks as its header promises.

    Args:
        data: At least the bytes of a header. Events are not looked at.
    """
    length, midi_format, promised, division = HEADER.unpack_from(data, 4)
    if data[:4] != b"MThd" or length != 6 or midi_format > 2 or not promised or not 0 < division < 0x8000:
        return False
    position, num_tracks = HEADER_BYTES, 0
    while num_tracks < promised and position + 8 <= len(data):
        name, length = _CHUNK.unpack_from(data, position)
        num_tracks += name == b"MTrk"
        position += 8 + length
    if num_tracks < promised or position > len(data):
        return False
    # What follows the last track can belong to it, if its length is wrong, or be more tracks than were promised.
    return position == len(data) or (data[position - 3 : position] == TRACK_END and b"MTrk" not in data[position:])


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
    position = HEADER_BYTES
    while position + 8 <= len(data):
        name, length = _CHUNK.unpack_from(data, position)
        if name == b"MTrk":
            yield data[position + 8 : position + 8 + length]
        position += 8 + length


def track_ticks(body: bytes) -> int:
    """Sum of the delta times of a track's events, up to its end or to the first byte that makes no sense."""
    return max((event.tick for event in walk(body)), default=0)

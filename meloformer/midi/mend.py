"""Broken MIDI file -> the bytes of a sound one with all that can be saved, and what was wrong.

Nothing else in the package reads events: what is mended here goes through the same reader as every other file.
Source: Standard MIDI Files 1.0, "Chunk Types", "Header Chunks" and "Track Events".
"""

from __future__ import annotations

import copy
import struct
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from meloformer.errors import RejectError
from meloformer.midi.chunks import HEADER, HEADER_BYTES, TRACK_END, in_words
from meloformer.midi.events import MARKER, META, SET_TEMPO, TIME_SIGNATURE, walk

_MAX_TRACKS = 2**16 - 1
"""What a header can promise."""
_MAX_DELTA = 2**28 - 1
_FRAMES_PER_SECOND = (24, 25, 29, 30)
_MAX_NAMED_FAULTS = 3


class Mended(NamedTuple):
    """A sound MIDI file that was made of a broken one."""

    data: bytes
    """Only what a score is made of: channel messages, tempos, meters and markers."""
    recovered: str | None
    """What was wrong, where notes or times may be lost or guessed; ``None`` where all is there and sure.

    Offsets count from the header chunk, 0 in a file without a wrapper."""
    reason: str
    """Under which reason the file is rejected if no note could be saved."""


class _Clock(NamedTuple):
    """How the ticks of a file become ticks of a quarter note."""

    ticks_per_quarter: int
    tempo_us: int | None = None
    """Microseconds per quarter from the start to the end, where the file's own tempos mean nothing."""
    scale: int = 1
    """Ticks of the mended file for one tick of the broken one."""


class _Track(NamedTuple):
    body: bytes
    """Mended events, without End of Track."""
    end: int
    """Offset where the next track can begin."""
    is_whole: bool
    is_cut: bool
    """Whether the file ends inside it."""
    fault: str | None
    last_status: int


def mend(data: bytes) -> Mended:
    """Save every complete track, and of the others every event up to where they break off.

    What is wrong in the header or in the length of a chunk is settled by what is there: a track begins at ``MTrk`` and
    ends with End of Track. A note that is still open where a track breaks off ends with the last event before that.
    Time in SMPTE frames is written as quarter notes of half a second, exactly (of 500,500 us at 29.97 frames a second).
    Takes time and memory in proportion to ``data``.

    Args:
        data: A file that begins with a header chunk, by that or another name; see
            :func:`~meloformer.midi.chunks.midi_bytes`.
    Raises:
        RejectError: ``bad-header`` where the resolution cannot be known; ``bad-header``, ``truncated`` or
            ``unreadable`` where there is no track.
    """
    length, midi_format, promised, division = HEADER.unpack_from(data, 4)
    clock = _clock(division)
    faults = []
    if data[:4] != b"MThd":
        faults.append(f"the header chunk is called {in_words(data[:4])}")
    if midi_format > 2:
        faults.append(f"the header says format {midi_format}, which there is not")
    second_file = data.find(b"MThd\x00\x00\x00\x06", HEADER_BYTES)
    if second_file >= 0:
        faults.append(f"another file begins at byte {second_file} and is left out")
        data = data[:second_file]
    tracks = list(islice(_tracks(data, clock), _MAX_TRACKS))
    if not tracks:
        raise _without_tracks(data, length, promised)
    is_cut = tracks[-1].is_cut
    if is_cut:
        num_whole = sum(track.is_whole for track in tracks)
        faults.append(f"truncated at byte {len(data)}: {num_whole} of {max(promised, len(tracks))} tracks whole")
    elif len(tracks) < promised:
        faults.append(f"{len(tracks)} of the {promised} tracks that the header promises")
    if len(tracks) == _MAX_TRACKS:
        faults.append(f"only the first {_MAX_TRACKS} tracks are read")
    faults += [f"track {number} {track.fault}" for number, track in enumerate(tracks, start=1) if track.fault]
    recovered = "; ".join(faults[:_MAX_NAMED_FAULTS])
    if len(faults) > _MAX_NAMED_FAULTS:
        recovered += f"; {len(faults) - _MAX_NAMED_FAULTS} more"
    bodies = [track.body for track in tracks if track.body] or [b""]
    if clock.tempo_us is not None:
        bodies[0] = b"\x00\xff\x51\x03" + clock.tempo_us.to_bytes(3, "big") + bodies[0]
    header = b"MThd" + HEADER.pack(6, midi_format if midi_format <= 2 else 1, len(bodies), clock.ticks_per_quarter)
    chunks = (b"MTrk" + struct.pack(">I", len(body) + 4) + body + b"\x00" + TRACK_END for body in bodies)
    return Mended(header + b"".join(chunks), recovered or None, "truncated" if is_cut else "unreadable")


def _clock(division: int) -> _Clock:
    """What the last two bytes of a header say.

    Raises:
        RejectError: ``bad-header``.
    """
    if division == 0:
        raise RejectError("bad-header", "the resolution is 0 ticks a quarter note")
    if division < 0x8000:
        return _Clock(division)
    frames, ticks = 256 - (division >> 8), division & 0xFF
    if frames not in _FRAMES_PER_SECOND or ticks == 0:
        raise RejectError("bad-header", f"time is in SMPTE frames, {ticks} ticks each and {frames} a second")
    # 29 stands for 30 frames in 1.001 seconds (drop frame): a half second of 30 frames that lasts 1.001 times as long.
    ticks_per_second = (30 if frames == 29 else frames) * ticks
    scale = 1 if ticks_per_second % 2 == 0 else 2
    return _Clock(ticks_per_second * scale // 2, 500_500 if frames == 29 else 500_000, scale)


def _without_tracks(data: bytes, length: int, promised: int) -> RejectError:
    """Why there is no track in a file."""
    if length != 6:
        return RejectError("bad-header", f"the header says that it is {length} bytes long, and there are no tracks")
    if promised == 0:
        return RejectError("bad-header", "the header says that there are 0 tracks, and there are none")
    if len(data) < HEADER_BYTES + 8:
        return RejectError("truncated", f"the file ends after its header, which promises {promised} tracks")
    first = in_words(data[HEADER_BYTES : HEADER_BYTES + 4])
    return RejectError("unreadable", f"the first chunk is called {first}, and none is a track")


def _tracks(data: bytes, clock: _Clock) -> Iterator[_Track]:
    """Every track that begins with ``MTrk`` outside another one."""
    start, running_status = data.find(b"MTrk", HEADER_BYTES), 0
    while start >= 0:
        track = _track(data, start, clock, running_status)
        yield track
        start, running_status = data.find(b"MTrk", track.end), track.last_status


def _track(data: bytes, start: int, clock: _Clock, running_status: int) -> _Track:
    """The track whose chunk begins at ``start``.

    Bytes that no event can have are read as the nearest thing that one can where that leads to an End of Track;
    otherwise the track ends before them.
    """
    said_end = start + 8 + int.from_bytes(data[start + 4 : start + 8], "big")
    length_fits = _can_end_at(data, said_end)
    next_track = -1 if length_fits else data.find(b"MTrk", start + 4)
    stop = said_end if length_fits else next_track if next_track >= 0 else len(data)
    body = data[start + 8 : stop]
    writer, end, doubtful_at, sure_writer, sure_status = _TrackWriter(clock), 0, None, None, running_status
    has_end = False
    for event in walk(body, running_status=running_status):
        if not event.is_sure and sure_writer is None:
            doubtful_at, sure_writer, sure_status = start + 8 + end, copy.deepcopy(writer), running_status
        writer.add(event.tick, event.message)
        if event.message[0] < 0xF0:
            running_status = event.message[0]
        end, has_end = event.end, event.ends_track
    is_whole = has_end or (length_fits and end == len(body))
    fault = None
    if sure_writer is not None and not has_end:
        writer, running_status, is_whole = sure_writer, sure_status, False
        fault = f"breaks off at byte {doubtful_at}, where no event can be"
    elif sure_writer is not None:
        fault = f"has bytes that no event can have, the first in the event at byte {doubtful_at}"
    elif not is_whole:
        fault = f"breaks off at byte {start + 8 + end}"
    elif not length_fits:
        fault = f"is {end} bytes long, not {said_end - start - 8}"
    is_cut = not is_whole and said_end > len(data) and stop == len(data)
    if not is_whole:
        writer.end_open_notes()
    if is_cut and sure_writer is None:
        fault = None  # the sentence on the whole file says it
    return _Track(bytes(writer.body), start + 8 + end, is_whole, is_cut, fault, running_status)


def _can_end_at(data: bytes, end: int) -> bool:
    """Whether a chunk that says it ends there can be believed: after an End of Track, or before another chunk."""
    if end >= len(data):
        return end == len(data)
    if data[end : end + 4] == b"MTrk" or data[end - 3 : end] == TRACK_END:
        return True
    return data[end : end + 4].isalnum() and end + 8 + int.from_bytes(data[end + 4 : end + 8], "big") <= len(data)


class _TrackWriter:
    """Builds the body of a track from the events that a score is made of."""

    def __init__(self, clock: _Clock) -> None:
        self.body = bytearray()
        self._clock = clock
        self._last_tick = 0
        self._written_tick = 0
        self._open_notes: Counter[tuple[int, int]] = Counter()

    def add(self, tick: int, message: bytes) -> None:
        """Write a message at a tick of the broken file, if a score has a use for it."""
        self._last_tick = tick
        kind, status = message[0] >> 4, message[0]
        if kind in (0x8, 0x9):
            note = (status & 0x0F, message[1])
            if kind == 0x9 and message[2]:
                self._open_notes[note] += 1
            elif self._open_notes[note]:
                self._open_notes[note] -= 1
        if status < 0xF0:
            self._write(message)
        elif status == META:
            self._write_meta(message[1], message[2:])

    def end_open_notes(self) -> None:
        """End every note that sounds, with the last event."""
        for (channel, pitch), count in self._open_notes.items():
            for _ in range(count):
                self._write(bytes((0x80 | channel, pitch, 0)))

    def _write_meta(self, kind: int, text: bytes) -> None:
        if kind == SET_TEMPO and len(text) >= 3 and self._clock.tempo_us is None:
            self._write(bytes((META, kind, 3)) + text[:3])
        elif kind == TIME_SIGNATURE and len(text) >= 2:
            self._write(bytes((META, kind, 4)) + text[:2] + b"\x18\x08")
        elif kind == MARKER:
            self._write(bytes((META, kind)) + _variable_length(len(text)) + text)

    def _write(self, event: bytes) -> None:
        delta = (self._last_tick - self._written_tick) * self._clock.scale
        while delta > _MAX_DELTA:
            self.body += _variable_length(_MAX_DELTA) + bytes((META, 0x01, 0))  # an empty text
            delta -= _MAX_DELTA
        self.body += _variable_length(delta) + event
        self._written_tick = self._last_tick


def _variable_length(value: int) -> bytes:
    """A number below 2^28 as a variable-length quantity."""
    parts = [value & 0x7F]
    while value := value >> 7:
        parts.append(value & 0x7F | 0x80)
    return bytes(reversed(parts))

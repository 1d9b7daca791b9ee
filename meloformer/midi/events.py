"""The events of one track, one by one, whatever its bytes are.

Source: Standard MIDI Files 1.0, "Track Events"; MIDI 1.0 Detailed Specification, tables II to VI, for the messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

META, SYSEX, ESCAPE = 0xFF, 0xF0, 0xF7
MARKER, END_OF_TRACK, SET_TEMPO, TIME_SIGNATURE = 0x06, 0x2F, 0x51, 0x58
"""Types of meta events: the byte after ``META``."""

_NOTE_ON = 0x90
_DATA_BYTES = {0x8: 2, 0x9: 2, 0xA: 2, 0xB: 2, 0xC: 1, 0xD: 1, 0xE: 2}
"""Upper half of a channel message's status -> data bytes."""
_SYSTEM_DATA_BYTES = {0xF1: 1, 0xF2: 2, 0xF3: 1}
"""System common messages, which do not belong into a file but occur; all others have no data."""
_UNDEFINED = (0xF4, 0xF5, 0xF9, 0xFD)


class Event(NamedTuple):
    """One complete event."""

    tick: int
    """Ticks since the start of the track."""
    message: bytes
    """Status and data of a channel or system message; ``FF``, type and text (without its length) of a meta event."""
    end: int
    """Offset of the byte after the event."""
    is_sure: bool
    """Whether the standard allows all its bytes; what it does not allow is read as the nearest thing that it does."""

    @property
    def ends_track(self) -> bool:
        """Whether this is an End of Track."""
        return self.message[0] == META and self.message[1] == END_OF_TRACK


def walk(body: bytes, *, running_status: int = 0) -> Iterator[Event]:
    """Every complete event of a track, up to End of Track or to where the bytes end inside an event.

    Running status goes on after meta and system events, as every sequencer reads it. A data byte above 127 is read as
    127, an undefined status as a message without data, and data without any status before them as notes of channel 1.

    Args:
        body: What follows the eight bytes of the track's chunk header.
        running_status: Status of the channel message before the first event, 0 where there is none.
    """
    tick, position = 0, 0
    while position < len(body):
        try:
            delta, position, is_short = _variable_length(body, position)
            message, position, is_sure = _message(body, position, running_status)
        except IndexError:
            return
        tick += delta
        if message[0] < SYSEX:
            running_status = message[0]
        event = Event(tick, message, position, is_sure and is_short)
        yield event
        if event.ends_track:
            return


def _message(body: bytes, position: int, running_status: int) -> tuple[bytes, int, bool]:
    """The message at ``position``, the offset after it, and whether the standard allows it.

    Raises:
        IndexError: The bytes end inside it.
    """
    status, is_sure = body[position], True
    if status >= 0x80:
        position += 1
    else:
        status, is_sure = running_status or _NOTE_ON, running_status != 0
    if status == META:
        text, end, is_short = _text(body, position + 1)
        return bytes((META, body[position])) + text, end, is_short and body[position] < 0x80
    if status in (SYSEX, ESCAPE):
        text, end, is_short = _text(body, position)
        return bytes((status,)) + text, end, is_short
    if status > SYSEX:
        data, end = _data(body, position, _SYSTEM_DATA_BYTES.get(status, 0))
        return bytes((status,)) + data, end, status not in _UNDEFINED
    data, end = _data(body, position, _DATA_BYTES[status >> 4])
    if max(data) < 0x80:
        return bytes((status,)) + data, end, is_sure
    return bytes((status, *(min(value, 0x7F) for value in data))), end, False


def _data(body: bytes, position: int, length: int) -> tuple[bytes, int]:
    """``length`` bytes and the offset after them; ``IndexError`` where there are not so many."""
    end = position + length
    if end > len(body):
        raise IndexError
    return body[position:end], end


def _text(body: bytes, position: int) -> tuple[bytes, int, bool]:
    """Bytes that follow their own length, the offset after them, and whether the length is no longer than allowed."""
    length, position, is_short = _variable_length(body, position)
    return *_data(body, position, length), is_short


def _variable_length(body: bytes, position: int) -> tuple[int, int, bool]:
    """The variable-length quantity at ``position``, the offset after it, and whether it has at most four bytes.

    Of a longer one the last 28 bits count.
    """
    value, start = 0, position
    while True:
        byte = body[position]
        value, position = (value << 7 | byte & 0x7F) & 0xFFFFFFF, position + 1
        if byte < 0x80:
            return value, position, position - start <= 4

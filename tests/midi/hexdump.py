"""MIDI bytes as they are written in tests: hexadecimal, with a comment per event; and the notes that are read."""

from __future__ import annotations

import struct

from meloformer.midi.score import Score


def from_hex(text: str) -> bytes:
    """Bytes of a hex dump; what follows a ``#`` on a line is a comment."""
    return bytes.fromhex(" ".join(line.split("#")[0] for line in text.splitlines()))


def midi_file(*tracks: str, midi_format: int = 1, ticks_per_quarter: int = 96) -> bytes:
    """A file of the tracks whose events are given as hex dumps; their ends are added."""
    bodies = [from_hex(track) + from_hex("00 ff 2f 00") for track in tracks]
    header = b"MThd" + struct.pack(">IHHH", 6, midi_format, len(tracks), ticks_per_quarter)
    return header + b"".join(b"MTrk" + struct.pack(">I", len(body)) + body for body in bodies)


def notes_of(score: Score) -> list[tuple[int, int, int, int, int]]:
    """(onset, duration, pitch, velocity, program) of every note."""
    columns = (score.onset_ticks, score.duration_ticks, score.pitch, score.velocity, score.program)
    return list(zip(*(column.tolist() for column in columns), strict=True))

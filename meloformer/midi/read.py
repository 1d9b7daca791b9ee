"""MIDI file -> Score. symusic reads; what it refuses or silently drops is found here and named."""

from __future__ import annotations

import re
import struct
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np

from meloformer.errors import InputError, RejectError
from meloformer.midi.bars import bar_grid
from meloformer.midi.chords import CHORD_NAMES
from meloformer.midi.score import DRUMS, Score, make_score

Sustain = Literal["ignore", "extend"]
MAX_TICKS = 2**31 - 1
"""symusic keeps ticks in 32 bits and returns an empty score where a file goes past them."""
_CHORD_NUMBER = {name: number for number, name in enumerate(CHORD_NAMES)}


def read_midi(path: str | Path, *, sustain: Sustain = "ignore") -> Score:
    """Read a MIDI file.

    Args:
        path: The file.
        sustain: ``extend`` lets the sustain pedal lengthen notes, see :func:`parse_midi`.
    Raises:
        InputError: The file cannot be read at all.
        RejectError: Its content is no music that can be read; see :func:`parse_midi`.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    return parse_midi(data, sustain=sustain)


def parse_midi(data: bytes, *, sustain: Sustain = "ignore") -> Score:
    """Read the bytes of a MIDI file: format 0, 1 or 2, also inside a RIFF wrapper (RMID).

    Notes are paired first in, first out; a note that never ends is not a note. Channel 10 is drums. Where the file was
    written by :func:`~meloformer.midi.write.to_midi_bytes` with a chord marker on every bar line, chords and length
    come back as they were.

    Args:
        data: The file.
        sustain: ``extend`` lets notes that end while the pedal of their channel is down sound until it comes up, but
            not past the next note of the same pitch; ``ignore`` leaves them as they are.
    Returns:
        The score. It may have no notes.
    Raises:
        RejectError: ``empty-file``, ``not-midi``, ``bad-header``, ``smpte-division``, ``truncated``,
            ``too-many-ticks`` or ``unreadable``.
    Source: Standard MIDI Files 1.0; RP-029 for RMID.
    """
    data = _standard_bytes(data)
    score = _symusic_score(data)
    columns: list[list[np.ndarray]] = [[], [], [], [], []]
    for track in score.tracks:
        notes = track.notes.numpy()
        onset, duration = notes["time"].astype(np.int64), notes["duration"].astype(np.int64)
        pitch = notes["pitch"].astype(np.int64)
        if sustain == "extend" and not track.is_drum:
            duration = _sustained(onset, duration, pitch, track.pedals.numpy())
        program = DRUMS if track.is_drum else int(track.program)
        values = (onset, duration, pitch, notes["velocity"].astype(np.int64), np.full(len(onset), program))
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    onsets, durations, pitches, velocities, programs = (
        np.concatenate(column) if column else np.zeros(0, dtype=np.int64) for column in columns
    )
    if not len(onsets):
        _refuse_lost_notes(data)
    tempos, meters = score.tempos.numpy(), score.time_signatures.numpy()
    result = make_score(
        ticks_per_quarter=score.ticks_per_quarter,
        onset_ticks=onsets,
        duration_ticks=durations,
        pitch=pitches,
        velocity=velocities,
        program=programs,
        tempos=np.stack([tempos["time"], tempos["mspq"]], axis=1) if len(tempos["time"]) else (),
        meters=np.stack([meters["time"], meters["numerator"], meters["denominator"]], axis=1).astype(np.int64)
        if len(meters["time"])
        else (),
        num_tracks=sum(1 for column in columns[0] if len(column)),
    )
    return _with_marked_chords(result, [(marker.time, marker.text) for marker in score.markers])


def _standard_bytes(data: bytes) -> bytes:
    """The file without a RIFF wrapper, and with a header of the length that every reader accepts."""
    if not data:
        raise RejectError("empty-file", "the file has no bytes")
    if data[:4] == b"RIFF" and data[8:12] == b"RMID":
        start = data.find(b"MThd")
        data = data[start:] if start >= 0 else data
    if data[:4] != b"MThd":
        raise RejectError("not-midi", f"the file begins with {data[:12]!r}, not with 'MThd'")
    if len(data) < 14:
        raise RejectError("truncated", f"the file ends inside its header, after {len(data)} bytes")
    header_length, _, num_tracks, division = struct.unpack(">IHHH", data[4:14])
    if header_length < 6 or header_length > len(data) - 8:
        raise RejectError("bad-header", f"the header says that it is {header_length} bytes long")
    if division & 0x8000:
        raise RejectError("smpte-division", "time is in SMPTE frames, not in parts of a quarter note")
    if division == 0:
        raise RejectError("bad-header", "the resolution is 0 ticks a quarter note")
    if num_tracks == 0:
        raise RejectError("bad-header", "the header says that there are 0 tracks")
    if header_length > 6:
        data = data[:4] + struct.pack(">I", 6) + data[8:14] + data[8 + header_length :]
    return data


def _symusic_score(data: bytes) -> Any:
    """Parse with symusic; out-of-range data bytes are clamped where nothing else helps."""
    from symusic import Score as SymusicScore

    try:
        return SymusicScore.from_midi(data)
    except Exception as error:  # noqa: BLE001 (symusic raises bare RuntimeError, ValueError and others)
        first_error = error
    cut_at = _first_cut_chunk(data)
    if cut_at is not None:
        raise RejectError("truncated", f"the chunk at byte {cut_at} is longer than the rest of the file") from None
    try:
        return SymusicScore.from_midi(data, sanitize_data=True)
    except Exception:  # noqa: BLE001
        message = re.sub(r"\s+", " ", str(first_error)).strip()[:200]
        raise RejectError("unreadable", message or type(first_error).__name__) from None


def _first_cut_chunk(data: bytes) -> int | None:
    """Byte offset of the first chunk that says it is longer than the rest of the file; ``None`` for a whole file."""
    position = 14
    while position < len(data):
        if position + 8 > len(data):
            return position
        length = struct.unpack(">I", data[position + 4 : position + 8])[0]
        if position + 8 + length > len(data):
            return position
        position += 8 + length
    return None


def _refuse_lost_notes(data: bytes) -> None:
    """Raise ``too-many-ticks`` where a file is empty only because its ticks do not fit into 32 bits."""
    import mido

    try:
        tracks = mido.MidiFile(file=BytesIO(data), clip=True).tracks
    except Exception:  # noqa: BLE001 (mido raises whatever the bytes provoke; then the score really is empty)
        return
    for track in tracks:
        ticks = sum(message.time for message in track)
        if ticks > MAX_TICKS:
            raise RejectError("too-many-ticks", f"a track is {ticks:,} ticks long, more than {MAX_TICKS:,}")


def _sustained(onset: np.ndarray, duration: np.ndarray, pitch: np.ndarray, pedals: dict[str, np.ndarray]) -> np.ndarray:
    """(N,) durations, lengthened to the release of a pedal that is down where the note ends."""
    down, held = pedals["time"].astype(np.int64), pedals["duration"].astype(np.int64)
    if not len(down) or not len(onset):
        return duration
    end = onset + duration
    pedal = np.searchsorted(down, end, side="right") - 1
    release = np.where(pedal >= 0, (down + held)[np.maximum(pedal, 0)], 0)
    order = np.lexsort((onset, pitch))
    same_pitch_follows = np.append(pitch[order][1:] == pitch[order][:-1], False)
    next_onset = np.full(len(onset), np.iinfo(np.int64).max)
    next_onset[order[same_pitch_follows]] = onset[order[np.flatnonzero(same_pitch_follows) + 1]]
    return np.maximum(end, np.minimum(release, next_onset)) - onset


def _with_marked_chords(score: Score, markers: list[tuple[int, str]]) -> Score:
    """The score with the chords that its markers name, where they name one on every bar line from the first on."""
    numbers = [_CHORD_NUMBER.get(text, -1) for _, text in markers]
    if not markers or min(numbers) < 0:
        return score
    last = max(markers[-1][0], int(score.onset_ticks[-1]) if score.num_notes else 0)
    try:
        grid = bar_grid(
            score.meter_ticks,
            score.meter_numerator,
            score.meter_denominator,
            ticks_per_quarter=score.ticks_per_quarter,
            end_ticks=last + 1,
        )
    except RejectError:
        return score
    if [tick for tick, _ in markers] != grid.start_ticks.tolist():
        return score
    return score.with_changes(chords=np.array(numbers, dtype=np.int64), end_ticks=grid.end_ticks)

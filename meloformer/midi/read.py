"""MIDI file -> Score. symusic reads; what it refuses or would silently drop is mended first, or rejected by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from meloformer.errors import InputError, RejectError
from meloformer.midi.bars import grid_of
from meloformer.midi.chords import CHORD_NAMES
from meloformer.midi.chunks import is_whole, midi_bytes, refuse_too_many_ticks
from meloformer.midi.mend import mend
from meloformer.midi.score import DRUMS, Score, make_score

Sustain = Literal["ignore", "extend"]
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
    """Read the bytes of a MIDI file: format 0, 1 or 2, also inside a RIFF wrapper (RMID), in SMPTE time, or broken.

    Of a broken file all that can be saved is read, see :func:`~meloformer.midi.mend.mend`; where notes or times may be
    lost or guessed, ``recovered`` of the score says what was wrong.

    Notes are paired first in, first out; a note that never ends is not a note. Channel 10 is drums. Where the file was
    written by :func:`~meloformer.midi.write.to_midi_bytes` with a chord marker on every bar line, chords and length
    come back as they were.

    Args:
        data: The file.
        sustain: ``extend`` lets notes that end while the pedal of their channel is down sound until it comes up, but
            not past the next note of the same pitch; ``ignore`` leaves them as they are.
    Returns:
        The score. It may have no notes, unless it was recovered.
    Raises:
        RejectError: ``empty-file``, ``not-midi``, ``bad-header``, ``too-many-ticks``; ``truncated`` or ``unreadable``
            for a broken file without a note that can be saved.
    Source: Standard MIDI Files 1.0; RP-029 for RMID.
    """
    data = midi_bytes(data)
    score, recovered, reason = _symusic_score(data) if is_whole(data) else None, None, "unreadable"
    if score is None:
        data, recovered, reason = mend(data)
        score = _symusic_score(data)
    if score is None:
        raise RejectError(reason, recovered or "the file has bytes that no reader makes sense of")
    refuse_too_many_ticks(data)
    tracks = [track for track in score.tracks if len(track.notes)]
    notes = [_notes_of(track, sustain) for track in tracks]
    programs = [DRUMS if track.is_drum else track.program for track in tracks]
    tempos, meters = score.tempos.numpy(), score.time_signatures.numpy()
    result = make_score(
        ticks_per_quarter=score.ticks_per_quarter,
        onset_ticks=_joined(notes, "time"),
        duration_ticks=_joined(notes, "duration"),
        pitch=_joined(notes, "pitch"),
        velocity=_joined(notes, "velocity"),
        program=np.repeat(np.array(programs, dtype=np.int64), [len(track["time"]) for track in notes]),
        tempos=np.stack([tempos["time"], tempos["mspq"]], axis=1),
        meters=np.stack([meters["time"], meters["numerator"], meters["denominator"]], axis=1),
        num_tracks=len(tracks),
        recovered=recovered,
    )
    if recovered and not result.num_notes:
        raise RejectError(reason, f"{recovered}; not one note can be read")
    return _with_marked_chords(result, [(marker.time, marker.text) for marker in score.markers])


def _symusic_score(data: bytes) -> Any:
    """What symusic reads; ``None`` where it refuses."""
    from symusic import Score as SymusicScore

    try:
        return SymusicScore.from_midi(data)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 (symusic raises bare RuntimeError, ValueError and others)
        return None


def _notes_of(track: Any, sustain: Sustain) -> dict[str, np.ndarray]:
    """The (N,) columns ``time``, ``duration``, ``pitch`` and ``velocity`` of a track's notes."""
    notes = track.notes.numpy()
    if sustain == "extend" and not track.is_drum:
        onset, duration, pitch = (notes[name].astype(np.int64) for name in ("time", "duration", "pitch"))
        notes["duration"] = _sustained(onset, duration, pitch, track.pedals.numpy())
    return notes


def _joined(tracks: list[dict[str, np.ndarray]], name: str) -> np.ndarray:
    """(N,) int64: one column of the notes of all tracks."""
    return np.concatenate([np.zeros(0, dtype=np.int64), *(track[name] for track in tracks)])


def _sustained(onset: np.ndarray, duration: np.ndarray, pitch: np.ndarray, pedals: dict[str, np.ndarray]) -> np.ndarray:
    """(N,) durations, lengthened to the release of a pedal that went down before the note ends.

    A pedal that goes down on the very tick where a chord ends is there for the next chord (legato pedalling).
    """
    down, held = pedals["time"].astype(np.int64), pedals["duration"].astype(np.int64)
    if not len(down) or not len(onset):
        return duration
    end = onset + duration
    pedal = np.searchsorted(down, end, side="left") - 1
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
        grid = grid_of(score, end_ticks=last + 1)
    except RejectError:
        return score
    if [tick for tick, _ in markers] != grid.start_ticks.tolist():
        return score
    return score.with_changes(chords=np.array(numbers, dtype=np.int64), end_ticks=grid.end_ticks)

"""MusicXML, Humdrum and ABC -> Score, by way of music21."""

from __future__ import annotations

import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

from meloformer.errors import RejectError
from meloformer.midi.score import DRUMS, Score, make_score

SCORE_SUFFIXES = (".xml", ".musicxml", ".mxl", ".krn", ".abc")
TICKS_PER_QUARTER = 10_080
"""2^5 * 3^2 * 5 * 7: exact for every subdivision that music21 knows (music21.defaults.divisionsPerQuarter)."""
DEFAULT_VELOCITY = 80
CHOIR_AAHS = 52
VOICE_NAMES = ("soprano", "alto", "tenor", "bass", "cantus", "altus", "bassus", "quintus", "voice", "vocal")
"""Names of parts that are sung; a part that names no instrument is otherwise a piano."""


def parse_score(path: Path) -> Score:
    """Read a score file.

    Ties become one note; grace notes and repeats are passed over; a measure shorter than its meter, such as a pickup,
    gets the meter of its true length.

    Raises:
        RejectError: ``unreadable`` where music21 cannot read it, ``several-pieces`` for a collection of tunes.
    """
    from music21 import converter, stream

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parsed = converter.parse(path)
    except Exception as error:  # noqa: BLE001 (music21 raises whatever the content provokes)
        raise RejectError("unreadable", f"music21: {type(error).__name__}: {error}"[:200]) from None
    if isinstance(parsed, stream.Opus):
        raise RejectError("several-pieces", f"the file holds {len(parsed.scores)} tunes, not one")
    parts = list(parsed.parts) if isinstance(parsed, stream.Score) else [parsed]
    columns: list[tuple[int, int, int, int, int]] = []
    for part in parts:
        columns += _notes_of(part)
    if not columns:
        raise RejectError("no-notes", "the score has no notes")
    onset, duration, pitch, velocity, program = zip(*columns, strict=True)
    return make_score(
        ticks_per_quarter=TICKS_PER_QUARTER,
        onset_ticks=onset,
        duration_ticks=duration,
        pitch=pitch,
        velocity=velocity,
        program=program,
        tempos=_tempos_of(parsed),
        meters=_meters_of(parts[0]),
        num_tracks=len(parts),
    )


def _ticks(quarters: float | Fraction) -> int:
    return round(quarters * TICKS_PER_QUARTER)


def _notes_of(part: Any) -> list[tuple[int, int, int, int, int]]:
    """(onset, duration, pitch, velocity, program) of every note of a music21 part, ties merged."""
    program = _program_of(part)
    notes: list[list[int]] = []
    open_ties: dict[int, list[int]] = {}
    for element in part.flatten().notes:
        onset, duration = _ticks(element.offset), _ticks(element.quarterLength)
        if duration <= 0 or not element.pitches:
            continue
        velocity = element.volume.velocity or DEFAULT_VELOCITY
        members = element.notes if element.isChord else [element]
        for member in members:
            pitch = member.pitch.midi
            tie = member.tie.type if member.tie else None
            before = open_ties.pop(pitch, None)
            if tie in ("continue", "stop") and before is not None and before[0] + before[1] == onset:
                before[1] += duration
                note = before
            else:
                note = [onset, duration, pitch, min(max(velocity, 1), 127), program]
                notes.append(note)
            if tie in ("start", "continue"):
                open_ties[pitch] = note
    return [tuple(note) for note in notes if 0 <= note[2] < 128]  # type: ignore[misc]


def _program_of(part: Any) -> int:
    """General MIDI program of a part: what it says, else choir for a part named like a voice, else piano."""
    instrument = part.getInstrument(returnDefault=False)
    if instrument is not None and instrument.midiProgram is not None:
        return DRUMS if instrument.midiChannel == 9 else int(instrument.midiProgram)
    name = (part.partName or "").strip()
    if any(voice in name.lower() for voice in VOICE_NAMES):
        return CHOIR_AAHS
    if name:
        from music21 import exceptions21
        from music21 import instrument as instruments

        try:
            known = instruments.fromString(name.split("(")[0].rstrip("0123456789IV. "))
        except exceptions21.Music21Exception:
            return 0
        return int(known.midiProgram or 0)
    return 0


def _meters_of(part: Any) -> list[tuple[int, int, int]]:
    """(tick, numerator, denominator) for every measure; a short measure has the meter of its true length."""
    measures = list(part.getElementsByClass("Measure"))
    if not measures:
        signatures = part.flatten().getElementsByClass("TimeSignature")
        return [(_ticks(sign.offset), sign.numerator, sign.denominator) for sign in signatures]
    meters = []
    numerator, denominator = 4, 4
    ends = [measure.offset for measure in measures[1:]] + [None]
    for measure, end in zip(measures, ends, strict=True):
        if measure.timeSignature is not None:
            numerator, denominator = measure.timeSignature.numerator, measure.timeSignature.denominator
        length = None if end is None else Fraction(end) - Fraction(measure.offset)
        if length is None or length == Fraction(4 * numerator, denominator):
            meters.append((_ticks(measure.offset), numerator, denominator))
        elif length > 0:
            true_denominator = next((d for d in (denominator, 4, 8, 16) if (length * d / 4).denominator == 1), 64)
            meters.append((_ticks(measure.offset), round(length * true_denominator / 4), true_denominator))
    return meters


def _tempos_of(parsed: Any) -> list[tuple[int, int]]:
    """(tick, microseconds per quarter) of every metronome mark."""
    tempos = []
    for mark in parsed.flatten().getElementsByClass("MetronomeMark"):
        quarters_per_minute = mark.getQuarterBPM()
        if quarters_per_minute:
            tempos.append((_ticks(mark.offset), round(60e6 / quarters_per_minute)))
    return tempos

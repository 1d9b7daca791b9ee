"""MusicXML, Humdrum and ABC -> Score, by way of music21."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from meloformer.errors import RejectError
from meloformer.midi.score import DRUMS, MAX_TEMPO_US, Score, make_score

SCORE_SUFFIXES = (".xml", ".musicxml", ".mxl", ".krn", ".abc")
TICKS_PER_QUARTER = 10_080
"""2^5 * 3^2 * 5 * 7: exact for every subdivision that music21 knows (music21.defaults.divisionsPerQuarter)."""
DEFAULT_VELOCITY = 80
CHOIR_AAHS = 52
VOICE_NAMES = ("soprano", "alto", "tenor", "bass", "cantus", "altus", "bassus", "quintus", "voice", "vocal")
"""Names of parts that are sung; a part that names no instrument is otherwise a piano."""
SIXTEENTH = Fraction(1, 4)
"""In quarters; the finest length that a bar of HID can have."""

Note = list[int]
"""[onset ticks, duration ticks, pitch, velocity, program]."""


@dataclass(frozen=True)
class Measure:
    """One measure of all parts, in quarters."""

    start: Fraction
    length: Fraction
    nominal: tuple[int, int]
    """The meter in force."""

    @property
    def meter(self) -> tuple[int, int]:
        """The meter of its true length: a pickup of one quarter in 4/4 is 1/4."""
        numerator, denominator = self.nominal
        if self.length == Fraction(4 * numerator, denominator):
            return self.nominal
        denominator = next(d for d in (denominator, 4, 8, 16) if (self.length * d / 4).denominator == 1)
        return int(self.length * denominator / 4), denominator


def parse_score(path: Path) -> Score:
    """Read a score file.

    Ties become one note, transposing instruments sound as they do, grace notes and repeats are passed over. A measure
    shorter than its meter, such as a pickup, gets the meter of its true length.

    Raises:
        RejectError: ``unreadable`` where music21 cannot read it, ``several-pieces`` for a collection of tunes,
            ``no-notes`` where it has none.
    """
    from music21 import converter

    # music21's own pickles in the temporary folder are neither read nor written.
    return _to_score(lambda: converter.parse(path, forceSource=True, storePickle=False))


def parse_abc(data: bytes) -> Score:
    """Read the text of one ABC tune; otherwise as :func:`parse_score`."""
    from music21 import converter

    return _to_score(lambda: converter.parseData(data.decode("utf-8", errors="replace"), format="abc"))


def _to_score(parse: Callable[[], Any]) -> Score:
    from music21 import stream

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parsed = parse()
            if isinstance(parsed, stream.Score) and any(part.atSoundingPitch is False for part in parsed.parts):
                parsed.toSoundingPitch(inPlace=True)
    except Exception as error:  # noqa: BLE001 (music21 raises whatever the content provokes)
        raise RejectError("unreadable", f"music21: {type(error).__name__}: {error}"[:200]) from None
    if isinstance(parsed, stream.Opus):
        raise RejectError("several-pieces", f"the file holds {len(parsed.scores)} tunes, not one")
    parts = list(parsed.parts) or [parsed]
    measures = _common_measures(parts)
    notes = [tuple(note) for part in parts for note in _notes_of(part, measures)]
    if not notes:
        raise RejectError("no-notes", "the score has no notes")
    onset, duration, pitch, velocity, program = zip(*notes, strict=True)
    if measures is not None:
        marked = [(_ticks(measure.start), *measure.meter) for measure in measures]
        meters = marked[:1] + [after for before, after in pairwise(marked) if after[1:] != before[1:]]
    else:
        signatures = parts[0].flatten().getElementsByClass("TimeSignature")
        meters = [(_ticks(sign.offset), sign.numerator, sign.denominator) for sign in signatures]
    return make_score(
        ticks_per_quarter=TICKS_PER_QUARTER,
        onset_ticks=onset,
        duration_ticks=duration,
        pitch=pitch,
        velocity=velocity,
        program=program,
        tempos=_tempos_of(parsed, measures),
        meters=meters,
        num_tracks=len(parts),
    )


def _ticks(quarters: float | Fraction) -> int:
    return round(quarters * TICKS_PER_QUARTER)


def _common_measures(parts: Sequence[Any]) -> list[Measure] | None:
    """The measures that all parts share, or ``None`` where a part has no measures or another number of them.

    In real files a measure is often a little too long or too short in one part (a tuplet that does not add up, a
    forgotten rest), and music21 lets that part drift from there on. So every measure is as long as it is in most parts,
    of equals as its meter says, and all parts begin it together.
    """
    rows = [list(part.getElementsByClass("Measure")) for part in parts]
    if not rows[0] or len({len(row) for row in rows}) != 1:
        return None
    nominal, meters = (4, 4), []
    for measure in rows[0]:
        if measure.timeSignature is not None:
            nominal = (measure.timeSignature.numerator, measure.timeSignature.denominator)
        meters.append(nominal)
    lengths = []
    for number, (numerator, denominator) in enumerate(meters):
        full = Fraction(4 * numerator, denominator)
        votes = Counter(_length_of(row, number, full) for row in rows)
        lengths.append(max(votes, key=lambda length: (votes[length], length == full, length)))
    starts = [Fraction(0), *accumulate(lengths)]
    return [Measure(*fields) for fields in zip(starts, lengths, meters, strict=False)]


def _length_of(measures: Sequence[Any], number: int, full: Fraction) -> Fraction:
    """Length of one part's measure in quarters, rounded up to sixteenths; the last one is full at the least."""
    if number + 1 < len(measures):
        length = Fraction(measures[number + 1].offset) - Fraction(measures[number].offset)
    else:
        length = max(Fraction(measures[number].highestTime), full)
    return full if length <= 0 or length == full else -(-length // SIXTEENTH) * SIXTEENTH


def _placed_elements(part: Any, measures: list[Measure] | None, kind: str) -> Iterator[tuple[Fraction, Any]]:
    """(onset in quarters, element) of everything of a music21 class in a part."""
    if measures is None:
        for element in part.flatten().getElementsByClass(kind):
            yield Fraction(element.offset), element
        return
    for measure, placed in zip(part.getElementsByClass("Measure"), measures, strict=True):
        for element in measure.flatten().getElementsByClass(kind):
            yield placed.start + Fraction(element.offset), element


def _notes_of(part: Any, measures: list[Measure] | None) -> list[Note]:
    """Every note of a music21 part, ties merged."""
    notes: list[Note] = []
    open_ties: dict[int, Note] = {}
    instrument = part.getInstrument(returnDefault=False)
    program = _program_of(instrument, part.partName)
    drum = instrument if getattr(instrument, "percMapPitch", None) else _instrument_named(part.partName)
    for quarters, element in _placed_elements(part, measures, "NotRest"):
        onset, duration = _ticks(quarters), _ticks(element.quarterLength)
        if duration <= 0 or element.classes[0] == "ChordSymbol":
            continue
        velocity = min(max(element.volume.velocity or DEFAULT_VELOCITY, 1), 127)
        for member in getattr(element, "notes", (element,)):
            note = _note_of(member, drum, [onset, duration, 0, velocity, program])
            if note is None:
                continue
            tie = member.tie.type if member.tie else None
            before = open_ties.pop(note[2], None)
            if tie in ("continue", "stop") and before is not None and before[0] + before[1] == onset:
                before[1] += duration
                note = before
            else:
                notes.append(note)
            if tie in ("start", "continue"):
                open_ties[note[2]] = note
    return notes


def _note_of(member: Any, drum: Any, note: Note) -> Note | None:
    """``note`` with its pitch; a note without one is a hit of its instrument where that has a key, and else no note."""
    if hasattr(member, "pitch"):
        note[2] = member.pitch.midi
    else:
        note[2] = getattr(getattr(member, "storedInstrument", None) or drum, "percMapPitch", None) or -1
        note[4] = DRUMS
    return note if 0 <= note[2] < 128 else None


def _program_of(instrument: Any, part_name: str | None) -> int:
    """General MIDI program of a part: what it says, else choir for a part named like a voice, else piano."""
    if instrument is not None and instrument.midiChannel == 9:
        return DRUMS
    if instrument is not None and instrument.midiProgram is not None:
        return int(instrument.midiProgram)
    if any(voice in (part_name or "").lower() for voice in VOICE_NAMES):
        return CHOIR_AAHS
    named = _instrument_named(part_name)
    return int(named.midiProgram or 0) if named is not None else 0


def _instrument_named(part_name: str | None) -> Any:
    """The instrument that music21 knows under the name of a part, such as ``Violin II``, or ``None``."""
    from music21 import exceptions21
    from music21 import instrument as instruments

    name = (part_name or "").split("(")[0].rstrip("0123456789IV. ")
    try:
        return instruments.fromString(name) if name else None
    except exceptions21.Music21Exception:
        return None


def _tempos_of(parsed: Any, measures: list[Measure] | None) -> list[tuple[int, int]]:
    """(tick, microseconds per quarter) of every metronome mark."""
    tempos = []
    parts = list(parsed.parts) or [parsed]
    marks = [placed for part in parts for placed in _placed_elements(part, measures, "MetronomeMark")]
    marks += [(Fraction(mark.offset), mark) for mark in parsed.getElementsByClass("MetronomeMark")]
    for quarters, mark in marks:
        quarters_per_minute = mark.getQuarterBPM()
        if quarters_per_minute:
            tempos.append((_ticks(quarters), min(round(60e6 / quarters_per_minute), MAX_TEMPO_US)))
    return tempos

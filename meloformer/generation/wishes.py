"""What people wish for, read as they write it and checked against what the vocabulary can say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from meloformer.errors import GenerationError
from meloformer.midi.chords import CHORD_NAMES, QUALITIES, ROOTS
from meloformer.midi.programs import programs_of
from meloformer.settings import GenerationSettings
from meloformer.tokens.grid import METER_NUMBER, nearest_tempo
from meloformer.tokens.vocabulary import FIRST_ID, TokenType, Vocabulary

MIDDLE_C = 60
"""Of ``C4``; MIDI names no octave, this is the commonest count."""
_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_SHORT_QUALITIES = {
    "": "maj", "m": "min", "M7": "maj7", "m7": "min7", "m6": "min6", "M9": "maj9", "m9": "min9",
    "m7b5": "hdim7", "min7b5": "hdim7", "ø": "hdim7", "ø7": "hdim7", "°": "dim", "°7": "dim7", "+": "aug",
    "sus": "sus4",
}  # fmt: skip
_MOST_NAMED = 24
"""Tokens that an error lists."""


@dataclass(frozen=True)
class Wishes:
    """What the new music must be.

    ``instruments`` holds one set of programs for every wished name: only these play, and of each set at least one
    keeps playing.
    """

    bars: int
    """Of the whole piece."""
    max_rest: int
    """Bars in a row in which a wished instrument that has begun may be silent."""
    tempo: int | None = None
    """Tempo bin."""
    meters: tuple[tuple[int, int], ...] = ()
    """From which bar on (counted from 0) which meter number holds; before the first the model chooses."""
    chords: tuple[int, ...] = ()
    """Chord numbers, one a bar and over again from the first new bar on; none where the model chooses."""
    instruments: tuple[frozenset[int], ...] | None = None
    max_polyphony: int | None = None
    """Notes of one instrument that sound at once."""
    pitch_range: tuple[int, int] | None = None
    """Lowest and highest pitch; drums are exempt."""
    density: float | None = None
    """Notes of an instrument in a bar that are aimed at."""
    max_notes_per_bar: int = 256


def make_wishes(vocabulary: Vocabulary, settings: GenerationSettings, *, bars: int | None = None) -> Wishes:
    """Read the wishes among the settings.

    Args:
        vocabulary: Of the model.
        settings: What is wished for.
        bars: Of the piece, where these are not ``settings.bars``.
    Raises:
        GenerationError: HID or the vocabulary cannot say it, or no music fulfils it.
        SettingsError: An instrument's name is unknown.
    """
    bars = bars or settings.bars
    tempo_bin = None
    if settings.tempo is not None:
        tempo_bin = int(nearest_tempo(np.array([60e6 / settings.tempo]))[0])
        _require(vocabulary, TokenType.TEMPO, [tempo_bin], f"tempo {settings.tempo:g}")
    return Wishes(
        bars=bars,
        max_rest=settings.max_rest,
        tempo=tempo_bin,
        meters=() if settings.meter is None else _meters(settings.meter, vocabulary, bars),
        chords=() if settings.chords is None else _chords(settings.chords, vocabulary),
        instruments=None if settings.instruments is None else programs_named(settings.instruments, vocabulary),
        max_polyphony=settings.max_polyphony,
        pitch_range=None if settings.pitch_range is None else _pitch_range(settings.pitch_range, vocabulary),
        density=settings.density,
        max_notes_per_bar=settings.max_notes_per_bar,
    )


def programs_named(names: str, vocabulary: Vocabulary) -> tuple[frozenset[int], ...]:
    """The programs of each of several names with commas between; those that the vocabulary has, at least one.

    Raises:
        GenerationError: There is no name, or the vocabulary has none of its programs.
        SettingsError: A name is unknown.
    """
    first, found = FIRST_ID[TokenType.INSTRUMENT], []
    known = set(vocabulary.canonical.tolist())
    for name in (part.strip() for part in names.split(",")):
        if name:
            programs = programs_of(name)
            _require(vocabulary, TokenType.INSTRUMENT, programs, name)
            found.append(frozenset(program for program in programs if first + program in known))
    if not found:
        raise GenerationError(f"instruments {names!r} names none", "write for example drums,bass,piano")
    return tuple(found)


def bar_range(text: str, num_bars: int) -> tuple[int, int]:
    """``9-16`` or ``9``, counted from 1 -> first and last bar, counted from 0.

    Raises:
        GenerationError: It is no range, or not of these bars.
    """
    match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last:
        raise GenerationError(f"bars {text!r} are no range", "write for example 9-16, counted from 1")
    if last > num_bars:
        raise GenerationError(f"bars {text!r} are not all there: the piece has {num_bars}", "name earlier ones")
    return first - 1, last - 1


def _require(vocabulary: Vocabulary, token_type: TokenType, values: Sequence[int], what: str) -> None:
    """Raise ``GenerationError`` where the vocabulary has none of these tokens."""
    if np.isin(FIRST_ID[token_type] + np.asarray(values), vocabulary.canonical).any():
        return
    have = [vocabulary.names[i] for i in np.flatnonzero(vocabulary.types == token_type)]
    more = f" and {len(have) - _MOST_NAMED} more" if len(have) > _MOST_NAMED else ""
    raise GenerationError(f"the model's vocabulary has no {what}", f"it has {', '.join(have[:_MOST_NAMED])}{more}")


def _meters(text: str, vocabulary: Vocabulary, bars: int) -> tuple[tuple[int, int], ...]:
    """``3/4``, or ``1:4/4 9:3/4``: from which bar on which meter."""
    found: list[tuple[int, int]] = []
    for part in re.split(r"[\s,]+", text.strip()):
        at, colon, meter = part.rpartition(":")
        numerator, _, denominator = meter.partition("/")
        pair = (int(numerator), int(denominator)) if numerator.isdecimal() and denominator.isdecimal() else None
        if pair not in METER_NUMBER:
            raise GenerationError(
                f"the meter {meter!r} cannot be written", "give n/d with d of 1 2 4 8 16 and at most 8 quarters a bar"
            )
        bar = int(at) if at.isdecimal() else 0 if colon else 1
        if bar < 1 or (found and bar - 1 <= found[-1][0]):
            raise GenerationError(
                f"the meters {text!r} do not name rising bars", "write for example 1:4/4 9:3/4, counted from 1"
            )
        if bar > bars:
            raise GenerationError(f"the meter {part!r} lies past the piece's {bars} bars", "name an earlier bar")
        _require(vocabulary, TokenType.METER, [METER_NUMBER[pair]], f"meter {meter}")
        found.append((bar - 1, METER_NUMBER[pair]))
    return tuple(found)


def _chords(text: str, vocabulary: Vocabulary) -> tuple[int, ...]:
    """``C:maj A:min`` -> chord numbers."""
    found = [_chord(name) for name in re.split(r"[\s,|]+", text.strip()) if name]
    if not found:
        raise GenerationError(f"chords {text!r} name none", 'write for example "C:maj A:min F:maj G:7"')
    for number in found:
        _require(vocabulary, TokenType.CHORD, [number], f"chord {CHORD_NAMES[number]}")
    return tuple(found)


def _chord(name: str) -> int:
    """Number of a chord, also of ``Am``, ``G7`` or ``Db:maj``."""
    if name in CHORD_NAMES:
        return CHORD_NAMES.index(name)
    match = re.fullmatch(r"([A-G])([#b]?):?(.*)", name)
    if match is None:
        raise GenerationError(f"there is no chord {name!r}", 'write "C:maj", "Am", "Dm7b5" or the like, or N for none')
    quality = match[3] if match[3] in QUALITIES else _SHORT_QUALITIES.get(match[3])
    if quality is None:
        over_bass = re.fullmatch(r"(.*)/[A-G][#b]?", match[3])
        if over_bass and (over_bass[1] in QUALITIES or over_bass[1] in _SHORT_QUALITIES):
            without = name.partition("/")[0]
            raise GenerationError(f"there is no chord {name!r}", f"chords name no bass: write {without!r}")
        close = get_close_matches(match[3], QUALITIES, n=1)
        guess = f"did you mean {match[1]}{match[2]}:{close[0]}? " if close else ""
        raise GenerationError(f"there is no chord {name!r}", f"{guess}the qualities are {' '.join(QUALITIES)}")
    root = (_SEMITONES[match[1]] + {"": 0, "#": 1, "b": -1}[match[2]]) % 12
    return CHORD_NAMES.index(f"{ROOTS[root]}:{quality}")


def _pitch_range(text: str, vocabulary: Vocabulary) -> tuple[int, int]:
    """``36-84`` or ``C2-C6``: lowest and highest pitch."""
    pitch = r"(\d+|[A-Ga-g][#b]?-?\d+)"
    match = re.fullmatch(rf"\s*{pitch}\s*-\s*{pitch}\s*", text)
    if match is None:
        raise GenerationError(
            f"the pitch range {text!r} is none", "write lowest-highest, such as 36-84 or C2-C6 (C4 is 60)"
        )
    low, high = (_pitch(part) for part in match.groups())
    if low > high or not 0 <= low <= 127 or high > 127:
        raise GenerationError(f"the pitch range {text!r} holds no pitch", "give lowest-highest within 0-127")
    _require(vocabulary, TokenType.PITCH, range(low, high + 1), f"pitch in {text}")
    return low, high


def _pitch(text: str) -> int:
    if text.isdecimal():
        return int(text)
    match = re.fullmatch(r"([A-G])([#b]?)(-?\d+)", text.capitalize())
    assert match is not None
    semitone = _SEMITONES[match[1]] + {"": 0, "#": 1, "b": -1}[match[2]]
    return MIDDLE_C + semitone + 12 * (int(match[3]) - 4)

"""What each instrument plays: how many notes at once, and how high and low."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from meloformer.evaluation.pieces import Piece
from meloformer.midi.bars import is_empty
from meloformer.midi.programs import program_name
from meloformer.midi.score import DRUMS


def polyphony(piece: Piece, program: int) -> float:
    """Mean number of notes of an instrument that sound at once, over the steps at which one does.

    Returns:
        At least 1; NaN where it does not play.
    Source: Dong et al., "MusPy", ISMIR 2020, arXiv:2008.01951 (polyphony), of one instrument.
    """
    own = piece.program == program
    onset, end = piece.onset[own], piece.onset[own] + piece.duration[own]
    if not len(onset):
        return float("nan")
    change = np.bincount(onset, minlength=int(end.max()) + 1) - np.bincount(end)
    sounding = change.cumsum()
    return float(sounding[sounding > 0].mean())


def pitch_range(piece: Piece, program: int) -> tuple[float, float]:
    """Lowest and highest pitch of an instrument; NaN where it does not play.

    Source: Dong et al., "MusPy", ISMIR 2020, arXiv:2008.01951 (pitch range), of one instrument.
    """
    pitch = piece.pitch[piece.program == program]
    return (float(pitch.min()), float(pitch.max())) if len(pitch) else (float("nan"), float("nan"))


def mean_polyphony(piece: Piece) -> float:
    """Mean of :func:`polyphony` over the pitched instruments of a piece; NaN without one."""
    values = [polyphony(piece, program) for program in piece.programs if program != DRUMS]
    return float(np.mean(values)) if values else float("nan")


def mean_range(piece: Piece) -> float:
    """Mean over the pitched instruments of a piece of the semitones from lowest to highest; NaN without one."""
    bounds = [pitch_range(piece, program) for program in piece.programs if program != DRUMS]
    return float(np.mean([high - low for low, high in bounds])) if bounds else float("nan")


def num_passing(piece: Piece) -> float:
    """Number of instruments that begin notes in fewer than an eighth of the bars: those that come by, and go again.

    NaN for pieces of up to eight bars, in which there can be none.
    """
    if piece.num_bars <= 8:
        return float("nan")
    bars_of = np.unique(np.stack([piece.program, piece.bar]), axis=1)[0]
    _, num_bars = np.unique(bars_of, return_counts=True)
    return float((num_bars < piece.num_bars / 8).sum())


def instrument_changes(piece: Piece) -> float:
    """Number of instruments that come in or drop out from one bar to the next, mean over the bar lines of a piece.

    An instrument is there in the bars in which a note of it sounds. NaN for pieces of one bar.
    """
    if piece.num_bars == 1:
        return float("nan")
    of_programs = [piece.program == program for program in piece.programs]
    silent = [is_empty(piece.onset[own], piece.end[own], piece.bar_edges) for own in of_programs]
    return sum(float((each[1:] != each[:-1]).sum()) for each in silent) / (piece.num_bars - 1)


@dataclass(frozen=True)
class InstrumentFigures:
    """How one instrument is played in a set of pieces."""

    program: int
    name: str
    pieces: int
    """In which it plays."""
    notes: int
    polyphony: float
    """Mean over those pieces."""
    lowest: float
    highest: float
    """Medians over those pieces, MIDI pitches."""

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        rounded = {name: round(getattr(self, name), 3) for name in ("polyphony", "lowest", "highest")}
        return {**asdict(self), **rounded}


def instruments_of(pieces: Sequence[Piece]) -> list[InstrumentFigures]:
    """Every instrument, the one in most pieces first."""
    played: dict[int, list[Piece]] = {}
    for piece in pieces:
        for program in piece.programs:
            played.setdefault(program, []).append(piece)
    figures = [
        InstrumentFigures(
            program=program,
            name=program_name(program),
            pieces=len(with_it),
            notes=sum(int((piece.program == program).sum()) for piece in with_it),
            polyphony=float(np.mean([polyphony(piece, program) for piece in with_it])),
            lowest=float(np.median([pitch_range(piece, program)[0] for piece in with_it])),
            highest=float(np.median([pitch_range(piece, program)[1] for piece in with_it])),
        )
        for program, with_it in played.items()
    ]
    return sorted(figures, key=lambda one: (-one.pieces, one.program))

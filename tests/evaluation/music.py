"""Pieces written down by hand, and pieces at random."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from meloformer.evaluation.pieces import Piece, pieces_of
from meloformer.midi.score import make_score
from meloformer.tokens.quantise import quantise
from meloformer.tokens.vocabulary import Vocabulary
from tests.strategies import documents

Note = tuple[int, int, int, int]
"""Onset and duration in steps of a twelfth of a quarter, pitch, program."""


def piece_of(
    notes: Sequence[Note],
    *,
    bars: int,
    chords: Sequence[int] | None = None,
    meters: Sequence[tuple[int, int, int]] = ((0, 4, 4),),
    velocity: int = 80,
) -> Piece:
    """A piece of so many bars; a bar of 4/4 has 48 steps."""
    columns = np.array(notes, dtype=np.int64).reshape(-1, 4).T
    score = make_score(
        ticks_per_quarter=12,
        onset_ticks=columns[0],
        duration_ticks=columns[1],
        pitch=columns[2],
        program=columns[3],
        velocity=np.full(len(columns[0]), velocity),
        meters=meters,
        end_ticks=48 * bars,
        chords=chords,
    )
    return Piece.of(quantise(score))


@st.composite
def pieces(draw: st.DrawFn, *, max_bars: int = 6, max_tokens: int = 120) -> Piece:
    """Any piece that HID can write."""
    ids = draw(documents(max_bars=max_bars, max_tokens=max_tokens))
    return pieces_of([ids], Vocabulary.default())[0]


def moved(piece: Piece, semitones: int) -> Piece:
    """In another key; drums and chords stay."""
    columns = np.where(piece.is_pitched, piece.pitch + semitones, piece.pitch)
    return Piece(
        onset=piece.onset,
        duration=piece.duration,
        pitch=columns,
        velocity=piece.velocity,
        program=piece.program,
        bar=piece.bar,
        bar_edges=piece.bar_edges,
        chord=piece.chord,
    )

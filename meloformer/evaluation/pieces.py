"""Pieces as columns of numbers, from MIDI files or from shards: what all metrics read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from meloformer.errors import InputError, RejectError
from meloformer.midi.bars import grid_of
from meloformer.midi.score import DRUMS, Score, ending_with_its_bars
from meloformer.midi.sources import find_sources, parse_source, read_bytes
from meloformer.tokens.decode import decode
from meloformer.tokens.quantise import quantise
from meloformer.tokens.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class Piece:
    """One piece on the grid of HID, 12 steps a quarter; N notes in the order (onset, program, pitch), B bars."""

    onset: np.ndarray
    """(N,) int64, in steps from the start of the piece; the next four columns likewise."""
    duration: np.ndarray
    """In steps; a note that would ring past the last bar ends with it."""
    pitch: np.ndarray
    velocity: np.ndarray
    program: np.ndarray
    """0-127, or ``DRUMS``."""
    bar: np.ndarray
    """(N,) number of the bar in which the note starts."""
    bar_edges: np.ndarray
    """(B + 1,) start of every bar and, last, the end of the piece, in steps."""
    chord: np.ndarray
    """(B,) chord number of every bar, see ``midi.chords.CHORD_NAMES``."""
    name: str = ""

    @classmethod
    def of(cls, score: Score, name: str = "") -> Piece:
        """From a score.

        Args:
            score: A quantised one, with a chord for every bar.
            name: Of its file.
        """
        assert score.chords is not None
        score = ending_with_its_bars(score)
        bars = grid_of(score)
        return cls(
            onset=score.onset_ticks,
            duration=score.duration_ticks,
            pitch=score.pitch,
            velocity=score.velocity,
            program=score.program,
            bar=np.searchsorted(bars.start_ticks, score.onset_ticks, side="right") - 1,
            bar_edges=np.append(bars.start_ticks, bars.end_ticks),
            chord=np.asarray(score.chords),
            name=name,
        )

    @property
    def num_notes(self) -> int:
        """Drum hits included."""
        return len(self.pitch)

    @property
    def num_bars(self) -> int:
        """B."""
        return len(self.chord)

    @cached_property
    def end(self) -> np.ndarray:
        """(N,) where each note ends, in steps from the start of the piece; it sounds for a step at least."""
        return self.onset + np.maximum(self.duration, 1)

    @cached_property
    def is_pitched(self) -> np.ndarray:
        """(N,) bool: not drums."""
        return self.program != DRUMS

    @cached_property
    def onset_in_bar(self) -> np.ndarray:
        """(N,) steps from the start of the note's bar."""
        return self.onset - self.bar_edges[self.bar]

    @property
    def programs(self) -> list[int]:
        """Who plays, ascending."""
        return np.unique(self.program).tolist()


def pieces_of(documents: Iterable[np.ndarray], vocabulary: Vocabulary) -> list[Piece]:
    """Pieces from (T,) ids each.

    Raises:
        GrammarError: Ids are no document.
    """
    return [Piece.of(decode(ids, vocabulary), str(number)) for number, ids in enumerate(documents)]


@dataclass(frozen=True)
class ReadPieces:
    """What a folder held."""

    pieces: list[Piece]
    rejected: dict[str, str]
    """Name -> why it could not be read."""


def read_pieces(sources: Sequence[str | Path], *, max_bytes: int) -> ReadPieces:
    """The pieces in folders or files. What cannot be read is told, and left out.

    Args:
        sources: As ``find_sources`` takes them.
        max_bytes: Larger files are not read.
    Raises:
        InputError: There is no music, or none of it can be read.
    """
    pieces: list[Piece] = []
    rejected: dict[str, str] = {}
    for source in find_sources(sources):
        try:
            score = quantise(parse_source(source, read_bytes(source, max_bytes=max_bytes)))
        except RejectError as error:
            rejected[source.name] = str(error)
        else:
            pieces.append(Piece.of(score, source.name))
    if not pieces:
        name, reason = next(iter(rejected.items()))
        raise InputError(f"none of {len(rejected)} files can be read, such as {name}: {reason}")
    return ReadPieces(pieces, rejected)

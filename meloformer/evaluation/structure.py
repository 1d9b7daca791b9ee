"""All metrics of a set of pieces, and how far they are from those of the corpus."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from meloformer.evaluation.copies import CopyIndex, Reading
from meloformer.evaluation.distributions import DISTRIBUTIONS, overlapped_area
from meloformer.evaluation.harmony import chord_share, pitch_class_entropy
from meloformer.evaluation.pieces import Piece
from meloformer.evaluation.rhythm import empty_bar_share, groove_consistency
from meloformer.evaluation.similarity import similarity_curve, similarity_error
from meloformer.evaluation.texture import (
    InstrumentFigures,
    instrument_changes,
    instruments_of,
    mean_polyphony,
    mean_range,
    num_passing,
)

PIECE_METRICS: dict[str, Callable[[Piece], float]] = {
    "pitch_class_entropy_1_bar": lambda piece: pitch_class_entropy(piece, 1),
    "pitch_class_entropy_4_bars": lambda piece: pitch_class_entropy(piece, 4),
    "pitch_class_entropy_16_bars": lambda piece: pitch_class_entropy(piece, 16),
    "groove_consistency": groove_consistency,
    "chord_share": chord_share,
    "empty_bar_share": empty_bar_share,
    "polyphony": mean_polyphony,
    "range_semitones": mean_range,
    "notes_per_bar": lambda piece: piece.num_notes / piece.num_bars,
    "instruments": lambda piece: float(len(piece.programs)),
    "passing_instruments": num_passing,
    "instrument_changes": instrument_changes,
}
"""Name -> figure of one piece; NaN where the piece has nothing to say."""
READINGS: tuple[Reading, ...] = ("texture", "line", "line without repeats")


@dataclass(frozen=True)
class Spread:
    """A metric over pieces."""

    mean: float
    deviation: float
    """Standard deviation between pieces."""

    @classmethod
    def of(cls, values: np.ndarray) -> Spread:
        """Of those that are numbers; NaN where none is."""
        known = values[~np.isnan(values)]
        return cls(float(known.mean()), float(known.std())) if len(known) else cls(math.nan, math.nan)


@dataclass(frozen=True)
class SetFigures:
    """A set of pieces."""

    num_pieces: int
    num_bars: int
    num_notes: int
    metrics: dict[str, Spread]
    """By the names of ``PIECE_METRICS``."""
    similarity: np.ndarray
    """(40,) L_t for t = 1 on."""
    distributions: dict[str, np.ndarray]
    """By the names of ``DISTRIBUTIONS``."""
    instruments: list[InstrumentFigures]

    @classmethod
    def of(cls, pieces: Sequence[Piece]) -> SetFigures:
        """Measure pieces, at least one."""
        return cls(
            num_pieces=len(pieces),
            num_bars=sum(piece.num_bars for piece in pieces),
            num_notes=sum(piece.num_notes for piece in pieces),
            metrics={
                name: Spread.of(np.array([metric(piece) for piece in pieces])) for name, metric in PIECE_METRICS.items()
            },
            similarity=similarity_curve(pieces),
            distributions={name: shares(pieces) for name, (shares, _) in DISTRIBUTIONS.items()},
            instruments=instruments_of(pieces),
        )

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "pieces": self.num_pieces,
            "bars": self.num_bars,
            "notes": self.num_notes,
            **{
                name: {"mean": number(spread.mean), "deviation": number(spread.deviation)}
                for name, spread in self.metrics.items()
            },
            "similarity": [number(value) for value in self.similarity.tolist()],
            "distributions": {
                name: dict(zip(DISTRIBUTIONS[name][1], [round(share, 5) for share in shares.tolist()], strict=True))
                for name, shares in self.distributions.items()
            },
            "by_instrument": [instrument.to_dict() for instrument in self.instruments],
        }


def number(value: float, places: int = 5) -> float | None:
    """Rounded; ``None``, which JSON has, for NaN, which it has not."""
    return None if math.isnan(value) else round(value, places)


@dataclass(frozen=True)
class Comparison:
    """A set of pieces beside the corpus."""

    figures: SetFigures
    similarity_error: float
    """Against the corpus, 0-1; NaN where there is nothing to compare."""
    overlap: dict[str, float]
    """Overlapped area with the corpus, by the names of ``DISTRIBUTIONS``."""
    copies: dict[Reading, np.ndarray]
    """Reading -> (P,) notes in the longest run of every piece that also stands in the training set."""
    names: list[str]
    """(P,) of the pieces."""

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            **self.figures.to_dict(),
            "similarity_error": number(self.similarity_error),
            "overlap": {name: round(area, 5) for name, area in self.overlap.items()},
            "copies": {
                reading: {
                    "longest": int(runs.max()),
                    "median": float(np.median(runs)),
                    "by_piece": dict(zip(self.names, runs.tolist(), strict=True)),
                }
                for reading, runs in self.copies.items()
            },
        }


SetName = Literal["generated", "held_out"]


def compare(
    sets: dict[SetName, Sequence[Piece]], corpus: Sequence[Piece]
) -> tuple[dict[SetName, Comparison], SetFigures]:
    """Measure sets of pieces and the corpus, and each set against the corpus.

    Args:
        sets: Name -> pieces, at least one each.
        corpus: The training set.
    """
    reference = SetFigures.of(corpus)
    indices: dict[Reading, CopyIndex] = {reading: CopyIndex(corpus, reading) for reading in READINGS}
    compared: dict[SetName, Comparison] = {}
    for name, pieces in sets.items():
        figures = SetFigures.of(pieces)
        copies: dict[Reading, np.ndarray] = {reading: index.longest_runs(pieces) for reading, index in indices.items()}
        compared[name] = Comparison(
            figures=figures,
            similarity_error=similarity_error(figures.similarity, reference.similarity),
            overlap={
                kind: overlapped_area(shares, reference.distributions[kind])
                for kind, shares in figures.distributions.items()
            },
            copies=copies,
            names=[piece.name for piece in pieces],
        )
    return compared, reference

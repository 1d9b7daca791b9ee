"""How often chords, durations and velocities occur, and how much two such distributions overlap."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from meloformer.evaluation.pieces import Piece
from meloformer.midi.chords import NO_CHORD, QUALITIES
from meloformer.tokens.grid import DURATION_STEPS, NUM_VELOCITY_BINS, velocity_bin

CHORD_LABELS = ("N", *QUALITIES)
DURATION_LABELS = tuple(str(steps) for steps in DURATION_STEPS.tolist())
VELOCITY_LABELS = tuple(str(number) for number in range(NUM_VELOCITY_BINS))


def overlapped_area(shares: np.ndarray, reference: np.ndarray) -> float:
    """What two distributions have in common: the sum of the smaller of both shares, 0 (nothing) to 1 (equal).

    Args:
        shares, reference: (K,) shares that sum to 1, or all 0, which overlap with nothing.
    Source: Yang and Lerch, "On the Evaluation of Generative Models in Music", Neural Computing and Applications 32
        (2020); over the notes of all pieces together as in Ren et al., "PopMAG", arXiv:2008.07703.
    """
    return float(np.minimum(shares, reference).sum())


def chord_shares(pieces: Sequence[Piece]) -> np.ndarray:
    """(19,) share of the bars with no chord and with a chord of each of ``QUALITIES``, whatever its root."""
    chord = np.concatenate([piece.chord for piece in pieces])
    quality = np.where(chord == NO_CHORD, 0, 1 + (chord - 1) % len(QUALITIES))
    return _shares(quality, len(CHORD_LABELS))


def duration_shares(pieces: Sequence[Piece]) -> np.ndarray:
    """(42,) share of the pitched notes with each length of the table of HID; in between, the next shorter one."""
    duration = np.concatenate([piece.duration[piece.is_pitched] for piece in pieces])
    place = np.searchsorted(DURATION_STEPS, np.maximum(duration, 1), side="right") - 1
    return _shares(place, len(DURATION_STEPS))


def velocity_shares(pieces: Sequence[Piece]) -> np.ndarray:
    """(32,) share of the notes, drum hits included, in each bin of velocity."""
    return _shares(velocity_bin(np.concatenate([piece.velocity for piece in pieces])), NUM_VELOCITY_BINS)


def _shares(values: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(values, minlength=size) / max(len(values), 1)


DISTRIBUTIONS: dict[str, tuple[Callable[[Sequence[Piece]], np.ndarray], tuple[str, ...]]] = {
    "chords": (chord_shares, CHORD_LABELS),
    "durations": (duration_shares, DURATION_LABELS),
    "velocities": (velocity_shares, VELOCITY_LABELS),
}
"""Name -> function of pieces, and what its places are called."""

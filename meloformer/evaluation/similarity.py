"""How a piece repeats itself: the similarity of bars that lie so many bars apart.

Source: Yu et al., "Museformer: Transformer with Fine- and Coarse-Grained Attention for Music Generation", NeurIPS 2022,
section 4.2. What it leaves open is decided here:

- A bar is all its notes, of all instruments together. Two notes are equal if *instrument*, pitch, duration and onset
  in the bar are; so a track that is silent in a bar adds nothing to the bar and takes nothing from it, and a piece is
  not the more similar to itself the more of its tracks are silent. Velocity does not count.
- Of two empty bars nothing can be said (0 / 0): the pair is left out. Silence is no structure. An empty bar beside
  one with notes has similarity 0.
- Every piece weighs the same, however long: its mean over the pairs of bars t apart comes first, then the mean over
  the pieces that have such a pair. A piece of 32 bars says something about t = 1 to 31; the error is the mean over
  those t, up to 40, for which both sides say something.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from meloformer.evaluation.pieces import Piece

MAX_DISTANCE = 40
"""Bars; as in the paper."""


def bar_similarity(piece: Piece, max_distance: int = MAX_DISTANCE) -> np.ndarray:
    """Mean similarity of the bars of a piece that lie t apart.

    The similarity of two bars is the number of notes that they share over the number of notes that one of them has.

    Args:
        piece: B bars.
        max_distance: Largest t.
    Returns:
        (max_distance,) for t = 1 on, 0-1; NaN where the piece has no two bars so far apart of which one has notes.
    """
    columns = np.stack([piece.program, piece.pitch, piece.duration, piece.onset_in_bar])
    kind = np.unique(columns, axis=1, return_inverse=True)[1].reshape(-1) if piece.num_notes else piece.pitch
    stride = piece.num_bars + max_distance
    codes = np.unique(kind * stride + piece.bar)
    bar = codes % stride
    notes = np.bincount(bar, minlength=piece.num_bars)
    means = np.full(max_distance, np.nan)
    for distance in range(1, min(max_distance, piece.num_bars - 1) + 1):
        at = np.minimum(np.searchsorted(codes, codes + distance), max(len(codes) - 1, 0))
        repeated = bar[codes[at] == codes + distance] if len(codes) else bar
        shared = np.bincount(repeated, minlength=piece.num_bars)[:-distance]
        either = notes[:-distance] + notes[distance:] - shared
        if either.any():
            means[distance - 1] = (shared[either > 0] / either[either > 0]).mean()
    return means


def similarity_curve(pieces: Sequence[Piece], max_distance: int = MAX_DISTANCE) -> np.ndarray:
    """(max_distance,) L_t: the mean over pieces of :func:`bar_similarity`; NaN where no piece says anything."""
    curves = np.stack([bar_similarity(piece, max_distance) for piece in pieces])
    known = ~np.isnan(curves)
    sums = np.where(known, curves, 0).sum(axis=0)
    return np.divide(sums, known.sum(axis=0), out=np.full(max_distance, np.nan), where=known.any(axis=0))


def similarity_error(curve: np.ndarray, reference: np.ndarray) -> float:
    """SE = mean over t of |L_t - L_t of the reference|, over the t that both know; NaN where there is none.

    Args:
        curve, reference: (T,) of :func:`similarity_curve`.
    """
    difference = np.abs(curve - reference)
    known = ~np.isnan(difference)
    return float(difference[known].mean()) if known.any() else float("nan")

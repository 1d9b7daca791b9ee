"""How clear the key is, and how well notes fit the chord of their bar."""

from __future__ import annotations

import numpy as np

from meloformer.evaluation.pieces import Piece
from meloformer.midi.chords import CHORD_TONES, NO_CHORD


def pitch_class_entropy(piece: Piece, num_bars: int = 4) -> float:
    """Entropy of the pitch classes in stretches of ``num_bars`` bars: low where the key is clear.

    Every pitched note counts once, in the bar in which it starts. The mean is over the stretches, one behind another
    from the first bar, in which a note starts.

    Args:
        piece: Its drums do not count.
        num_bars: Of a stretch; the paper has 1 and 4.
    Returns:
        Bits, 0 to log2(12) = 3.585; NaN where no pitched note starts.
    Source: Wu and Yang, "The Jazz Transformer on the Front Line", ISMIR 2020, arXiv:2008.01307 (H1 and H4).
    """
    stretch = piece.bar[piece.is_pitched] // num_bars
    counts = np.bincount(stretch * 12 + piece.pitch[piece.is_pitched] % 12)
    counts = np.pad(counts, (0, -len(counts) % 12)).reshape(-1, 12).astype(np.float64)
    counts = counts[counts.any(axis=1)]
    if not len(counts):
        return float("nan")
    shares = counts / counts.sum(axis=1, keepdims=True)
    return float(-(shares * np.log2(shares, out=np.zeros_like(shares), where=shares > 0)).sum(axis=1).mean())


def chord_share(piece: Piece) -> float:
    """Share of the pitched notes whose pitch class belongs to the chord of the bar in which they start.

    Returns:
        0-1; NaN where no pitched note starts in a bar with a chord.
    Source: the chord tone to non-chord tone ratio of Yeh et al., "Automatic Melody Harmonization with Triad Chords",
        arXiv:2001.02360, as a plain share and over all instruments.
    """
    chord = piece.chord[piece.bar[piece.is_pitched]]
    has_chord = chord != NO_CHORD
    pitch_class = piece.pitch[piece.is_pitched][has_chord] % 12
    return float(CHORD_TONES[chord[has_chord], pitch_class].mean()) if has_chord.any() else float("nan")

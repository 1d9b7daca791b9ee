"""How steadily the rhythm goes on from bar to bar, and how many bars are empty."""

from __future__ import annotations

import numpy as np

from meloformer.evaluation.pieces import Piece
from meloformer.midi.bars import is_empty


def groove_consistency(piece: Piece) -> float:
    """How alike the onsets of neighbouring bars are.

    For two bars of one length, in steps, it is the share of the steps at which both have an onset, of any
    instrument, or neither has.

    Returns:
        Mean over the neighbours of one length of which at least one has notes, 0-1; NaN where there are none.
    Source: Wu and Yang, "The Jazz Transformer on the Front Line", ISMIR 2020, arXiv:2008.01307 (grooving pattern
        similarity); between neighbours as in Dong et al., "MusPy", ISMIR 2020, arXiv:2008.01951.
    """
    steps = np.diff(piece.bar_edges)
    longest = int(steps.max())
    codes = np.unique(piece.bar * longest + piece.onset_in_bar)
    onsets = np.bincount(codes // longest, minlength=piece.num_bars)
    in_next = np.isin(codes + longest, codes)
    shared = np.bincount(codes[in_next] // longest, minlength=piece.num_bars)[:-1]
    differing = onsets[:-1] + onsets[1:] - 2 * shared
    counts = (steps[:-1] == steps[1:]) & (onsets[:-1] + onsets[1:] > 0)
    return float((1 - differing[counts] / steps[:-1][counts]).mean()) if counts.any() else float("nan")


def empty_bar_share(piece: Piece) -> float:
    """Share of the bars in which nothing sounds, 0-1; a note that rings on into a bar fills it.

    Source: the empty bars of Dong et al., "MuseGAN", AAAI 2018, arXiv:1709.06298, over all instruments together.
    """
    return float(is_empty(piece.onset, piece.end, piece.bar_edges).mean())

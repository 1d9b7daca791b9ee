"""In which order the instruments of a bar are written."""

from __future__ import annotations

import numpy as np

from meloformer.midi.score import DRUMS

BASS_PROGRAMS = range(32, 40)
CHORDAL_PROGRAMS = (*range(32), *range(88, 96))
"""Keyboards, chromatic percussion, organs, guitars, and synth pads."""


def _ensemble_rank() -> np.ndarray:
    def group(program: int) -> int:
        if program == DRUMS:
            return 0
        return 1 if program in BASS_PROGRAMS else 2 if program in CHORDAL_PROGRAMS else 3

    rank = np.empty(DRUMS + 1, dtype=np.int64)
    rank[sorted(range(DRUMS + 1), key=lambda program: (group(program), program))] = np.arange(DRUMS + 1)
    return rank


ENSEMBLE_RANK = _ensemble_rank()
"""(129,) place of every program in a bar: drums, bass, chordal, then melodic, by program inside each group."""

"""Music made by rule, for measurements on a machine that has no music: a small band over a chord progression."""

from __future__ import annotations

import numpy as np

from meloformer.midi.score import DRUMS, Score, make_score
from meloformer.tokens.grid import STEPS_PER_QUARTER

BAR = 4 * STEPS_PER_QUARTER
PROGRESSIONS = ((0, 9, 5, 7), (0, 5, 7, 0), (9, 5, 0, 7), (0, 7, 9, 5))
"""Roots in semitones above the key; 9 carries a minor triad, the others major ones."""


def practice_piece(seed: int, *, num_bars: int = 64) -> Score:
    """Drums, bass, piano and a melody in 4/4; a function of its arguments.

    Args:
        seed: Chooses key, tempo, progression, instruments and every melody note.
        num_bars: Length.
    """
    rng = np.random.default_rng(seed)
    key, progression = int(rng.integers(0, 12)), PROGRESSIONS[rng.integers(len(PROGRESSIONS))]
    bass, lead = int(rng.choice([32, 33, 38])), int(rng.choice([40, 56, 73, 80]))
    notes: list[tuple[int, int, int, int, int]] = []
    for bar in range(num_bars):
        start, root = bar * BAR, progression[bar % len(progression)]
        third = 3 if root == 9 else 4
        triad = [key + root + step for step in (0, third, 7)]
        for beat in range(4):
            onset = start + beat * STEPS_PER_QUARTER
            notes.append((onset, 1, 36 if beat % 2 == 0 else 38, 100, DRUMS))
            notes += [(onset + half, 1, 42, 70, DRUMS) for half in (0, STEPS_PER_QUARTER // 2)]
            notes.append((onset, STEPS_PER_QUARTER, 36 + triad[2 if beat == 3 else 0] % 12, 90, bass))
        for half in (0, BAR // 2):
            notes += [(start + half, BAR // 2, 60 + pitch % 12, 74, 0) for pitch in triad]
        onset = 0
        while onset < BAR:
            length = int(rng.choice([6, 6, 12, 24]))
            notes.append((start + onset, length, 72 + int(rng.choice(triad)) % 12, 82, lead))
            onset += length
    onsets, durations, pitches, velocities, programs = zip(*notes, strict=True)
    return make_score(
        ticks_per_quarter=STEPS_PER_QUARTER,
        onset_ticks=onsets,
        duration_ticks=durations,
        pitch=pitches,
        velocity=velocities,
        program=programs,
        tempos=[(0, int(60e6 / rng.choice([85, 101, 120, 136])))],
        end_ticks=num_bars * BAR,
        num_tracks=4,
    )

"""Build ``meloformer/data/chord_table.npy``: what music21 calls a set of pitch classes over a bass.

For each of the 2048 sets that contain the bass, and for each of the twelve basses (music21 spells pitches, and a
spelling can change the name), music21 is asked for the chord symbol. Where it has none, it is asked for the root, and
the smallest of the 18 qualities on that root that holds every pitch class is taken. A name counts only where every
sounding pitch class belongs to it. The name that most of the twelve basses agree on is stored, relative to the bass.

    python scripts/build_chord_table.py     # about a minute
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from music21 import chord, harmony

from meloformer.midi.chords import QUALITIES, QUALITY_TONES

QUALITY_OF_MUSIC21 = {
    "major": "maj",
    "minor": "min",
    "diminished": "dim",
    "augmented": "aug",
    "dominant-seventh": "7",
    "major-seventh": "maj7",
    "minor-seventh": "min7",
    "diminished-seventh": "dim7",
    "half-diminished-seventh": "hdim7",
    "suspended-second": "sus2",
    "suspended-fourth": "sus4",
    "suspended-fourth-seventh": "7sus4",
    "major-sixth": "6",
    "minor-sixth": "min6",
    "dominant-ninth": "9",
    "major-ninth": "maj9",
    "minor-ninth": "min9",
    "power": "5",
}


def music21_name(above_bass: tuple[int, ...], bass: int) -> int:
    """1 + 18 * (root above the bass) + quality as music21 names the chord, or 0 where it has no name."""
    sounding = chord.Chord([48 + bass + semitones for semitones in above_bass])
    _, kind = harmony.chordSymbolFigureFromChord(sounding, True)
    root = (sounding.root().pitchClass - bass) % 12
    if kind in QUALITY_OF_MUSIC21:
        candidates = [QUALITY_OF_MUSIC21[kind]]
    else:
        candidates = sorted(QUALITIES, key=lambda quality: len(QUALITY_TONES[quality]))
    for quality in candidates:
        if set(above_bass) <= {(root + tone) % 12 for tone in QUALITY_TONES[quality]}:
            return 1 + len(QUALITIES) * root + QUALITIES.index(quality)
    return 0


def name_of(above_bass: tuple[int, ...]) -> int:
    """The name that most of the twelve basses agree on; of equals none before any, then the smaller number."""
    votes = Counter(music21_name(above_bass, bass) for bass in range(12))
    return max(votes, key=lambda name: (votes[name], -name))


def build_table() -> np.ndarray:
    """(4096,) uint8, indexed by the bits of the pitch classes above the bass."""
    table = np.zeros(4096, dtype=np.uint8)
    for bits in range(3, 4096, 2):
        above_bass = tuple(semitones for semitones in range(12) if bits >> semitones & 1)
        if len(above_bass) <= 5:  # no quality holds more
            table[bits] = name_of(above_bass)
    return table


if __name__ == "__main__":
    path = Path(__file__).parent.parent / "meloformer" / "data" / "chord_table.npy"
    path.parent.mkdir(exist_ok=True)
    np.save(path, build_table(), allow_pickle=False)

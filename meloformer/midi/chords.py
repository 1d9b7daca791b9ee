"""Chord names, and the harmony of every bar of a piece."""

ROOTS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
QUALITIES = (
    "maj", "min", "dim", "aug", "7", "maj7", "min7", "dim7", "hdim7",
    "sus2", "sus4", "7sus4", "6", "min6", "9", "maj9", "min9", "5",
)  # fmt: skip
NO_CHORD = 0
CHORD_NAMES = ("N", *(f"{root}:{quality}" for root in ROOTS for quality in QUALITIES))
"""Chord number -> name; 1 + 18 * root + quality."""

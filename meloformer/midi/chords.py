"""Chord names, and the harmony of every bar of a piece."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

ROOTS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
QUALITIES = (
    "maj", "min", "dim", "aug", "7", "maj7", "min7", "dim7", "hdim7",
    "sus2", "sus4", "7sus4", "6", "min6", "9", "maj9", "min9", "5",
)  # fmt: skip
NO_CHORD = 0
CHORD_NAMES = ("N", *(f"{root}:{quality}" for root in ROOTS for quality in QUALITIES))
"""Chord number -> name; 1 + 18 * root + quality."""

QUALITY_TONES: dict[str, tuple[int, ...]] = {
    "maj": (0, 4, 7),
    "min": (0, 3, 7),
    "dim": (0, 3, 6),
    "aug": (0, 4, 8),
    "7": (0, 4, 7, 10),
    "maj7": (0, 4, 7, 11),
    "min7": (0, 3, 7, 10),
    "dim7": (0, 3, 6, 9),
    "hdim7": (0, 3, 6, 10),
    "sus2": (0, 2, 7),
    "sus4": (0, 5, 7),
    "7sus4": (0, 5, 7, 10),
    "6": (0, 4, 7, 9),
    "min6": (0, 3, 7, 9),
    "9": (0, 2, 4, 7, 10),
    "maj9": (0, 2, 4, 7, 11),
    "min9": (0, 2, 3, 7, 10),
    "5": (0, 7),
}
"""Quality -> semitones above the root."""

QUALITY_COST: dict[str, int] = {
    "5": 27,
    **dict.fromkeys(("maj", "min"), 28),
    "dim": 30,
    **dict.fromkeys(("aug", "sus2", "sus4", "7", "maj7", "min7", "dim7", "hdim7", "6", "min6"), 40),
    "7sus4": 50,
    **dict.fromkeys(("9", "maj9", "min9"), 60),
}
"""Quality -> percent of a bar's sound that naming it costs.

About 10 a tone: a tone is worth naming when it holds a tenth of the sound, as a half note in one of four voices does.
Between equals the plain triad is right, and the least third makes a triad of a bare fifth. What passing notes imitate
(a fourth or second instead of the third, an augmented fifth, a ninth) costs ten more: at 10 a tone, 47 % of the bars of
45 Bach chorales were suspended or ninth chords; so it is 7 %.
"""
BASS_BONUS = 10
"""Percent added where the root is the bass."""
NAME_BONUS = 5
"""Percent added where music21 gives this name to exactly the pitch classes that sound over this bass."""

_NUM_QUALITIES = len(QUALITIES)
_BITS = np.append(2.0 ** np.arange(12), 0)


def analyse_bars(
    onset: np.ndarray,
    duration: np.ndarray,
    pitch: np.ndarray,
    velocity: np.ndarray,
    bar_start: np.ndarray,
    bar_end: np.ndarray,
) -> np.ndarray:
    """Name the harmony of every bar.

    In each bar a pitch class *weighs* the sum, over its notes, of steps sounding inside the bar times velocity; W is
    the weight of all twelve. The *bass* is the lowest pitch that sounds for at least a step. Each of the 216 chords
    scores::

        100 * (weight of the pitch classes in the chord) - QUALITY_COST * W
            + BASS_BONUS * W   if its root is the bass
            + NAME_BONUS * W   if it is the table's name for the sounding pitch classes over that bass

    and the highest wins; of equals the one whose root lies fewest semitones above the bass (0-11), then the one whose
    quality comes first in ``QUALITIES``. All of this is reckoned in whole numbers, so equal means equal. A bar in which
    nothing sounds is ``NO_CHORD``.

    The table (``data/chord_table.npy``) holds music21's names; ``scripts/build_chord_table.py`` says how. Chords move
    with the music: transposing all notes by k semitones moves every root by k.

    Args:
        onset, duration, pitch, velocity: (N,) pitched notes (no drums) in any order; in steps, or any one unit of time.
        bar_start, bar_end: (B,) bounds of the bars in the same unit, ascending and without overlap.
    Returns:
        (B,) int64 chord numbers, see ``CHORD_NAMES``.
    """
    num_bars = len(bar_start)
    onset, end = np.asarray(onset, dtype=np.int64), np.asarray(onset + duration, dtype=np.int64)
    first_bar = np.searchsorted(bar_end, onset, side="right")
    spans = (np.searchsorted(bar_start, end, side="left") - first_bar) * (end > onset)
    note = np.repeat(np.arange(len(onset)), spans)
    if not len(note):
        return np.full(num_bars, NO_CHORD, dtype=np.int64)
    bar = np.arange(len(note)) - np.repeat(np.cumsum(spans) - spans, spans) + first_bar[note]
    steps = np.minimum(end[note], bar_end[bar]) - np.maximum(onset[note], bar_start[bar])
    sounding_pitch = np.asarray(pitch, dtype=np.int64)[note]

    lowest = np.full(num_bars, 128, dtype=np.int64)
    np.minimum.at(lowest, bar, sounding_pitch)
    bass = lowest % 12
    above_bass = (sounding_pitch - bass[bar]) % 12
    weight = np.bincount(bar * 13 + above_bass, weights=steps * velocity[note], minlength=num_bars * 13)
    chosen = _best_chord(weight.reshape(num_bars, 13))
    root = (chosen // _NUM_QUALITIES + bass) % 12
    return np.where(lowest < 128, 1 + _NUM_QUALITIES * root + chosen % _NUM_QUALITIES, NO_CHORD)


def _best_chord(weight: np.ndarray) -> np.ndarray:
    """(B, 13) whole weights of pitch classes above the bass, and zeros -> (B,) 18 * (root above the bass) + quality.

    float64 holds every intermediate exactly: scores stay below 2^53 for any bar of less than 10^11 steps x velocity.
    """
    gain, table = _tables()
    named = table[((weight > 0) @ _BITS).astype(np.int64)]
    total = weight.sum(axis=1)
    weight[:, 12] = 1
    score = weight @ gain
    bars = np.flatnonzero(named)
    score[bars, named[bars] - 1] += 256 * NAME_BONUS * total[bars]
    return score.argmax(axis=1)


@lru_cache(maxsize=1)
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """(13, 216) what weight on each pitch class above the bass adds, and the chord's rank; and the name table.

    Scores are multiples of 256, so taking off a rank below 256 settles ties and nothing else.
    """
    gain = np.zeros((13, 12 * _NUM_QUALITIES))
    for chord in range(12 * _NUM_QUALITIES):
        root, quality = chord // _NUM_QUALITIES, QUALITIES[chord % _NUM_QUALITIES]
        gain[:12, chord] = (BASS_BONUS if root == 0 else 0) - QUALITY_COST[quality]
        gain[[(root + tone) % 12 for tone in QUALITY_TONES[quality]], chord] += 100
    gain *= 256
    gain[12] = -np.arange(12 * _NUM_QUALITIES)
    return gain, load_name_table()


def _chord_tones() -> np.ndarray:
    tones = np.zeros((len(CHORD_NAMES), 12), dtype=bool)
    for root in range(len(ROOTS)):
        for number, quality in enumerate(QUALITIES):
            tones[1 + _NUM_QUALITIES * root + number, (root + np.array(QUALITY_TONES[quality])) % 12] = True
    return tones


CHORD_TONES = _chord_tones()
"""(217, 12) bool, of every chord number its pitch classes; none of ``N``."""


def load_name_table() -> np.ndarray:
    """(4096,) int64: bits of the pitch classes above the bass -> 1 + 18 * (root above the bass) + quality, or 0."""
    path = Path(__file__).parent.parent / "data" / "chord_table.npy"
    return np.load(path, allow_pickle=False).astype(np.int64)

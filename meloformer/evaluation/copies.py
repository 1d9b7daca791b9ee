"""How much of a piece is copied: the longest run of notes that also stands in other pieces.

Training transposes pieces, so a copy in another key is a copy. Drums are left out: a beat is common property.
Three readings:

- ``texture``: all pitched notes of a piece, of all instruments, in the order (onset, program, pitch). A run is copied
  if every note has the same instrument and duration, and every note but the first the same interval and the same steps
  from the note before it.
- ``line``: the pitched notes of one instrument in the order (onset, pitch), whichever program plays them; otherwise
  the same.
- ``line without repeats``: the same, but a note or chord of an instrument with the pitches and durations of the one
  before it is left out; interval and steps of the next note count from the last of them.

Rests longer than ``LONGEST_GAP`` are alike. Velocities do not count.

Runs are found by hashes of all stretches of one length (Karp and Rabin, "Efficient Randomized Pattern-Matching
Algorithms", IBM Journal of Research and Development 31, 1987): where a piece has no copied run of n notes it has no
longer one, so the longest is found by doubling n and then halving. Only notes at which the shorter run was copied are
asked for the longer. With 64 bits, two of a million runs that differ are taken for equal with probability below 1e-6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from meloformer.evaluation.pieces import Piece

Reading = Literal["texture", "line", "line without repeats"]
LONGEST_GAP = 1023
"""Steps between two onsets, 21 bars of 4/4."""
_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 2**64)


class CopyIndex:
    """The notes of a set of pieces, such as the training set.

    Args:
        pieces: Where copies may come from.
        reading: What a run is.
    """

    def __init__(self, pieces: Sequence[Piece], reading: Reading) -> None:
        self.reading: Reading = reading
        self._notes = _Notes.of(pieces, reading)

    def longest_runs(self, pieces: Sequence[Piece]) -> np.ndarray:
        """(P,) notes in the longest run of every piece that also stands in the set; 0 where not one note does."""
        own = _Notes.of(pieces, self.reading)
        longest = np.zeros(len(pieces), dtype=np.int64)
        length, mine, theirs = 1, np.arange(len(own.end)), np.arange(len(self._notes.end))
        levels: list[tuple[int, np.ndarray, np.ndarray]] = []
        while True:
            mine, theirs = self._shared(own, length, mine, theirs)
            if not len(mine):
                break
            longest[own.piece[mine]] = length
            levels.append((length, mine, theirs))
            length *= 2
        for length, mine, theirs in levels:
            last = mine[longest[own.piece[mine]] == length]
            self._refine(own, longest, (length, 2 * length), last, theirs)
        return longest

    def _refine(
        self, own: _Notes, longest: np.ndarray, bounds: tuple[int, int], mine: np.ndarray, theirs: np.ndarray
    ) -> None:
        """Find the longest runs of the pieces of the notes ``mine``, at least the lower bound, below the upper."""
        low, high = bounds
        if high - low < 2 or not len(mine):
            return
        middle = (low + high) // 2
        found, their_found = self._shared(own, middle, mine, theirs)
        longest[own.piece[found]] = middle
        has = np.isin(own.piece[mine], own.piece[found])
        self._refine(own, longest, (middle, high), found, their_found)
        self._refine(own, longest, (low, middle), mine[~has], theirs)

    def _shared(self, own: _Notes, length: int, mine: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Those of ``mine`` and of ``theirs`` at which equal runs of ``length`` notes start."""
        mine, theirs = own.with_room(mine, length), self._notes.with_room(theirs, length)
        if not len(mine) or not len(theirs):
            return mine[:0], theirs[:0]
        my_hash, their_hash = own.hashes(mine, length), self._notes.hashes(theirs, length)
        wanted = np.unique(my_hash)
        place = np.minimum(np.searchsorted(wanted, their_hash), len(wanted) - 1)
        is_shared = wanted[place] == their_hash
        found = np.zeros(len(wanted), dtype=bool)
        found[place[is_shared]] = True
        return mine[found[np.searchsorted(wanted, my_hash)]], theirs[is_shared]


@dataclass(frozen=True)
class _Notes:
    """Notes of all pieces one after another, with what runs are compared by."""

    piece: np.ndarray
    """(N,) number of its piece."""
    end: np.ndarray
    """(N,) behind the last note of its sequence."""
    alone: np.ndarray
    """(N,) uint64, a hash of what is compared of a run's first note."""
    prefix: np.ndarray
    """(N + 1,) uint64, sums of the hashes of what is compared of other notes, each times a power of ``_BASE``."""
    inverse: np.ndarray
    """(N + 1,) uint64, what undoes those powers."""

    @classmethod
    def of(cls, pieces: Sequence[Piece], reading: Reading) -> _Notes:
        columns = [_columns(piece, number, reading) for number, piece in enumerate(pieces)]
        empty = np.zeros((6, 0), dtype=np.int64)
        piece, sequence, onset, pitch, program, duration = np.concatenate([empty, *columns], axis=1)
        gap = np.minimum(np.diff(onset, prepend=0), LONGEST_GAP)
        interval = np.diff(pitch, prepend=0) + 128
        kept = np.ones(len(piece), dtype=bool)
        if reading == "line without repeats":
            kept = ~_struck_again(np.stack([piece, sequence]), onset, np.stack([pitch, duration]))
        voice = program if reading == "texture" else np.zeros_like(program)
        starts = np.append(True, (np.diff(piece) != 0) | (np.diff(sequence) != 0))[: len(piece)]
        alone = voice << 10 | duration
        follows = ((np.where(starts, 0, interval) << 10 | np.where(starts, 0, gap)) << 17) | alone
        piece, alone, follows, starts = piece[kept], alone[kept], follows[kept], starts[kept]
        edges = np.append(np.flatnonzero(starts), len(piece))
        end = np.repeat(edges[1:], np.diff(edges))
        prefix = np.zeros(len(piece) + 1, dtype=np.uint64)
        np.cumsum(_mixed(follows) * _powers(_BASE, len(piece)), out=prefix[1:])
        return cls(piece, end, _mixed(~alone), prefix, _powers(_INVERSE, len(prefix)))

    def with_room(self, notes: np.ndarray, length: int) -> np.ndarray:
        """Those at which a run of so many notes ends within its sequence."""
        return notes[notes + length <= self.end[notes]]

    def hashes(self, notes: np.ndarray, length: int) -> np.ndarray:
        """(n,) uint64, of the runs of ``length`` notes that start at ``notes``."""
        following = (self.prefix[notes + length] - self.prefix[notes + 1]) * self.inverse[notes + 1]
        return following * np.uint64(_BASE) + self.alone[notes]


def _columns(piece: Piece, number: int, reading: Reading) -> np.ndarray:
    """(6, n) number of the piece, sequence, onset, pitch, program and duration of its pitched notes."""
    own = piece.is_pitched
    onset, pitch, program = piece.onset[own], piece.pitch[own], piece.program[own]
    sequence = np.zeros_like(onset) if reading == "texture" else program
    columns = np.stack([np.full_like(onset, number), sequence, onset, pitch, program, piece.duration[own]])
    return columns if reading == "texture" else columns[:, np.lexsort((pitch, onset, program))]


def _struck_again(place: np.ndarray, onset: np.ndarray, sound: np.ndarray) -> np.ndarray:
    """(N,) bool, whether a note belongs to a chord that is like the chord before it; notes of one onset are a chord.

    Args:
        place: (2, N) piece and sequence.
        onset: (N,)
        sound: (2, N) pitch and duration; pitches rise in a chord.
    """
    opens = np.append(True, (np.diff(place) != 0).any(axis=0) | (np.diff(onset) != 0))[: len(onset)]
    edges = np.append(np.flatnonzero(opens), len(onset))
    size = np.diff(edges)
    before = np.arange(len(onset)) - np.repeat(size, size)
    is_like = (place[:, before] == place).all(axis=0) & (sound[:, before] == sound).all(axis=0) & (before >= 0)
    again = np.zeros(len(size), dtype=bool)
    if len(size):
        again = np.logical_and.reduceat(is_like, edges[:-1]) & (size == np.append(0, size[:-1]))
    return np.repeat(again, size)


def _powers(base: int, count: int) -> np.ndarray:
    """(count,) uint64: base to the 0, 1, 2, ... modulo 2^64."""
    powers = np.full(count, base, dtype=np.uint64)
    powers[:1] = 1
    return np.cumprod(powers)


def _mixed(values: np.ndarray) -> np.ndarray:
    """(N,) uint64: every number spread over all bits.

    Source: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014 (SplitMix64).
    """
    mixed = values.astype(np.uint64) + np.uint64(_BASE)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))

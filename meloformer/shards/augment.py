"""The same music in another key, at another tempo, louder or softer: by look-up on ids.

What is drawn for a document is a function of (seed, epoch, document) alone, so all its fragments agree, and a run that
is resumed repeats nothing and skips nothing. Every document stays valid and in its shortest spelling: nothing is
clipped, for two velocities that become one would need one token less. Where a change leads out of range, another is
drawn.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from meloformer.midi.chords import QUALITIES
from meloformer.midi.score import DRUMS
from meloformer.tokens.vocabulary import CANONICAL_TYPE, CANONICAL_VALUE, FIRST_ID, TokenType, Vocabulary

SEMITONES = range(-5, 7)
"""Every key once."""


class Augmentation:
    """Draws changes, and makes them.

    Args:
        vocabulary: Of the ids.
        seed: Of the draws.
        transpose: Move pitches and chords by -5 to +6 semitones; drums stay.
        tempo_bins: Move all tempos by up to so many bins, up or down.
        velocity_bins: Move all velocities by up to so many bins, up or down.
    """

    def __init__(
        self, vocabulary: Vocabulary, *, seed: int, transpose: bool, tempo_bins: int, velocity_bins: int
    ) -> None:
        self._vocabulary, self._seed = vocabulary, seed
        self._choices = {
            TokenType.PITCH: tuple(SEMITONES) if transpose else (0,),
            TokenType.TEMPO: tuple(range(-tempo_bins, tempo_bins + 1)),
            TokenType.VELOCITY: tuple(range(-velocity_bins, velocity_bins + 1)),
        }

    def table(self, ids: np.ndarray, *, epoch: int, document: int) -> np.ndarray:
        """What becomes of every id in a document.

        Args:
            ids: (T,) ids of the whole document.
            epoch, document: Their numbers.
        Returns:
            (2, V) ids: for drums, and for all else.
        """
        rng = np.random.default_rng([self._seed, epoch, document])
        size, is_drums = len(self._vocabulary), self._belongs_to_drums(ids)
        present = np.stack([np.bincount(ids[own], minlength=size) > 0 for own in (is_drums, ~is_drums)])
        table = np.tile(np.arange(size), (2, 1))
        for kind, choices in self._choices.items():
            for shift in rng.permutation(choices).tolist():
                of_drums = 0 if kind == TokenType.PITCH else shift
                moved = np.stack([_moved(self._vocabulary, kind, by) for by in (of_drums, shift)])
                if (moved[present] >= 0).all():
                    table = np.where(self._is_changed_by(kind), moved, table)
                    break
        return table

    def _is_changed_by(self, kind: TokenType) -> np.ndarray:
        """(V,) bool: the tokens that move with a kind; chords move with the pitches."""
        types = self._vocabulary.types
        return (types == kind) | ((types == TokenType.CHORD) & (kind == TokenType.PITCH))

    def apply(self, ids: np.ndarray, table: np.ndarray) -> np.ndarray:
        """(T,) the ids of a document, or of a fragment behind its context, as a table has them."""
        return np.where(self._belongs_to_drums(ids), table[0][ids], table[1][ids])

    def _belongs_to_drums(self, ids: np.ndarray) -> np.ndarray:
        """(T,) bool: the tokens of cells of drums; CHORD, METER and TEMPO belong to no cell."""
        types = self._vocabulary.types[ids]
        opens = (types == TokenType.INSTRUMENT) | (types == TokenType.CHORD)
        is_drums = (types == TokenType.INSTRUMENT) & (self._vocabulary.values[ids] == DRUMS)
        last = np.maximum.accumulate(np.where(opens, np.arange(len(ids)), -1))
        return np.where(last >= 0, is_drums[last], False)


@lru_cache(maxsize=256)
def _moved(vocabulary: Vocabulary, kind: TokenType, shift: int) -> np.ndarray:
    """(V,) id of every token when tokens of a kind move by ``shift``; -1 where there is no such token."""
    value = CANONICAL_VALUE + np.where(CANONICAL_TYPE == kind, shift, 0)
    highest = {each: int(CANONICAL_VALUE[CANONICAL_TYPE == each].max()) for each in TokenType}
    canonical = np.arange(len(CANONICAL_TYPE))
    is_kind = CANONICAL_TYPE == kind
    canonical[is_kind] = FIRST_ID[kind] + value[is_kind]
    canonical[is_kind & ((value < 0) | (value > highest[kind]))] = -1
    if kind == TokenType.PITCH:
        is_chord = (CANONICAL_TYPE == TokenType.CHORD) & (CANONICAL_VALUE > 0)
        root, quality = np.divmod(CANONICAL_VALUE[is_chord] - 1, len(QUALITIES))
        canonical[is_chord] = FIRST_ID[TokenType.CHORD] + 1 + (root + shift) % 12 * len(QUALITIES) + quality
    of_canonical = np.full(len(CANONICAL_TYPE), -1)
    of_canonical[vocabulary.canonical] = np.arange(len(vocabulary))
    moved = canonical[vocabulary.canonical]
    return np.where(moved >= 0, of_canonical[moved], -1)

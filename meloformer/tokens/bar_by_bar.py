"""Reading a document bar by bar, while it is being written."""

from __future__ import annotations

import numpy as np

from meloformer.midi.score import Score
from meloformer.tokens.decode import decode
from meloformer.tokens.vocabulary import BOS, EOS, TokenType, Vocabulary


class BarDecoder:
    """Makes a score of every bar of one document, given in order; remembers the meter and the tempo in force."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._in_force: dict[TokenType, np.ndarray] = {}

    def decode(self, ids: np.ndarray) -> Score:
        """Read the next bar.

        Args:
            ids: (T,) from its CHORD on; a BOS before and an EOS behind are allowed.
        Returns:
            A quantised score of one bar; notes may ring past its end.
        Raises:
            GrammarError: The ids are no bar that may follow.
        """
        types = self._vocabulary.types[ids]
        for kind in (TokenType.METER, TokenType.TEMPO):
            if (types == kind).any():
                self._in_force[kind] = ids[types == kind]
        apart = (TokenType.BOS, TokenType.EOS, TokenType.CHORD, TokenType.METER, TokenType.TEMPO)
        head = [np.array([BOS], dtype=ids.dtype), ids[types == TokenType.CHORD]]
        head += [self._in_force[kind] for kind in (TokenType.METER, TokenType.TEMPO) if kind in self._in_force]
        notes = ids[~np.isin(types, apart)]
        return decode(np.concatenate([*head, notes, np.array([EOS], dtype=ids.dtype)]), self._vocabulary)

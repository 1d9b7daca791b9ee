"""Who plays from bar to bar: what makes an instrument new, and when one comes in or drops out."""

from __future__ import annotations

import numpy as np

from meloformer.generation.voices import Voices
from meloformer.midi.score import DRUMS
from meloformer.tokens.ensemble import ENSEMBLE_RANK
from meloformer.tokens.grammar import GrammarState
from meloformer.tokens.vocabulary import TokenType

T = TokenType


class Lineup:
    """The instruments of the open bar, of the latest before it that is not silent, and of the piece so far."""

    def __init__(self) -> None:
        self.heard = np.zeros(DRUMS + 1, dtype=bool)
        """(129,) programs of which anything stands there, new or given."""
        self._before = np.zeros(DRUMS + 1, dtype=bool)
        self._now = np.zeros(DRUMS + 1, dtype=bool)

    def advance(self, state: GrammarState, voices: Voices) -> None:
        """Take what the latest token says, which ``voices`` has taken already."""
        if state.last == T.CHORD:
            self._before = self._now if self._now.any() else self._before
            self._now = np.zeros(DRUMS + 1, dtype=bool)
            self._now[voices.ringing()] = True
        elif state.last == T.INSTRUMENT:
            self._now[state.instrument] = self.heard[state.instrument] = True

    def changes(self, programs: np.ndarray, awaited: np.ndarray) -> tuple[np.ndarray, int]:
        """How many instruments change against the bar before by what may come next; none where no bar has sounded.

        Args:
            programs: (N,) those of which a cell may come next.
            awaited: (129,) bool, those whose coming in is no change.
        Returns:
            (N,) for the cell of each: the instruments that drop out, as theirs can come no more, and itself, where it
            comes in. And how many drop out where the bar ends here. Who rings on has not dropped out.
        """
        if not self._before.any():
            return np.zeros(len(programs), dtype=np.int64), 0
        ranks = ENSEMBLE_RANK[programs]
        going_on = np.sort(ranks[(self._before & ~self._now)[programs]])
        comes_in = ~(self._before | self._now | awaited)[programs]
        return np.searchsorted(going_on, ranks) + comes_in, len(going_on)

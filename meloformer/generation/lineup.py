"""Who plays from one bar to the next."""

from __future__ import annotations

import numpy as np

from meloformer.generation.voices import Voices
from meloformer.midi.score import DRUMS
from meloformer.tokens.grammar import GrammarState
from meloformer.tokens.vocabulary import TokenType

T = TokenType
NUM_PROGRAMS = DRUMS + 1


class Lineup:
    """The instruments of the open bar, and of the latest before it that is not silent."""

    def __init__(self) -> None:
        self._before = np.zeros(NUM_PROGRAMS, dtype=bool)
        self._now = np.zeros(NUM_PROGRAMS, dtype=bool)

    def advance(self, state: GrammarState, voices: Voices) -> None:
        """Take what the latest token says, which ``voices`` has taken already."""
        if state.last == T.CHORD:
            self._before = self._now if self._now.any() else self._before
            self._now = np.zeros(NUM_PROGRAMS, dtype=bool)
            self._now[voices.ringing()] = True
        elif state.last == T.INSTRUMENT:
            self._now[state.instrument] = True

    def lean(self) -> np.ndarray:
        """(129,) 1 for who played and does not sound yet, -1 for who would come in; 0 where no bar has sounded."""
        if not self._before.any():
            return np.zeros(NUM_PROGRAMS)
        return np.where(self._before, 1.0, -1.0) * ~self._now

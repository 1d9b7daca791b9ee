"""Which notes of a piece in the making sound when: what a wish for polyphony is held against."""

from __future__ import annotations

import numpy as np

from meloformer.midi.score import DRUMS
from meloformer.tokens.grammar import GrammarState
from meloformer.tokens.vocabulary import TokenType

T = TokenType


class Voices:
    """Which notes of each instrument sound when."""

    def __init__(self) -> None:
        self._ends: dict[int, list[int]] = {}
        """Program -> where each of its notes ends, in steps from the start of the open bar."""
        self._bar_steps = 0

    def advance(self, state: GrammarState) -> None:
        """Take what the latest token says."""
        if state.last == T.CHORD:
            for program, ends in list(self._ends.items()):
                self._ends[program] = [end - self._bar_steps for end in ends if end > self._bar_steps]
        elif state.last == T.PITCH:
            length = 1 if state.instrument == DRUMS else max(state.duration, 1)
            self._ends.setdefault(state.instrument, []).append(state.onset + length)
        elif state.last == T.DURATION:
            self._ends[state.instrument][-1] = state.onset + state.duration
        self._bar_steps = state.bar_steps

    def sounding(self, program: int, onset: np.ndarray) -> np.ndarray:
        """(N,) how many notes of the program that began before or at each onset sound there."""
        ends = np.array(self._ends.get(program, ()), dtype=np.int64)
        return (ends[:, None] > onset).sum(axis=0)

    def ringing(self) -> list[int]:
        """The programs of which a note may sound."""
        return [program for program, ends in self._ends.items() if ends]

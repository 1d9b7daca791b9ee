"""What every token knows, told token by token while a piece is written."""

from __future__ import annotations

import numpy as np

from meloformer.tokens.attributes import GLOBAL, NONE, attributes
from meloformer.tokens.grid import METER_NUMBER, METER_STEPS
from meloformer.tokens.vocabulary import TokenType, Vocabulary


class RunningAttributes:
    """The facts of :func:`~meloformer.tokens.attributes.attributes` about the latest token of one growing document.

    A test compares the two at every position.

    Args:
        vocabulary: Of the ids.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._types, self._values = _tables(vocabulary)
        self._meter_steps = int(METER_STEPS[METER_NUMBER[4, 4]])
        self.position = -1
        """Index of the token in its row, -1 before the first."""
        self.type = TokenType.PAD
        self.bar = 0
        self.chord = NONE
        self.instrument = GLOBAL
        self.note = NONE
        self.onset = NONE
        self.pitch = NONE
        self.time = 0
        self.bar_start_time = 0
        """Steps from the start of the document to the open bar."""
        self._num_notes = 0

    @classmethod
    def after(cls, ids: np.ndarray, vocabulary: Vocabulary) -> RunningAttributes:
        """The facts after a row of one document."""
        running = cls(vocabulary)
        facts = attributes(ids, vocabulary)
        types = facts.type
        running.position = len(ids) - 1
        running.type = TokenType(int(types[-1]))
        for name in ("bar", "chord", "instrument", "note", "onset", "pitch", "time"):
            setattr(running, name, int(getattr(facts, name)[-1]))
        running._num_notes = int(facts.note.max()) + 1
        meters = np.flatnonzero(types == TokenType.METER)
        if len(meters):
            running._meter_steps = int(METER_STEPS[running._values[int(ids[meters[-1]])]])
        running.bar_start_time = int(facts.bar_end_time[-1]) - running._meter_steps
        return running

    @property
    def bar_of_document(self) -> int:
        """The open bar, which is counted from the start of the document, as that is the start of its row."""
        return self.bar

    @property
    def bar_end_time(self) -> int:
        """Where the open bar ends, in steps from the start of the document."""
        return self.bar_start_time + self._meter_steps

    def opens_bar(self, token_id: int) -> bool:
        """Whether this token would end the open bar and open the next."""
        return self.chord != NONE and self._types[token_id] == TokenType.CHORD

    def advance(self, token_id: int) -> None:
        """Take one token."""
        before, self.type = self.type, self._types[token_id]
        value = self._values[token_id]
        self.position += 1
        if TokenType.ONSET <= self.type <= TokenType.VELOCITY:
            self._advance_note(before, value)
            return
        if self.opens_bar(token_id):
            self.bar += 1
            self.bar_start_time += self._meter_steps
        elif self.type == TokenType.METER:
            self._meter_steps = int(METER_STEPS[value])
        if self.type == TokenType.CHORD:
            self.chord = value
        self.instrument = value if self.type == TokenType.INSTRUMENT else GLOBAL
        self.note = self.onset = self.pitch = NONE
        self.time = self.bar_end_time if self.type == TokenType.EOS else self.bar_start_time

    def _advance_note(self, before: TokenType, value: int) -> None:
        if self.type == TokenType.ONSET or (self.type == TokenType.PITCH and before != TokenType.ONSET):
            self.note = self._num_notes
            self._num_notes += 1
        if self.type == TokenType.ONSET:
            self.onset = value  # the pitch stays that of the note before
        elif self.type == TokenType.PITCH:
            self.pitch = value
        self.time = self.bar_start_time + max(self.onset, 0)


def _tables(vocabulary: Vocabulary) -> tuple[list[TokenType], list[int]]:
    """Type and value of every id, as lists, which are read one by one faster than arrays."""
    return [TokenType(int(kind)) for kind in vocabulary.types], vocabulary.values.tolist()

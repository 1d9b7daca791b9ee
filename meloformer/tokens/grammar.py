"""The grammar of HID, twice: as a check of whole documents and as a state that says what may come next.

    document = BOS bar+ EOS
    bar      = CHORD [METER] [TEMPO] cell*          the first bar has both, later ones only what changes
    cell     = INSTRUMENT note+                     in ensemble order, each instrument once a bar
    note     = [T] P [D] [V]                        drums without D; the first note of a cell has all

There is one spelling: T rises inside a cell, P rises at one onset, D and V stand only where they change. A test walks
both at random and lets them agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from meloformer.midi.score import DRUMS
from meloformer.tokens.attributes import GLOBAL, attributes, carried
from meloformer.tokens.ensemble import ENSEMBLE_RANK
from meloformer.tokens.grid import MAX_BAR_STEPS, METER_STEPS
from meloformer.tokens.vocabulary import (
    BOS,
    CANONICAL_NAMES,
    CANONICAL_TYPE,
    CANONICAL_VALUE,
    FIRST_ID,
    NUM_CANONICAL,
    NUM_TOKEN_TYPES,
    PAD,
    UNK,
    TokenType,
    Vocabulary,
)

T = TokenType
_NEXT_EVENT = (T.ONSET, T.PITCH, T.INSTRUMENT, T.CHORD, T.EOS)
FOLLOWERS: dict[TokenType, tuple[TokenType, ...]] = {
    T.BOS: (T.CHORD,),
    T.CHORD: (T.METER, T.TEMPO, T.INSTRUMENT, T.CHORD, T.EOS),
    T.METER: (T.TEMPO, T.INSTRUMENT, T.CHORD, T.EOS),
    T.TEMPO: (T.INSTRUMENT, T.CHORD, T.EOS),
    T.INSTRUMENT: (T.ONSET,),
    T.ONSET: (T.PITCH,),
    T.PITCH: (T.DURATION, T.VELOCITY, *_NEXT_EVENT),
    T.DURATION: (T.VELOCITY, *_NEXT_EVENT),
    T.VELOCITY: _NEXT_EVENT,
    T.EOS: (),
}
"""Which types may follow which; values, and what the first bar and first notes must have, narrow it further."""

_MAY_FOLLOW = np.zeros((NUM_TOKEN_TYPES, NUM_TOKEN_TYPES), dtype=bool)
for _before, _after in FOLLOWERS.items():
    _MAY_FOLLOW[_before, list(_after)] = True


def _ids(token_type: TokenType) -> slice:
    first = FIRST_ID[token_type]
    return slice(first, first + int((CANONICAL_TYPE == token_type).sum()))


_SLICE = {token_type: _ids(token_type) for token_type in TokenType}
_INSTRUMENTS_AFTER = ENSEMBLE_RANK[None, :] > np.arange(-1, DRUMS + 1)[:, None]
"""(130, 129) row r + 1: which programs may open a cell after one of rank r."""


@dataclass(frozen=True)
class GrammarProblem:
    """One token that may not stand where it stands."""

    position: int
    token: str
    message: str

    def __str__(self) -> str:
        return f"token {self.position}, {self.token}: {self.message}"


def grammar_errors(ids: np.ndarray, vocabulary: Vocabulary | None = None) -> list[GrammarProblem]:
    """Everything that is wrong with a document, in order of position; at most one problem a token.

    The first problem stands where :class:`GrammarState` first forbids a token; later ones may be its consequences.

    Args:
        ids: (T,) ids.
        vocabulary: By default the full one.
    Raises:
        VocabularyError: An id is outside the vocabulary.
    """
    vocabulary = vocabulary or Vocabulary.default()
    canonical = vocabulary.to_canonical(ids)
    if not len(canonical):
        return [GrammarProblem(0, "nothing", "a document has at least one bar")]
    found: dict[int, str] = {}
    for positions, message in _violations(canonical):
        for position in positions:
            found.setdefault(int(position), message)
    if CANONICAL_TYPE[canonical[-1]] != T.EOS:
        found.setdefault(len(canonical), "the document does not end with EOS")
    return [GrammarProblem(at, _name(canonical, at), found[at]) for at in sorted(found)]


def _name(canonical: np.ndarray, at: int) -> str:
    return CANONICAL_NAMES[canonical[at]] if at < len(canonical) else "the end"


def _violations(canonical: np.ndarray) -> list[tuple[np.ndarray, str]]:
    """Positions of every kind of problem, the most basic kinds first."""
    without_padding = np.where(canonical == PAD, UNK, canonical)  # as wrong, but it does not part a bar in two
    facts = attributes(without_padding, Vocabulary.default())
    types, values = facts.type, CANONICAL_VALUE[canonical]
    index = np.arange(len(types))
    previous_type = np.append(T.PAD, types[:-1])
    wrong_follower = ~_MAY_FOLLOW[previous_type, types]
    wrong_follower[0] = types[0] != T.BOS
    is_note_start = (facts.note >= 0) & np.append(True, facts.note[1:] != facts.note[:-1])
    opens_cell = is_note_start & (previous_type == T.INSTRUMENT)
    cell = np.cumsum(types == T.INSTRUMENT)
    found = [(np.flatnonzero(wrong_follower), "it may not follow the token before it")]
    missing_header = (index == 2) & (types != T.METER) | (index == 3) & (types != T.TEMPO)
    found.append((np.flatnonzero(missing_header), "the first bar needs CHORD METER TEMPO"))
    for token_type in (T.METER, T.TEMPO):
        at = index[types == token_type]
        found.append((at[1:][values[at[1:]] == values[at[:-1]]], "it repeats what is in force"))
    at = index[types == T.INSTRUMENT]
    rank = ENSEMBLE_RANK[values[at]]
    late = (rank[1:] <= rank[:-1]) & (facts.bar[at[1:]] == facts.bar[at[:-1]])
    found.append((at[1:][late], "its cell comes too late in the bar, or twice"))
    meter = carried(values, types == T.METER)
    bar_steps = np.where(meter >= 0, METER_STEPS[meter], MAX_BAR_STEPS)
    at = index[types == T.ONSET]
    found.append((at[values[at] >= bar_steps[at]], "it lies past the end of the bar"))
    found += _note_violations(types, values, cell, facts.onset, facts.instrument)
    type_at = np.append(types, T.PAD)
    expected_at = np.flatnonzero(opens_cell) + 2  # behind the onset and the pitch
    expected_at = expected_at[expected_at <= len(types)]
    is_drum = facts.instrument[expected_at - 1] == DRUMS
    has_duration = type_at[expected_at] == T.DURATION
    found.append((expected_at[~has_duration & ~is_drum], "the first note of a cell needs its duration"))
    expected_at = (expected_at + has_duration)[has_duration | is_drum]
    found.append((expected_at[type_at[expected_at] != T.VELOCITY], "the first note of a cell needs its velocity"))
    return found


def _note_violations(
    types: np.ndarray, values: np.ndarray, cell: np.ndarray, onset: np.ndarray, instrument: np.ndarray
) -> list[tuple[np.ndarray, str]]:
    """What is wrong between two tokens of one type in one cell."""
    index = np.arange(len(types))
    at = index[types == T.ONSET]
    same = cell[at[1:]] == cell[at[:-1]]
    found = [(at[1:][same & (values[at[1:]] <= values[at[:-1]])], "onsets rise inside a cell")]
    at = index[types == T.PITCH]
    same = (cell[at[1:]] == cell[at[:-1]]) & (onset[at[1:]] == onset[at[:-1]])
    found.append((at[1:][same & (values[at[1:]] <= values[at[:-1]])], "pitches rise at one onset"))
    for token_type in (T.DURATION, T.VELOCITY):
        at = index[types == token_type]
        same = cell[at[1:]] == cell[at[:-1]]
        found.append((at[1:][same & (values[at[1:]] == values[at[:-1]])], "it repeats what is in force"))
    drum_durations = (types == T.DURATION) & (instrument == DRUMS)
    found.append((index[drum_durations], "a drum hit has no duration"))
    return found


class GrammarState:
    """Where a document stands after some of its tokens, and what may come next.

    Args:
        vocabulary: Of the ids that :meth:`advance` takes and :meth:`allowed` answers for.
    """

    def __init__(self, vocabulary: Vocabulary | None = None) -> None:
        self.vocabulary = vocabulary or Vocabulary.default()
        self.last = T.PAD
        """Type of the latest token; PAD before BOS."""
        self.bar = -1
        """Number of the open bar, -1 before the first CHORD."""
        self.meter = -1
        """Number of the meter in force, see ``grid.METERS``; -1 before the first."""
        self.tempo = -1
        """Number of the tempo bin in force, -1 before the first."""
        self.instrument = GLOBAL
        """Program of the open cell, ``GLOBAL`` where none is open."""
        self.onset = -1
        self.pitch = -1
        self.duration = -1
        self.velocity = -1
        """Of the latest note of the open cell; -1 where the cell has none yet."""
        self.notes_in_bar = 0
        self.instruments_used: set[int] = set()
        """Programs that have opened a cell anywhere in the document."""

    @classmethod
    def after(cls, ids: np.ndarray, vocabulary: Vocabulary | None = None) -> GrammarState:
        """The state after ``ids``, which must be the beginning of a valid document."""
        state = cls(vocabulary)
        for token_id in ids:
            state.advance(int(token_id))
        return state

    @property
    def bar_steps(self) -> int:
        """Length of the open bar in steps."""
        return int(METER_STEPS[self.meter]) if self.meter >= 0 else MAX_BAR_STEPS

    @property
    def at_note_end(self) -> bool:
        """Whether the open note is complete, so that the bar or the piece may end here."""
        if self.last in (T.CHORD, T.METER, T.TEMPO):
            return self.meter >= 0 and self.tempo >= 0
        return self.last in (T.PITCH, T.DURATION, T.VELOCITY) and self.velocity >= 0 and not self._needs_duration

    @property
    def _needs_duration(self) -> bool:
        return self.duration < 0 and self.instrument != DRUMS

    def advance(self, token_id: int) -> None:
        """Take one token, which must be allowed; this is not checked again.

        Raises:
            VocabularyError: The id is outside the vocabulary.
        """
        canonical = int(self.vocabulary.to_canonical(np.array([token_id]))[0])
        token_type, value = TokenType(int(CANONICAL_TYPE[canonical])), int(CANONICAL_VALUE[canonical])
        match token_type:
            case T.CHORD:
                self.bar += 1
                self.notes_in_bar = 0
                self._open_cell(GLOBAL)
            case T.METER:
                self.meter = value
            case T.TEMPO:
                self.tempo = value
            case T.INSTRUMENT:
                self._open_cell(value)
                self.instruments_used.add(value)
            case T.ONSET:
                self.onset, self.pitch = value, -1
            case T.PITCH:
                self.pitch = value
                self.notes_in_bar += 1
            case T.DURATION:
                self.duration = value
            case T.VELOCITY:
                self.velocity = value
            case _:
                pass
        self.last = token_type

    def _open_cell(self, instrument: int) -> None:
        self.instrument = instrument
        self.onset = self.pitch = self.duration = self.velocity = -1

    def allowed(self) -> np.ndarray:
        """(V,) bool, which ids of the vocabulary may come next; none after EOS."""
        mask = self.allowed_canonical()
        return mask if self.vocabulary.is_full else mask[self.vocabulary.canonical]

    def allowed_canonical(self) -> np.ndarray:
        """(C,) bool, the same over canonical ids."""
        mask = np.zeros(NUM_CANONICAL, dtype=bool)
        if self.last == T.PAD:
            mask[BOS] = True
        elif self.last == T.BOS:
            mask[_SLICE[T.CHORD]] = True
        elif self.last in (T.CHORD, T.METER, T.TEMPO):
            self._allow_header(mask)
        elif self.last == T.INSTRUMENT:
            self._allow_onsets(mask)
        elif self.last == T.ONSET:
            mask[_SLICE[T.PITCH]] = True
        elif self.last in (T.PITCH, T.DURATION, T.VELOCITY):
            self._allow_note(mask)
        return mask

    def _allow_header(self, mask: np.ndarray) -> None:
        if self.last == T.CHORD:
            self._allow_other(mask, T.METER, self.meter)
        if self.last != T.TEMPO and self.meter >= 0:
            self._allow_other(mask, T.TEMPO, self.tempo)
        if self.at_note_end:
            self._allow_cells_and_bars(mask)

    def _allow_note(self, mask: np.ndarray) -> None:
        if self.last == T.PITCH and self.instrument != DRUMS:
            self._allow_other(mask, T.DURATION, self.duration)
        if self._needs_duration:
            return
        if self.last != T.VELOCITY:
            self._allow_other(mask, T.VELOCITY, self.velocity)
        if self.at_note_end:
            self._allow_onsets(mask)
            mask[FIRST_ID[T.PITCH] + self.pitch + 1 : _SLICE[T.PITCH].stop] = True
            self._allow_cells_and_bars(mask)

    def _allow_onsets(self, mask: np.ndarray) -> None:
        first = FIRST_ID[T.ONSET]
        mask[first + self.onset + 1 : first + self.bar_steps] = True

    def _allow_cells_and_bars(self, mask: np.ndarray) -> None:
        rank = -1 if self.instrument == GLOBAL else int(ENSEMBLE_RANK[self.instrument])
        mask[_SLICE[T.INSTRUMENT]] = _INSTRUMENTS_AFTER[rank + 1]
        mask[_SLICE[T.CHORD]] = True
        mask[_SLICE[T.EOS]] = True

    def _allow_other(self, mask: np.ndarray, token_type: TokenType, in_force: int) -> None:
        """Allow every token of a type but the one whose value is in force (-1: none is)."""
        allowed = _SLICE[token_type]
        mask[allowed] = CANONICAL_VALUE[allowed] != in_force

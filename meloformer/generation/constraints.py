"""Wishes that are always obeyed, as what may come next: a piece that keeps to it can always be ended as wished."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Set

import numpy as np

from meloformer.errors import GenerationError
from meloformer.generation.lineup import NUM_PROGRAMS, Lineup
from meloformer.generation.plan import BarPlan
from meloformer.generation.voices import Voices
from meloformer.generation.wishes import Wishes
from meloformer.midi.score import DRUMS
from meloformer.tokens.attributes import GLOBAL
from meloformer.tokens.ensemble import ENSEMBLE_RANK
from meloformer.tokens.grammar import GrammarState
from meloformer.tokens.vocabulary import CANONICAL_TYPE, FIRST_ID, NUM_CANONICAL, TokenType, Vocabulary

T = TokenType
_OPEN_BAR = BarPlan()
OPENING_BARS = 4
"""In which wished instruments begin, and of others none is new to the piece: in 471 real pieces of at least 32 bars
2.2 instruments began there, and 1.5 later."""

_SPAN = {kind: slice(FIRST_ID[kind], FIRST_ID[kind] + int((CANONICAL_TYPE == kind).sum())) for kind in TokenType}
"""The canonical ids of every type."""
_NOTES = [_SPAN[kind] for kind in (T.ONSET, T.PITCH, T.DURATION, T.VELOCITY)]
_BAR_ENDS = (_SPAN[T.CHORD], _SPAN[T.EOS])


class Constraints:
    """One piece in the making, and what may come next.

    Args:
        wishes: What it must be.
        vocabulary: Of its ids.
        plans: Bars, counted from 0, of which something is laid down; all others are free.
        beginning: (T,) ids that it opens with, as they are: music that was given.
    """

    def __init__(
        self,
        wishes: Wishes,
        vocabulary: Vocabulary,
        plans: Mapping[int, BarPlan] | None = None,
        beginning: np.ndarray | None = None,
    ) -> None:
        self.wishes = wishes
        self.vocabulary = vocabulary
        self.state = GrammarState(vocabulary)
        self._plans = dict(plans or {})
        self._voices = Voices()
        self._forced: deque[int] = deque()
        """Canonical ids of the rest of a cell that is kept."""
        self._next_kept = 0
        self._in_kept_cell = False
        self._new_notes = self._notes_in_cell = 0
        self._latest_bar: dict[int, int] = {}
        """Of programs of which something new was written, the latest bar in which they sound."""
        self._asked_for = _programs(frozenset().union(*(wishes.instruments or ())))
        self._lineup = Lineup()
        for token_id in () if beginning is None else beginning.tolist():
            self._follow(token_id)
        self._first_new_bar = self.state.bar + 1
        if self.state.bar >= 0:  # the given bar is complete
            self._in_kept_cell = True
            self._plans[self.state.bar] = BarPlan(None, self.state.meter, self.state.tempo, (), frozenset())
        new_bars = range(self._first_new_bar, wishes.bars)
        free_bars = [bar for bar in new_bars if self._free_programs(bar).any()]
        self._free_bars = range(free_bars[0], free_bars[-1] + 1) if free_bars else range(0)
        self._by_grammar = np.zeros(NUM_CANONICAL, dtype=bool)

    @property
    def is_finished(self) -> bool:
        """Whether the piece is whole."""
        return self.state.last == T.EOS

    def advance(self, token_id: int) -> None:
        """Take one token, which must be allowed."""
        state, canonical = self.state, int(self.vocabulary.canonical[token_id])
        self._follow(token_id)
        if self._forced:
            self._forced.popleft()
        elif state.last == T.CHORD:
            self._next_kept = self._new_notes = 0
            self._in_kept_cell = False
            for program in self._latest_bar.keys() & self._voices.ringing():
                self._latest_bar[program] = state.bar
        elif state.last == T.INSTRUMENT:
            self._open_cell(canonical)
        elif state.last == T.PITCH:
            self._new_notes += 1
            self._notes_in_cell += 1
            self._latest_bar[state.instrument] = state.bar

    def _follow(self, token_id: int) -> None:
        self.state.advance(token_id)
        self._voices.advance(self.state)
        self._lineup.advance(self.state, self._voices)

    def _open_cell(self, canonical: int) -> None:
        cells = self._plan.cells
        self._in_kept_cell = self._next_kept < len(cells) and cells[self._next_kept].ids[0] == canonical
        if self._in_kept_cell:
            self._forced.extend(cells[self._next_kept].ids[1:])
            self._next_kept += 1
        else:
            self._notes_in_cell = 0

    def allowed(self) -> np.ndarray:
        """(V,) bool: what the grammar allows next and the wishes do too.

        Raises:
            GenerationError: Nothing is left, because a pruned vocabulary lacks what the grammar needs here.
        """
        state = self.state
        if self._forced:
            mask = np.zeros(NUM_CANONICAL, dtype=bool)
            mask[self._forced[0]] = True
            self._by_grammar = mask
            return mask[self.vocabulary.canonical]
        self._by_grammar = state.allowed_canonical()
        mask = self._by_grammar.copy()
        if state.last in (T.CHORD, T.METER, T.TEMPO):
            self._keep_meter(mask)
            self._keep_tempo(mask)
        elif state.last != T.BOS:
            self._keep_notes(mask)
        if state.at_note_end:
            self._keep_cells(mask)
        chord = self._chord(state.bar + 1)
        if chord is not None:
            _leave(mask, T.CHORD, chord)
        allowed = mask[self.vocabulary.canonical]
        if not allowed.any():
            raise GenerationError(
                f"the model's vocabulary has no token that may follow {state.last.name}",
                "use a model whose vocabulary was not pruned",
            )
        return allowed

    @property
    def by_grammar(self) -> np.ndarray:
        """(V,) bool: what the grammar alone allowed when :meth:`allowed` was asked last."""
        return self._by_grammar[self.vocabulary.canonical]

    @property
    def notes_in_new_cell(self) -> int | None:
        """Notes so far in the open cell, where a complete note of a new cell is the latest; else ``None``."""
        is_new = self.state.at_note_end and self.state.instrument != GLOBAL and not self._in_kept_cell
        return self._notes_in_cell if is_new else None

    def is_new_instrument(self, programs: np.ndarray) -> np.ndarray:
        """(N,) bool, which of (N,) programs would be new to the piece, and nobody asked for them.

        Of a wished family one is asked for: when it has played, the others are new. None is where none has played yet,
        and in the opening bars only those of a family.
        """
        if not self.state.instruments_used or (self.wishes.instruments is None and self.state.bar < OPENING_BARS):
            return np.zeros(len(programs), dtype=bool)
        return ~(_programs(self.state.instruments_used) | self._yet_to_begin())[programs]

    def lineup_lean(self, programs: np.ndarray) -> np.ndarray:
        """(N,) 1 for those of (N,) programs that played in the bar before, -1 for those that did not.

        0 for who sounds already in the open bar, who is asked for and has yet to begin, and where no bar has sounded.
        """
        return np.where(self._yet_to_begin(), 0.0, self._lineup.lean())[programs]

    def _yet_to_begin(self) -> np.ndarray:
        """(129,) bool, the programs that are asked for, as long as none of their wish has played."""
        wished = self.wishes.instruments
        if wished is None:
            return _programs((self._plan.free or frozenset()) - self.state.instruments_used)
        return _programs(frozenset().union(*(wish for wish in wished if self._latest(wish) is None)))

    def is_due(self, programs: np.ndarray) -> np.ndarray:
        """(N,) bool, which of (N,) programs would fulfil a wish without which the bar may not end."""
        return _programs(frozenset().union(*self._due()))[programs]

    @property
    def _plan(self) -> BarPlan:
        return self._plans.get(self.state.bar, _OPEN_BAR)

    def _chord(self, bar: int) -> int | None:
        """What the chord of a bar must be."""
        plan = self._plans.get(bar, _OPEN_BAR)
        if self.wishes.chords and plan.is_open:
            return self.wishes.chords[(bar - self._first_new_bar) % len(self.wishes.chords)]
        return plan.chord

    def _keep_meter(self, mask: np.ndarray) -> None:
        """Leave of the meters the wished one, and nothing else where it has to be written now."""
        wished = self._plan.meter
        for bar, meter in self.wishes.meters if self._plan.is_open else ():
            wished = meter if bar <= self.state.bar else wished
        if wished is None:
            return
        is_due = self.state.last == T.CHORD and wished != self.state.meter
        _leave(mask, T.METER, wished if is_due else None)
        if is_due:
            mask[: _SPAN[T.METER].start] = False
            mask[_SPAN[T.METER].stop :] = False

    def _keep_tempo(self, mask: np.ndarray) -> None:
        is_wished = self.wishes.tempo is not None and self._plan.is_open
        wished = self.wishes.tempo if is_wished else self._plan.tempo
        if wished is None:
            return
        is_due = self.state.last in (T.CHORD, T.METER) and wished != self.state.tempo
        _leave(mask, T.TEMPO, wished if is_due else None)
        if is_due:
            for span in (_SPAN[T.INSTRUMENT], *_BAR_ENDS):
                mask[span] = False

    def _keep_notes(self, mask: np.ndarray) -> None:
        """Of a new note: a pitch in range, and no more notes at once or in the bar than wished."""
        state, wishes = self.state, self.wishes
        is_full = self._new_notes >= wishes.max_notes_per_bar and state.at_note_end
        if is_full or self._in_kept_cell:
            for span in _NOTES[:2] if is_full and not self._in_kept_cell else _NOTES:
                mask[span] = False
            return
        if wishes.pitch_range is not None and state.instrument != DRUMS:
            low, high = wishes.pitch_range
            pitches = mask[_SPAN[T.PITCH]]
            pitches[:low] = pitches[high + 1 :] = False
        if wishes.max_polyphony is not None:
            onsets = mask[_SPAN[T.ONSET]]
            if onsets.any():
                onsets[: state.bar_steps] &= self._has_room(state.instrument, np.arange(state.bar_steps))
            if state.last != T.ONSET and not self._has_room(state.instrument, np.array([state.onset])).all():
                mask[_SPAN[T.PITCH]] = False

    def _has_room(self, program: int, onset: np.ndarray) -> np.ndarray:
        """(N,) bool, whether one more note of the program may begin at each onset.

        An instrument that has to play in the bar may, even where given notes ring on; new ones do not, as it rested.
        """
        most = self.wishes.max_polyphony
        assert most is not None
        if any(program in wish for wish in self._due()):
            return np.ones(len(onset), dtype=bool)
        return self._voices.sounding(program, onset) < most

    def _keep_cells(self, mask: np.ndarray) -> None:
        """Which instruments may come next, and whether the bar and the piece may end."""
        state, wishes = self.state, self.wishes
        due = self._due()
        free = self._free_programs(state.bar)
        if self._new_notes >= wishes.max_notes_per_bar:
            free &= _programs(frozenset().union(*due))
        if wishes.max_polyphony is not None:
            latest = np.array([self._latest_onset()])
            for program in self._voices.ringing():
                free[program] &= bool(self._has_room(program, latest)[0])
        kept = self._plan.cells[self._next_kept :]
        if kept:
            free &= ENSEMBLE_RANK < ENSEMBLE_RANK[kept[0].program]
            free[kept[0].program] = True
        for wish in due:
            free &= ENSEMBLE_RANK <= max(ENSEMBLE_RANK[program] for program in wish)
        mask[_SPAN[T.INSTRUMENT]] &= free
        is_last_bar = state.bar + 1 == wishes.bars
        mask[_SPAN[T.EOS]] &= is_last_bar and not kept and not due
        mask[_SPAN[T.CHORD]] &= not is_last_bar and not kept and not due

    def _latest_onset(self) -> int:
        """The latest onset of the vocabulary in the open bar."""
        onsets = self.vocabulary.values[self.vocabulary.types == T.ONSET]
        return int(onsets[onsets < self.state.bar_steps].max(initial=0))

    def _free_programs(self, bar: int) -> np.ndarray:
        """(129,) bool, of which instruments something new may be written in a bar."""
        free = _programs(self._plans.get(bar, _OPEN_BAR).free)
        if self.wishes.instruments is not None:
            free &= self._asked_for
        return free

    def _due(self) -> list[frozenset[int]]:
        """The wished instruments that must play in the open bar, and have not: they rested for as long as they may."""
        bar = self.state.bar
        if bar not in self._free_bars:
            return []
        begins_by = self._free_bars[:OPENING_BARS][-1]

        def plays_by(wish: frozenset[int]) -> int:
            latest = self._latest(wish)
            return begins_by if latest is None else latest + self.wishes.max_rest + 1

        due = (wish for wish in self.wishes.instruments or () if bar >= plays_by(wish))
        return [wish & self._latest_bar.keys() or wish for wish in due]  # of a family what began goes on

    def _latest(self, wish: frozenset[int]) -> int | None:
        """The latest bar in which a wished instrument sounds; ``None`` where nothing new of it was written yet."""
        return max((self._latest_bar[program] for program in wish & self._latest_bar.keys()), default=None)


def _programs(wanted: Set[int] | None) -> np.ndarray:
    """(129,) bool; ``None`` is all."""
    mask = np.full(NUM_PROGRAMS, wanted is None)
    if wanted:
        mask[sorted(wanted)] = True
    return mask


def _leave(mask: np.ndarray, token_type: TokenType, value: int | None) -> None:
    """Leave of a type the one token of ``value``, if it was allowed, or none of it."""
    span = _SPAN[token_type]
    had = value is not None and bool(mask[span.start + value])
    mask[span] = False
    if value is not None:
        mask[span.start + value] = had

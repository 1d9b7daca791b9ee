"""Wishes that are always obeyed: number of bars, tempo, meter, instruments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from meloformer.errors import GenerationError
from meloformer.midi.programs import programs_of
from meloformer.tokens.ensemble import ENSEMBLE_RANK
from meloformer.tokens.grammar import GrammarState
from meloformer.tokens.grid import METER_NUMBER, nearest_tempo
from meloformer.tokens.vocabulary import FIRST_ID, TokenType, Vocabulary


@dataclass(frozen=True)
class Wishes:
    """What a piece must be.

    ``instruments`` holds one set of programs for every wished name: only these play, and of each set at least one.
    """

    bars: int
    tempo: int | None = None
    """Tempo bin."""
    meter: int | None = None
    """Meter number."""
    instruments: tuple[frozenset[int], ...] | None = None
    max_notes_per_bar: int = 256


def make_wishes(
    vocabulary: Vocabulary,
    *,
    bars: int,
    tempo: float | None,
    meter: str | None,
    instruments: str | None,
    max_notes_per_bar: int,
) -> Wishes:
    """Read wishes as people write them, and check that the vocabulary can fulfil them.

    Args:
        vocabulary: Of the model.
        bars: Length.
        tempo: Quarters a minute; the nearest bin is taken.
        meter: Such as ``3/4``.
        instruments: Names or numbers with commas between, see :func:`~meloformer.midi.programs.programs_of`.
        max_notes_per_bar: See the settings.
    Raises:
        GenerationError: HID or the vocabulary has no such meter, tempo or instrument.
        SettingsError: An instrument's name is unknown.
    """
    known = set(vocabulary.names)
    tempo_bin = meter_number = wished = None
    if tempo is not None:
        tempo_bin = int(nearest_tempo(np.array([60e6 / tempo]))[0])
        _require(known, vocabulary, TokenType.TEMPO, tempo_bin, f"tempo {tempo:g}")
    if meter is not None:
        numerator, _, denominator = meter.partition("/")
        pair = (int(numerator), int(denominator)) if numerator.isdecimal() and denominator.isdecimal() else None
        if pair not in METER_NUMBER:
            raise GenerationError(
                f"the meter {meter!r} cannot be written", "give n/d with d of 1 2 4 8 16 and at most 8 quarters a bar"
            )
        meter_number = METER_NUMBER[pair]
        _require(known, vocabulary, TokenType.METER, meter_number, f"meter {meter}")
    if instruments is not None:
        wished = tuple(_programs(name, vocabulary, known) for name in instruments.split(",") if name.strip())
        if not wished:
            raise GenerationError(f"instruments {instruments!r} names none", "write for example drums,bass,piano")
    return Wishes(bars, tempo_bin, meter_number, wished, max_notes_per_bar)


def _require(known: set[str], vocabulary: Vocabulary, token_type: TokenType, value: int, what: str) -> None:
    name = Vocabulary.default().names[FIRST_ID[token_type] + value]
    if name not in known:
        have = ", ".join(vocabulary.names[i] for i in np.flatnonzero(vocabulary.types == token_type))
        raise GenerationError(f"the model's vocabulary has no {what}", f"it has {have}")


def _programs(name: str, vocabulary: Vocabulary, known: set[str]) -> frozenset[int]:
    """The programs of a name that the vocabulary has; at least one."""
    first = FIRST_ID[TokenType.INSTRUMENT]
    found = frozenset(p for p in programs_of(name) if Vocabulary.default().names[first + p] in known)
    if not found:
        have = ", ".join(vocabulary.names[i] for i in np.flatnonzero(vocabulary.types == TokenType.INSTRUMENT))
        raise GenerationError(f"the model's vocabulary has no {name.strip()}", f"it has {have}")
    return found


def allowed_tokens(state: GrammarState, wishes: Wishes) -> np.ndarray:
    """(V,) bool: what the grammar allows next and the wishes do too.

    A piece that has kept to this so far can always be ended, with every wish fulfilled.

    Raises:
        GenerationError: Nothing is left, because a pruned vocabulary lacks what the grammar needs here.
    """
    allowed = state.allowed_canonical()
    is_last_bar = state.bar + 1 == wishes.bars
    pending = _pending(state, wishes)
    _only(allowed, TokenType.METER, wishes.meter if state.meter < 0 else None, wishes.meter is not None)
    _only(allowed, TokenType.TEMPO, wishes.tempo if state.tempo < 0 else None, wishes.tempo is not None)
    programs = _span(TokenType.INSTRUMENT)
    if wishes.instruments is not None:
        wanted = np.zeros(programs.stop - programs.start, dtype=bool)
        wanted[sorted(frozenset().union(*wishes.instruments))] = True
        allowed[programs] &= wanted
    if is_last_bar:
        allowed[_span(TokenType.CHORD)] = False
        for wish in pending:
            latest = max(ENSEMBLE_RANK[program] for program in wish)
            allowed[programs] &= ENSEMBLE_RANK <= latest
    if not is_last_bar or pending:
        allowed[_span(TokenType.EOS)] = False
    if state.notes_in_bar >= wishes.max_notes_per_bar and state.at_note_end:
        allowed[_span(TokenType.ONSET)] = allowed[_span(TokenType.PITCH)] = False
        of_use = np.zeros(programs.stop - programs.start, dtype=bool)
        if is_last_bar and pending:
            of_use[sorted(frozenset().union(*pending))] = True
        allowed[programs] &= of_use
    allowed = allowed[state.vocabulary.canonical]
    if not allowed.any():
        raise GenerationError(
            f"the model's vocabulary has no token that may follow {state.last.name}",
            "use a model whose vocabulary was not pruned",
        )
    return allowed


_INTENTIONS: tuple[tuple[TokenType, ...], ...] = ((TokenType.CHORD, TokenType.EOS), (TokenType.INSTRUMENT,))
"""What ends a bar, and what opens a cell."""


def redirected(logits: np.ndarray, state: GrammarState, allowed: np.ndarray) -> np.ndarray:
    """Logits in which what a wish forbids strengthens what means the same, instead of all that is left.

    A model that wants to end the last bar says CHORD, which may not come; without this its wish would go to further
    notes. So the probability of forbidden bar ends goes to the bar ends that are allowed, or else to the instruments,
    and that of forbidden instruments to the instruments that are allowed, or else to the bar ends.

    Args:
        logits: (V,) of one position.
        state: What the grammar would allow.
        allowed: (V,) bool, what the wishes allow too.
    Returns:
        (V,) float64.
    """
    redirected_logits = logits.astype(np.float64)
    by_grammar, types = state.allowed(), state.vocabulary.types
    groups = [np.isin(types, intention) for intention in _INTENTIONS]
    for group, other in (groups, groups[::-1]):
        forbidden = logits[group & by_grammar & ~allowed].astype(np.float64)
        heirs = group & allowed if (group & allowed).any() else other & allowed
        if len(forbidden) and heirs.any():
            before = np.logaddexp.reduce(redirected_logits[heirs])
            redirected_logits[heirs] += np.logaddexp(before, np.logaddexp.reduce(forbidden)) - before
    return redirected_logits


def _pending(state: GrammarState, wishes: Wishes) -> list[frozenset[int]]:
    """The wished instruments that have not played yet."""
    return [wish for wish in wishes.instruments or () if not wish & state.instruments_used]


def _only(allowed: np.ndarray, token_type: TokenType, value: int | None, is_wished: bool) -> None:
    """Leave of a type the one token of ``value``, or none of it; all where nothing is wished."""
    if is_wished:
        span = _span(token_type)
        had = allowed[span].copy()
        allowed[span] = False
        if value is not None:
            allowed[span.start + value] = had[value]


def _span(token_type: TokenType) -> slice:
    """The canonical ids of one type."""
    later = [FIRST_ID[other] for other in TokenType if other > token_type]
    return slice(FIRST_ID[token_type], min(later, default=len(Vocabulary.default())))

"""Music that was given: what of it opens the new piece, and what is kept of every bar after that."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from meloformer.errors import GenerationError, RejectError
from meloformer.generation.wishes import Wishes, bar_range, make_wishes, programs_named
from meloformer.midi.programs import program_name
from meloformer.midi.sources import read_source
from meloformer.settings import GenerationSettings
from meloformer.tokens.encode import encode
from meloformer.tokens.vocabulary import BOS, CANONICAL_TYPE, CANONICAL_VALUE, TokenType, Vocabulary


class Cell(NamedTuple):
    """What one instrument plays in a bar."""

    program: int
    ids: list[int]
    """Canonical, from its INSTRUMENT on."""


class BarPlan(NamedTuple):
    """What is laid down of one bar; by default nothing."""

    chord: int | None = None
    meter: int | None = None
    """In force in this bar; so is the tempo."""
    tempo: int | None = None
    cells: tuple[Cell, ...] = ()
    """Kept as they are, in ensemble order."""
    free: frozenset[int] | None = None
    """Programs of which new cells may be written; ``None`` for all."""

    @property
    def is_open(self) -> bool:
        """Whether anything new may be written."""
        return self.free is None or bool(self.free)


@dataclass(frozen=True)
class Assignment:
    """What is to be written."""

    wishes: Wishes
    plans: dict[int, BarPlan]
    beginning: np.ndarray
    """(T,) ids of the model's vocabulary that the piece opens with, from BOS on."""


def assignment(settings: GenerationSettings, vocabulary: Vocabulary) -> Assignment:
    """What the settings ask for: a piece of its own, one that goes on, or one of which something is written anew.

    Raises:
        GenerationError: Wishes cannot be fulfilled, or do not go together.
        InputError, RejectError: The given music cannot be read.
        VocabularyError: The given music needs a token that the model does not have.
    """
    start = vocabulary.from_canonical(np.array([BOS]))
    rewriting = [name for name in ("replace", "add", "vary") if getattr(settings, name) is not None]
    if settings.primer is None:
        if rewriting or settings.primer_bars is not None:
            name = (rewriting or ["primer_bars"])[0]
            wish = f"--{name.replace('_', '-')} {getattr(settings, name)}"
            raise GenerationError(f"{wish} needs music of your own", "name it with --primer song.mid")
        return Assignment(make_wishes(vocabulary, settings), {}, start)
    bars = _read_bars(str(settings.primer), vocabulary)
    if settings.primer_bars is not None:
        if settings.primer_bars > len(bars):
            raise GenerationError(
                f"{settings.primer} has {len(bars)} bars, not {settings.primer_bars}", "take fewer with --primer-bars"
            )
        bars = bars[: settings.primer_bars]
    if not any(bar.plan.cells for bar in bars):
        raise GenerationError(f"{settings.primer} has no notes in its {len(bars)} bars", "name music that has some")
    if rewriting:
        return _rewritten(settings, vocabulary, bars)
    if len(bars) >= settings.bars:
        raise GenerationError(
            f"{len(bars)} bars are given and the piece is to have {settings.bars} in all",
            f"ask for more with --bars {len(bars) + 16}, or take fewer with --primer-bars",
        )
    beginning = np.concatenate([[BOS], *(bar.ids for bar in bars)])
    return Assignment(make_wishes(vocabulary, settings), {}, vocabulary.from_canonical(beginning))


def _read_bars(name: str, vocabulary: Vocabulary) -> list[GivenBar]:
    score = read_source(name)
    try:
        return bars_of(vocabulary.to_canonical(encode(score, vocabulary)))
    except RejectError as error:
        raise RejectError(error.reason, f"{name}: {error.message}") from None


class GivenBar(NamedTuple):
    """One bar of given music."""

    ids: np.ndarray
    """Canonical, from its CHORD on."""
    plan: BarPlan
    """All of it, kept."""


def bars_of(canonical: np.ndarray) -> list[GivenBar]:
    """The bars of a whole document."""
    types, values = CANONICAL_TYPE[canonical], CANONICAL_VALUE[canonical]
    edges = [*np.flatnonzero(types == TokenType.CHORD).tolist(), len(canonical) - 1]
    in_force = {TokenType.METER: -1, TokenType.TEMPO: -1}
    bars = []
    for start, stop in pairwise(edges):
        for kind in in_force:
            found = values[start:stop][types[start:stop] == kind]
            in_force[kind] = int(found[0]) if len(found) else in_force[kind]
        opens = [start + int(at) for at in np.flatnonzero(types[start:stop] == TokenType.INSTRUMENT)]
        cells = tuple(Cell(int(values[at]), canonical[at:end].tolist()) for at, end in pairwise([*opens, stop]))
        plan = BarPlan(int(values[start]), in_force[TokenType.METER], in_force[TokenType.TEMPO], cells, frozenset())
        bars.append(GivenBar(canonical[start:stop], plan))
    return bars


def _rewritten(settings: GenerationSettings, vocabulary: Vocabulary, bars: list[GivenBar]) -> Assignment:
    """Write instruments anew, or all of some bars, and keep the rest."""
    for name in ("bars", "meter"):
        if name in settings.model_fields_set and getattr(settings, name) is not None:
            raise GenerationError(f"--{name} does not go with --replace, --add and --vary", "the piece keeps its bars")
    first, last = (0, len(bars) - 1) if settings.vary is None else bar_range(settings.vary, len(bars))
    playing = frozenset(cell.program for bar in bars for cell in bar.plan.cells)
    wished = _new_instruments(settings, vocabulary, playing)
    instruments = wished if wished is not None else _of_piece(settings, vocabulary)
    free = playing if instruments is None else frozenset().union(*instruments)
    plans: dict[int, BarPlan] = {}
    for number, bar in enumerate(bars):
        if first <= number <= last and wished is None:
            plans[number] = bar.plan._replace(chord=None, cells=(), free=free)
        elif first <= number <= last:
            kept = tuple(cell for cell in bar.plan.cells if cell.program not in free)
            plans[number] = bar.plan._replace(cells=kept, free=free)
        else:
            plans[number] = bar.plan
    if not free:
        raise GenerationError(f"{settings.primer} has no notes", "name instruments with --instruments")
    wishes = make_wishes(vocabulary, settings, bars=len(bars))
    wishes = dataclasses.replace(wishes, instruments=instruments)
    beginning = np.concatenate([np.array([BOS]), *(bar.ids for bar in bars[:first])])
    return Assignment(wishes, plans, vocabulary.from_canonical(beginning))


def _of_piece(settings: GenerationSettings, vocabulary: Vocabulary) -> tuple[frozenset[int], ...] | None:
    return None if settings.instruments is None else programs_named(settings.instruments, vocabulary)


def _new_instruments(
    settings: GenerationSettings, vocabulary: Vocabulary, playing: frozenset[int]
) -> tuple[frozenset[int], ...] | None:
    """The programs of each name of ``replace`` and ``add``; ``None`` where there is neither."""
    if settings.replace is None and settings.add is None:
        return None
    if settings.instruments is not None:
        raise GenerationError("--instruments does not go with --replace and --add", "these name the instruments")
    found: list[frozenset[int]] = []
    names = ", ".join(sorted(program_name(program) for program in playing)) or "nothing"
    for name, programs in _named(settings.replace, vocabulary):
        if not programs & playing:
            raise GenerationError(f"the piece has no {name} to replace", f"it has {names}; use --add")
        found.append(programs & playing)
    for name, programs in _named(settings.add, vocabulary):
        if not programs - playing:
            raise GenerationError(f"the piece has {name} already", "use --replace")
        found.append(programs - playing)
    return tuple(found)


def _named(names: str | None, vocabulary: Vocabulary) -> list[tuple[str, frozenset[int]]]:
    if names is None:
        return []
    listed = [name.strip() for name in names.split(",") if name.strip()]
    return list(zip(listed, programs_named(names, vocabulary), strict=True))

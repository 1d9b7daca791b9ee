"""From logits to one token."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from meloformer.generation.constraints import Constraints
from meloformer.settings import GenerationSettings
from meloformer.tokens.ensemble import ENSEMBLE_RANK
from meloformer.tokens.vocabulary import TokenType, Vocabulary

T = TokenType
DENSITY_NATS = 8.0
"""The most by which a further note is preferred to the end of its cell, or the end to it."""


class Sampler:
    """How tokens are chosen.

    Args:
        settings: Temperatures, and what is cut off.
        vocabulary: Of the model.
    """

    def __init__(self, settings: GenerationSettings, vocabulary: Vocabulary) -> None:
        self.settings = settings
        types = vocabulary.types
        self._bar_ends = np.isin(types, (T.CHORD, T.EOS))
        self._cells = types == T.INSTRUMENT
        self._notes = np.isin(types, (T.ONSET, T.PITCH))
        self._temperature_of = {
            T[name.upper()]: temperature for name, temperature in (settings.temperature_of or {}).items()
        }
        self._types = types
        cells = np.flatnonzero(self._cells)
        self._in_turn = cells[np.argsort(ENSEMBLE_RANK[vocabulary.values[cells]])]
        """Ids of the instruments in the order in which a bar has them; and the program of each."""
        self._programs = vocabulary.values[self._in_turn]

    def choose(
        self, logits: np.ndarray, allowed: np.ndarray, constraints: Constraints, rng: np.random.Generator
    ) -> int:
        """One token; one random number is drawn. For the other arguments see :meth:`probabilities`."""
        return sample(self.probabilities(logits, allowed, constraints), rng)

    def probabilities(self, logits: np.ndarray, allowed: np.ndarray, constraints: Constraints) -> np.ndarray:
        """(V,) what to sample from.

        Args:
            logits: (V,) of one position.
            allowed: (V,) bool, what the constraints allow there, at least one.
            constraints: Of the piece.
        """
        settings, scores = self.settings, logits.astype(np.float64)
        self._redirect(scores, allowed, constraints)
        self._hold_lineup(scores, allowed, constraints)
        density, num_notes = constraints.wishes.density, constraints.notes_in_new_cell
        if density is not None and num_notes is not None:
            self._lean(scores, allowed, density_lean(num_notes, density))
        ids = np.flatnonzero(allowed)
        probabilities = np.zeros(len(scores))
        probabilities[ids] = token_probabilities(
            scores[ids],
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            min_p=settings.min_p,
            types=self._types[ids],
            temperature_of=self._temperature_of,
        )
        return probabilities

    def _redirect(self, scores: np.ndarray, allowed: np.ndarray, constraints: Constraints) -> None:
        """Let what a wish forbids strengthen what means the same, instead of all that is left.

        A model that wants to end the last bar says CHORD, which may not come; without this its wish would go to
        further notes. So the probability of forbidden bar ends goes to the bar ends that are allowed, or else to the
        instruments that must come before one, or else to all instruments, and that of forbidden instruments to the
        instruments that are allowed, or else to the bar ends.
        """
        before = scores.copy()
        forbidden = constraints.by_grammar & ~allowed
        due = np.zeros(len(scores), dtype=bool)
        due[self._in_turn] = constraints.is_due(self._programs)
        for group, *others in ((self._bar_ends, due, self._cells), (self._cells, self._bar_ends)):
            lost = before[group & forbidden]
            if len(lost):
                heirs = next((heirs & allowed for heirs in (group, *others) if (heirs & allowed).any()), None)
                if heirs is not None:
                    had = _log_sum(scores[heirs])
                    scores[heirs] += np.logaddexp(had, _log_sum(lost)) - had

    def _hold_lineup(self, scores: np.ndarray, allowed: np.ndarray, constraints: Constraints) -> None:
        """Let who played in the bar before be likelier to play on, and who did not, or never did, be less likely to."""
        may_come = allowed[self._in_turn]
        if not may_come.any():
            return
        cells, programs = self._in_turn[may_come], self._programs[may_come]
        settings, ends = self.settings, self._bar_ends & allowed
        lean = settings.instrument_change_penalty * constraints.lineup_lean(programs)
        lean -= settings.new_instrument_penalty * constraints.is_new_instrument(programs)
        if not lean.any():
            return
        end = _log_sum(scores[ends]) if ends.any() else -np.inf
        scores[cells], new_end = lean_in_turn(scores[cells], end, lean)
        if ends.any():
            scores[ends] += new_end - end

    def _lean(self, scores: np.ndarray, allowed: np.ndarray, by: float) -> None:
        """Prefer further notes to the end of the cell by so many nats; together they stay as probable."""
        going_on, ending = self._notes & allowed, (self._bar_ends | self._cells) & allowed
        if going_on.any() and ending.any():
            before, rest = _log_sum(scores[going_on]), _log_sum(scores[ending])
            (leaned,), left = lean_in_turn(np.array([before]), rest, np.array([by]))
            scores[going_on] += leaned - before
            scores[ending] += left - rest


def lean_in_turn(scores: np.ndarray, rest: float, lean: np.ndarray) -> tuple[np.ndarray, float]:
    """Change the odds of every one of several that are asked in turn, the first that is taken being the one.

    So each is leaned to by as much whatever the others are, and all together stay as probable.

    Args:
        scores: (N,) logarithms of the weights of each, N >= 1, in turn.
        rest: That of none of them, or minus infinity.
        lean: (N,) nats that its odds against all behind it are changed by.
    Returns:
        The new scores and the new rest.
    """
    with_rest = np.append(scores, rest)
    onward = np.logaddexp.accumulate(with_rest[::-1])[::-1]  # of each and all behind it
    odds = scores - onward[1:] + lean
    passed_over = np.cumsum(-np.logaddexp(0, odds))  # logarithm of the share that goes on behind each
    taken = np.append(0.0, passed_over[:-1]) - np.logaddexp(0, -odds)
    return onward[0] + taken, float(onward[0] + passed_over[-1])


def density_lean(num_notes: int, density: float) -> float:
    """Nats by which note ``num_notes + 1`` of a cell is preferred to the end of the cell.

    None where half of that note would meet the target, which is how far a cell may be off. They grow with the distance
    to it, counted in square roots of the target: so far do numbers of notes scatter that come at random.

    Args:
        num_notes: In the cell, >= 1.
        density: Notes of a cell that are aimed at, > 0.
    """
    distance = (density - num_notes - 0.5) / density**0.5
    return float(np.clip(DENSITY_NATS * distance, -DENSITY_NATS, DENSITY_NATS))


def token_probabilities(
    scores: np.ndarray,
    *,
    temperature: float,
    top_k: int | None = None,
    top_p: float = 1.0,
    min_p: float = 0.0,
    types: np.ndarray | None = None,
    temperature_of: Mapping[TokenType, float] | None = None,
) -> np.ndarray:
    """What to sample from.

    Args:
        scores: (N,) logits of the tokens that may come.
        temperature: Divides them; 0 puts all probability on the likeliest token.
        top_k: Keep this many of the likeliest tokens; ``None`` keeps all.
        top_p: Keep the likeliest tokens up to and with the one at which they together reach this probability.
        min_p: Keep tokens that are at least so probable as this share of the likeliest's probability.
        types: (N,) token types, for ``temperature_of``.
        temperature_of: Type -> temperature among the tokens of that type; how probable the type is, ``temperature``
            says.
    Returns:
        (N,) float64, adds up to 1.
    """
    scores = _tempered(scores, temperature)
    for kind, own in (temperature_of or {}).items():
        of_kind = np.flatnonzero(types == kind)
        if len(of_kind) and scores[of_kind].max() > -np.inf:
            together = _log_sum(scores[of_kind])
            raw = _tempered(scores[of_kind] * temperature if temperature else scores[of_kind], own)
            scores[of_kind] = raw - _log_sum(raw) + together
    probabilities = np.exp(scores - scores.max())
    if min_p:
        probabilities[probabilities < min_p] = 0.0
    if top_k is None and top_p >= 1:
        return probabilities / probabilities.sum()
    order = np.argsort(-probabilities, kind="stable")
    kept = probabilities[order]
    if top_k is not None:
        kept[top_k:] = 0.0
    kept /= kept.sum()
    kept[np.cumsum(kept) - kept >= top_p] = 0.0
    probabilities[order] = kept / kept.sum()
    return probabilities


def _tempered(scores: np.ndarray, temperature: float) -> np.ndarray:
    """(N,) divided by the temperature; at 0 all but the likeliest are minus infinity."""
    if temperature > 0:
        return scores / temperature
    cold = np.full(len(scores), -np.inf)
    cold[int(scores.argmax())] = 0.0
    return cold


def _log_sum(scores: np.ndarray) -> float:
    """Logarithm of the sum of the exponentials."""
    most = scores.max()
    return float(most + np.log(np.exp(scores - most).sum())) if most > -np.inf else -np.inf


def sample(probabilities: np.ndarray, rng: np.random.Generator) -> int:
    """One token of (N,) probabilities; one random number is drawn, whatever they are."""
    cumulative = np.cumsum(probabilities)
    drawn = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
    return min(drawn, int(np.flatnonzero(probabilities)[-1]))

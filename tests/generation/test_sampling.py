"""From logits to a token: what is cut off, what is leaned to, and what a forbidden token's probability becomes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meloformer.generation.constraints import Constraints
from meloformer.generation.plan import BarPlan, Cell
from meloformer.generation.sampling import (
    DENSITY_NATS,
    Sampler,
    density_lean,
    lean_in_turn,
    sample,
    token_probabilities,
)
from meloformer.generation.wishes import make_wishes
from meloformer.settings import GenerationSettings
from meloformer.tokens.ensemble import ENSEMBLE_RANK
from meloformer.tokens.vocabulary import TokenType, Vocabulary


@pytest.mark.parametrize("density", [0.5, 1, 3, 16, 256])
def test_density_leans_to_further_notes_below_it_and_to_the_end_beyond(density: float) -> None:
    leans = [density_lean(num_notes, density) for num_notes in range(1, 400)]
    assert all(before >= after for before, after in pairwise(leans))
    for num_notes, lean in enumerate(leans, start=1):
        assert abs(lean) <= DENSITY_NATS
        assert np.sign(lean) == np.sign(density - num_notes - 0.5)


def test_probabilities_keep_what_is_asked_for() -> None:
    logits = np.log(np.array([0.4, 0.3, 0.2, 0.1]))
    types = np.array([TokenType.PITCH, TokenType.PITCH, TokenType.ONSET, TokenType.ONSET])

    def kept(**changes: Any) -> list[float]:
        return token_probabilities(logits.copy(), **{"temperature": 1.0, "types": types, **changes}).round(6).tolist()

    assert kept() == [0.4, 0.3, 0.2, 0.1]
    assert kept(top_k=2) == [0.571429, 0.428571, 0, 0]
    assert kept(top_p=0.69) == [0.571429, 0.428571, 0, 0]
    assert kept(top_p=0.71) == [0.444444, 0.333333, 0.222222, 0]
    assert kept(min_p=0.6) == [0.571429, 0.428571, 0, 0]
    assert kept(temperature=0) == [1, 0, 0, 0]
    assert kept(temperature=0.5)[0] == pytest.approx(0.16 / 0.3, abs=1e-5)
    assert kept(temperature_of={TokenType.PITCH: 0.0}) == [0.7, 0, 0.2, 0.1]
    assert kept(temperature_of={TokenType.ONSET: 0.5}) == pytest.approx([0.4, 0.3, 0.24, 0.06], abs=1e-5)
    both = kept(temperature=0.5, temperature_of={TokenType.ONSET: 1.0})
    assert both == pytest.approx([0.16 / 0.3, 0.09 / 0.3, 0.05 / 0.3 * 2 / 3, 0.05 / 0.3 / 3], abs=1e-5)
    assert kept(temperature=0, temperature_of={TokenType.PITCH: 2.0}) == [1, 0, 0, 0]


def test_sampling_follows_the_probabilities() -> None:
    rng = np.random.default_rng(0)
    probabilities = np.array([0.0, 0.7, 0.0, 0.3])
    drawn = np.bincount([sample(probabilities, rng) for _ in range(4000)], minlength=4) / 4000
    assert drawn == pytest.approx(probabilities, abs=0.03)


NOTE = ("#40", "T0", "P60", "D12", "V9")
LATE = GenerationSettings(bars=9, new_instrument_penalty=2, instrument_change_penalty=0, min_p=0)
HELD = LATE.model_copy(update={"new_instrument_penalty": 0, "instrument_change_penalty": 1})
BASS_CELL, VIOLIN_CELL, FLUTE_CELL = "#33 T0 P40 D12 V9", "#40 T0 P60 D12 V9", "#73 T0 P60 D12 V9"


def leans(
    names: str,
    settings: GenerationSettings,
    plans: dict[int, BarPlan] | None = None,
    *,
    num_given: int = 0,
    logits: np.ndarray | None = None,
) -> dict[str, float]:
    """Instrument -> nats by which the penalties change its odds against all that may come behind it in the bar."""
    vocabulary = Vocabulary.default()
    ids = np.array([vocabulary.id_of(name) for name in names.split()], dtype=np.uint16)
    constraints = Constraints(make_wishes(vocabulary, settings), vocabulary, plans, ids[:num_given])
    for token_id in ids[num_given:].tolist():
        constraints.advance(token_id)
    allowed, logits = constraints.allowed(), np.zeros(len(vocabulary)) if logits is None else logits
    without = settings.model_copy(update={"new_instrument_penalty": 0, "instrument_change_penalty": 0})
    found, free = (
        Sampler(each, vocabulary).probabilities(logits, allowed, constraints) for each in (settings, without)
    )
    ends_cell = np.isin(vocabulary.types, (TokenType.INSTRUMENT, TokenType.CHORD, TokenType.EOS))
    assert found[~ends_cell] == pytest.approx(free[~ends_cell])  # whether the cell ends is left to the model
    assert found.sum() == pytest.approx(1)
    instruments = np.flatnonzero(allowed & (vocabulary.types == TokenType.INSTRUMENT))
    changed = {}
    behind = np.array([found[ends_cell].sum(), free[ends_cell].sum()])
    for token_id in instruments[np.argsort(ENSEMBLE_RANK[vocabulary.values[instruments]])]:
        own = np.array([found[token_id], free[token_id]])
        behind -= own
        if behind[1] > 1e-9:
            with_penalty, alone = own / behind
            changed[vocabulary.names[token_id]] = float(np.log(with_penalty / alone))
    return changed


def flute_beside_violin(num_bars: int, settings: GenerationSettings, free: frozenset[int] | None = None) -> float:
    """The lean to a flute in the last of so many bars; a violin played in those before."""
    names = f"BOS N 4/4 120 {VIOLIN_CELL}" + f" N {VIOLIN_CELL}" * (num_bars - 2) + " N"
    return leans(names, settings, {num_bars - 1: BarPlan(free=free)})["#73"]


def test_an_instrument_that_comes_late_and_unasked_is_less_likely() -> None:
    assert flute_beside_violin(4, LATE) == pytest.approx(0)
    assert flute_beside_violin(5, LATE) == pytest.approx(-2)
    assert flute_beside_violin(5, LATE.model_copy(update={"new_instrument_penalty": 0})) == pytest.approx(0)
    asked_for = LATE.model_copy(update={"instruments": "violin,flute,oboe"})
    assert leans(f"BOS N 4/4 120 {VIOLIN_CELL} N {VIOLIN_CELL} N", asked_for)["#68"] == pytest.approx(0)
    varied = frozenset({40, 73})  # bars of a piece that has a flute elsewhere
    assert leans(f"BOS N 4/4 120 {VIOLIN_CELL}" + " N" * 4, LATE, {4: BarPlan(free=varied)})["#40"] == pytest.approx(0)
    assert flute_beside_violin(5, LATE, varied) == pytest.approx(0)
    assert set(leans("BOS N 4/4 120 N N N N", LATE).values()) == {0}  # nobody has played yet


def test_who_played_plays_on_and_who_did_not_is_held_back() -> None:
    both = f"BOS N 4/4 120 {BASS_CELL} {VIOLIN_CELL} N"
    found = leans(both, HELD)
    for name, lean in {"#D": -1, "#32": -1, "#33": 1, "#34": -1, "#40": 1, "#73": -1}.items():
        assert found[name] == pytest.approx(lean), name
    found = leans(f"{both} {BASS_CELL}", HELD)
    assert (found["#34"], found["#40"]) == pytest.approx((-1, 1))
    rng = np.random.default_rng(0)  # it is the same whatever the model thinks
    assert leans(both, HELD, logits=rng.normal(size=len(Vocabulary.default())))["#40"] == pytest.approx(1)
    together = HELD.model_copy(update={"new_instrument_penalty": 3})
    assert leans(f"{both} N N N {VIOLIN_CELL} N", together)["#73"] == pytest.approx(-4)


def test_no_lean_to_who_rings_on_is_awaited_or_has_nothing_before_it() -> None:
    assert set(leans("BOS N 4/4 120", HELD).values()) == {0}
    assert set(leans("BOS N 4/4 120 N", HELD).values()) == {0}
    found = leans(f"BOS N 4/4 120 {VIOLIN_CELL} #73 T0 P60 D96 V9 N {VIOLIN_CELL}", HELD)
    assert (found["#73"], found["#74"]) == pytest.approx((0, -1))  # the flute sounds in this bar, too
    found = leans(f"BOS N 4/4 120 {VIOLIN_CELL} N N", HELD)
    assert (found["#40"], found["#73"]) == pytest.approx((1, -1))  # the latest bar that sounds had the violin
    wished = HELD.model_copy(update={"instruments": "violin,oboe,flute"})
    found = leans(f"BOS N 4/4 120 {VIOLIN_CELL} N", wished)
    assert (found["#40"], found["#68"]) == pytest.approx((1, 0))  # the oboe is asked for


def test_instruments_of_other_bars_of_a_piece_that_is_varied_come_in_like_others() -> None:
    free = frozenset({40, 68, 73})
    names = f"BOS N 4/4 120 {VIOLIN_CELL} #68 T0 P60 D12 V9 N {VIOLIN_CELL} N"
    found = leans(names, HELD, {2: BarPlan(free=free)}, num_given=14)
    assert found == pytest.approx({"#40": 1, "#68": -1, "#73": 0})  # the flute has yet to begin


def test_what_must_come_comes_whoever_else_may() -> None:
    flute = [Vocabulary.default().id_of(name) for name in FLUTE_CELL.split()]
    kept = BarPlan(free=frozenset({33}), cells=(Cell(73, flute),))
    names = f"BOS N 4/4 120 {BASS_CELL} N {BASS_CELL} N"
    assert leans(names, HELD, {2: kept})["#33"] == pytest.approx(1)  # the flute comes in, whatever the bass does
    wished = HELD.model_copy(update={"instruments": "violin,oboe,flute", "max_rest": 1})
    found = leans(f"BOS N 4/4 120 {VIOLIN_CELL} {FLUTE_CELL} N {VIOLIN_CELL} N", wished)
    assert found == pytest.approx({"#40": 1, "#68": 0})  # the flute is due, so that nothing is behind it


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_a_lean_changes_the_odds_of_each_against_what_is_behind_it(num: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, rest, lean = rng.normal(0, 3, num), float(rng.normal(0, 3)), rng.normal(0, 2, num)
    taken, left = lean_in_turn(scores, rest, lean)
    before, after = np.exp(np.append(scores, rest)), np.exp(np.append(taken, left))
    assert after.sum() == pytest.approx(before.sum())
    for number in range(num):
        odds = after[number] / after[number + 1 :].sum(), before[number] / before[number + 1 :].sum()
        assert np.log(odds[0] / odds[1]) == pytest.approx(lean[number])
    taken, left = lean_in_turn(scores, -np.inf, lean)  # one of them must be
    assert np.exp(taken).sum() == pytest.approx(np.exp(scores).sum())
    assert left == -np.inf


def test_of_a_family_one_instrument_is_asked_for() -> None:
    vocabulary = Vocabulary.default()
    wished = LATE.model_copy(update={"instruments": "strings,flute"})
    constraints = Constraints(make_wishes(vocabulary, wished), vocabulary)
    for name in ("BOS", "N", "4/4", "120"):
        constraints.advance(vocabulary.id_of(name))
    programs = np.array([40, 41, 73])  # violin, viola, flute
    assert not constraints.is_new_instrument(programs).any()
    for name in (*NOTE, "N"):
        constraints.advance(vocabulary.id_of(name))
    assert constraints.is_new_instrument(programs).tolist() == [False, True, False]


@pytest.mark.parametrize(("bars", "due"), [(9, 3), (2, 1)])
def test_wished_instruments_begin_in_the_first_four_bars(bars: int, due: int) -> None:
    vocabulary = Vocabulary.default()
    chosen = GenerationSettings(bars=bars, instruments="violin,flute")
    constraints = Constraints(make_wishes(vocabulary, chosen), vocabulary)
    for name in ("BOS", "N", "4/4", "120", *NOTE):
        constraints.advance(vocabulary.id_of(name))
    bar_ends = np.isin(vocabulary.types, (TokenType.CHORD, TokenType.EOS))
    for bar in range(due):
        assert (constraints.allowed() & bar_ends).any(), bar
        for name in ("N", *NOTE):
            constraints.advance(vocabulary.id_of(name))
    assert not (constraints.allowed() & bar_ends).any()  # the flute has yet to begin
    assert constraints.allowed()[vocabulary.id_of("#73")]


@pytest.mark.parametrize("max_rest", [0, 1, 3])
@pytest.mark.parametrize("length", [12, 96])
def test_a_wished_instrument_rests_so_many_bars_and_no_more(max_rest: int, length: int) -> None:
    vocabulary = Vocabulary.default()
    chosen = GenerationSettings(bars=32, instruments="violin,flute", max_rest=max_rest)
    constraints = Constraints(make_wishes(vocabulary, chosen), vocabulary)
    for name in ("BOS", "N", "4/4", "120", *NOTE, "#73", "T0", "P60", f"D{length}", "V9"):
        constraints.advance(vocabulary.id_of(name))
    bars_of_note = -(-length // 48)
    for bar in range(1, bars_of_note + max_rest):
        for name in ("N", *NOTE):
            constraints.advance(vocabulary.id_of(name))
        assert constraints.allowed()[vocabulary.id_of("N")], bar  # it rings on, or rests
    for name in ("N", *NOTE):
        constraints.advance(vocabulary.id_of(name))
    assert not constraints.allowed()[vocabulary.id_of("N")]
    for name in ("#73", "T0", "P60", "D12", "V9"):
        assert constraints.allowed()[vocabulary.id_of(name)], name
        constraints.advance(vocabulary.id_of(name))
    assert constraints.allowed()[vocabulary.id_of("N")]


def test_instruments_of_a_beginning_are_not_new() -> None:
    vocabulary = Vocabulary.default()
    names = ["BOS", "N", "4/4", "120", *NOTE, "#73", "T0", "P60", "D12", "V9", *["N", *NOTE] * 4]
    beginning = np.array([vocabulary.id_of(name) for name in names], dtype=np.uint16)
    constraints = Constraints(make_wishes(vocabulary, LATE), vocabulary, beginning=beginning)
    constraints.advance(vocabulary.id_of("N"))
    assert constraints.is_new_instrument(np.array([40, 73, 74])).tolist() == [False, False, True]


def test_a_forbidden_bar_line_ends_the_last_bar_and_does_not_become_more_notes() -> None:
    vocabulary = Vocabulary.default()
    names = ["BOS", "N", "4/4", "120", "#40", "T0", "P60", "D12", "V9"]
    ids = [vocabulary.id_of(name) for name in names]
    logits = np.full(len(vocabulary), -20.0)
    wanted = {"C:maj": 0.6, "G:maj": 0.2, "P64": 0.1, "#73": 0.06, "#41": 0.04}
    for name, probability in wanted.items():
        logits[vocabulary.id_of(name)] = np.log(probability)

    def probability_of(name: str, instruments: str, bars: int) -> float:
        chosen = GenerationSettings(
            bars=bars,
            instruments=instruments,
            max_notes_per_bar=9,
            min_p=0,
            new_instrument_penalty=0,
            instrument_change_penalty=0,
        )
        constraints = Constraints(make_wishes(vocabulary, chosen), vocabulary)
        for token_id in ids:
            constraints.advance(token_id)
        allowed, sampler = constraints.allowed(), Sampler(chosen, vocabulary)
        return float(sampler.probabilities(logits, allowed, constraints)[vocabulary.id_of(name)])

    assert probability_of("C:maj", "violin,viola,flute", bars=2) == pytest.approx(0.6, abs=1e-3)
    assert probability_of("EOS", "violin", bars=1) == pytest.approx(0.9, abs=1e-3)  # bar ends and both instruments
    assert probability_of("P64", "violin", bars=1) == pytest.approx(0.1, abs=1e-3)
    assert probability_of("#41", "violin,viola", bars=2) == pytest.approx(0.1, abs=1e-3)  # the flute's place too
    assert probability_of("#41", "violin,viola", bars=1) == pytest.approx(0.9, abs=1e-3)  # it has yet to play
    assert probability_of("EOS", "violin,viola", bars=1) == 0
    assert probability_of("#73", "strings,flute", bars=1) == pytest.approx(0.86, abs=1e-3)  # the flute's, as it is due
    assert probability_of("#41", "strings,flute", bars=1) == pytest.approx(0.04, abs=1e-3)  # and not a further string's

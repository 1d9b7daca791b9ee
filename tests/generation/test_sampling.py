"""From logits to a token: what is cut off, what is leaned to, and what a forbidden token's probability becomes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from meloformer.generation.constraints import Constraints
from meloformer.generation.plan import BarPlan
from meloformer.generation.sampling import DENSITY_NATS, Sampler, density_lean, sample, token_probabilities
from meloformer.generation.wishes import make_wishes
from meloformer.settings import GenerationSettings
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
HELD = LATE.model_copy(update={"new_instrument_penalty": 0, "instrument_change_penalty": 2})


def flute_beside_violin(
    num_bars: int, settings: GenerationSettings, *, opening: tuple[str, ...] = NOTE, free: frozenset[int] | None = None
) -> float:
    """How likely a flute is beside a violin in the last of so many bars, where the model finds all alike."""
    vocabulary = Vocabulary.default()
    names = ["BOS", "N", "4/4", "120", *opening, *["N", *opening] * (num_bars - 2), "N"]
    wishes, plans = make_wishes(vocabulary, settings), {num_bars - 1: BarPlan(free=free)}
    constraints = Constraints(wishes, vocabulary, plans)
    for name in names:
        constraints.advance(vocabulary.id_of(name))
    found = Sampler(settings, vocabulary).probabilities(np.zeros(len(vocabulary)), constraints.allowed(), constraints)
    assert found.sum() == pytest.approx(1)
    return found[vocabulary.id_of("#73")] / found[vocabulary.id_of("#40")]


def test_an_instrument_that_comes_late_and_unasked_is_less_likely() -> None:
    assert flute_beside_violin(4, LATE) == 1
    assert flute_beside_violin(5, LATE) == pytest.approx(np.exp(-2))
    assert flute_beside_violin(5, LATE.model_copy(update={"temperature": 0.5})) == pytest.approx(np.exp(-2))
    assert flute_beside_violin(5, LATE.model_copy(update={"new_instrument_penalty": 0})) == 1
    asked_for = LATE.model_copy(update={"instruments": "violin,flute"})
    assert flute_beside_violin(3, asked_for) == 1  # later it would be due
    varied = frozenset({40, 73})  # bars of a piece that has a flute elsewhere
    assert flute_beside_violin(5, LATE, free=varied) == 1
    assert flute_beside_violin(5, LATE, opening=()) == 1  # nobody has played yet


def held_back(names: str, settings: GenerationSettings, plans: dict[int, BarPlan] | None = None) -> dict[str, float]:
    """Token -> how likely it is where the model finds all alike, beside how likely it would be without the penalty."""
    vocabulary = Vocabulary.default()
    constraints = Constraints(make_wishes(vocabulary, settings), vocabulary, plans)
    for name in names.split():
        constraints.advance(vocabulary.id_of(name))
    allowed, logits = constraints.allowed(), np.zeros(len(vocabulary))
    free = settings.model_copy(update={"instrument_change_penalty": 0})
    found, without = (
        Sampler(each, vocabulary).probabilities(logits, allowed, constraints) for each in (settings, free)
    )
    ends_cell = np.isin(vocabulary.types, (TokenType.INSTRUMENT, TokenType.CHORD, TokenType.EOS))
    assert found[ends_cell].sum() == pytest.approx(without[ends_cell].sum())  # when a cell ends is left alone
    assert found[~ends_cell] == pytest.approx(without[~ends_cell])
    return {vocabulary.names[token]: found[token] / without[token] for token in np.flatnonzero(allowed)}


BASS_CELL, VIOLIN_CELL = "#33 T0 P40 D12 V9", "#40 T0 P60 D12 V9"


def test_an_instrument_that_comes_in_or_drops_out_is_less_likely() -> None:
    both = f"BOS N 4/4 120 {BASS_CELL} {VIOLIN_CELL} N"
    found = held_back(both, HELD)
    changes = {"#D": 1, "#32": 1, "#33": 0, "#34": 2, "#40": 1, "#73": 3, "N": 2}
    for name, number in changes.items():
        assert found[name] == pytest.approx(np.exp(-2 * number) * found["#33"]), name
    found = held_back(f"{both} {BASS_CELL}", HELD)
    for name in ("#34", "N"):
        assert found[name] == pytest.approx(np.exp(-2) * found["#40"])


def test_nothing_changes_where_an_instrument_rings_on_is_awaited_or_is_the_first() -> None:
    assert set(held_back("BOS N 4/4 120", HELD).values()) == {1}
    found = held_back(f"BOS N 4/4 120 {VIOLIN_CELL} #73 T0 P60 D96 V9 N {VIOLIN_CELL}", HELD)
    assert found["#73"] == pytest.approx(found["N"])  # the flute sounds in this bar, too
    found = held_back(f"BOS N 4/4 120 {VIOLIN_CELL} N N", HELD)
    assert found["#73"] == pytest.approx(np.exp(-4) * found["#40"])  # the latest bar that sounds had the violin
    wished = HELD.model_copy(update={"instruments": "violin,flute"})
    found = held_back(f"BOS N 4/4 120 {VIOLIN_CELL} N", wished)
    assert found["#73"] == pytest.approx(np.exp(-2) * found["#40"])  # it is asked for, but the violin would drop out
    found = held_back(f"BOS N 4/4 120 {VIOLIN_CELL} N", HELD, {1: BarPlan(free=frozenset({73}))})
    assert found["#73"] == pytest.approx(found["N"])  # the violin may not play in this bar, so it cannot drop out


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

"""Meters, pickups, tempo maps, tables: what becomes of a score on the grid."""

from __future__ import annotations

import numpy as np
import pytest

from meloformer.errors import RejectError
from meloformer.midi.score import DRUMS, Score, make_score
from meloformer.tokens.encode import encode
from meloformer.tokens.grid import (
    DURATION_STEPS,
    METER_STEPS,
    METERS,
    TEMPO_BPM,
    TEMPO_US,
    bin_velocity,
    nearest_duration,
    nearest_tempo,
    ticks_to_steps,
    velocity_bin,
)
from meloformer.tokens.quantise import quantise
from meloformer.tokens.text import to_text

QUARTER = 480


def score_of(onsets: list[int], *, meters: object = (), tempos: object = (), end: int | None = None) -> Score:
    return make_score(
        ticks_per_quarter=QUARTER,
        onset_ticks=onsets,
        duration_ticks=[QUARTER] * len(onsets),
        pitch=[60] * len(onsets),
        velocity=[64] * len(onsets),
        program=[0] * len(onsets),
        meters=meters,
        tempos=tempos,
        end_ticks=end,
    )


def bars_of(score: Score) -> list[str]:
    """The bar lines of a score's text form, without number and chord."""
    lines = to_text(encode(score)).splitlines()
    return [" ".join(line.split()[3:]) for line in lines if line.startswith("bar")]


def test_a_meter_change_cuts_the_bar_before_it_and_that_bar_gets_the_meter_of_its_true_length() -> None:
    score = score_of([0, 3 * QUARTER], meters=[(0, 4, 4), (3 * QUARTER, 4, 4 * 2)])
    assert bars_of(score) == ["3/4 120", "4/8"]


def test_a_pickup_is_a_short_first_bar() -> None:
    score = score_of([0, QUARTER, 5 * QUARTER], meters=[(0, 1, 4), (QUARTER, 4, 4)])
    assert bars_of(score) == ["1/4 120", "4/4", ""]


def test_a_repeated_meter_event_changes_nothing() -> None:
    score = score_of([0, 7 * QUARTER], meters=[(0, 4, 4), (QUARTER, 4, 4)])
    assert bars_of(score) == ["4/4 120", ""]


@pytest.mark.parametrize(
    ("meter", "bars"),
    [
        ((10, 4), ["5/4 120", ""]),
        ((9, 4), ["3/4 120", "", ""]),
        ((27, 8), ["9/8 120", "", ""]),
        ((11, 4), ["11/8 120", ""]),
        ((13, 2), ["13/8 120", "", "", ""]),
        ((6, 32), ["3/16 120"]),
        ((12, 1), ["2/1 120", "", "", "", "", ""]),
    ],
)
def test_a_bar_longer_than_eight_quarters_becomes_equal_bars(meter: tuple[int, int], bars: list[str]) -> None:
    score = score_of([0], meters=[(0, *meter)], end=4 * QUARTER * meter[0] // meter[1])
    assert bars_of(score) == bars


@pytest.mark.parametrize("meter", [(3, 32), (7, 64), (1, 32)])
def test_a_bar_that_is_no_whole_number_of_sixteenths_is_rejected(meter: tuple[int, int]) -> None:
    with pytest.raises(RejectError) as caught:
        quantise(score_of([0], meters=[(0, *meter)]))
    assert caught.value.reason == "unsupported-meter"


def test_a_meter_of_nothing_is_rejected() -> None:
    for meter in ((0, 4), (4, 0)):
        with pytest.raises(RejectError, match="unsupported-meter"):
            quantise(score_of([0], meters=[(0, *meter)]))


def test_a_piece_of_absurd_length_is_rejected_before_memory_is_spent() -> None:
    with pytest.raises(RejectError, match="too-long"):
        quantise(score_of([10**12]))


def test_the_tempo_of_a_bar_keeps_its_length_in_seconds() -> None:
    slow, fast = 1_000_000, 500_000
    score = score_of([0, 4 * QUARTER], tempos=[(0, slow), (2 * QUARTER, fast)])
    # two quarters at 60 bpm and two at 120 last three seconds: 80 bpm
    assert bars_of(score) == ["4/4 80", "120"]


def test_a_tempo_change_past_the_end_changes_nothing() -> None:
    assert bars_of(score_of([0], tempos=[(0, 500_000), (10**9, 1)])) == ["4/4 120"]


def test_empty_bars_in_front_between_and_at_the_end_are_kept() -> None:
    score = score_of([4 * QUARTER, 12 * QUARTER], end=20 * QUARTER)
    text = to_text(encode(score))
    assert text.count("bar") == 5
    assert text.count("#0 ") == 2


def test_a_score_without_notes_is_one_empty_bar() -> None:
    assert to_text(encode(score_of([]))) == "hid 1 grid=12\nbar 1 N 4/4 120\n"


def test_two_notes_at_one_place_become_one_with_the_longer_duration_and_the_higher_velocity() -> None:
    score = make_score(
        ticks_per_quarter=12,
        onset_ticks=[0, 0],
        duration_ticks=[24, 6],
        pitch=[60, 60],
        velocity=[10, 90],
        program=[5, 5],
    )
    quantised = quantise(score)
    assert quantised.duration_ticks.tolist() == [24]
    assert velocity_bin(quantised.velocity).tolist() == [22]


def test_a_drum_hit_lasts_one_step() -> None:
    score = make_score(
        ticks_per_quarter=12, onset_ticks=[0], duration_ticks=[24], pitch=[36], velocity=[99], program=[DRUMS]
    )
    assert quantise(score).duration_ticks.tolist() == [1]


def test_sixteenths_and_triplets_are_exact() -> None:
    onsets = [0, QUARTER // 4, QUARTER // 3, QUARTER // 2, 2 * QUARTER // 3]
    assert ticks_to_steps(np.array(onsets), QUARTER).tolist() == [0, 3, 4, 6, 8]


def test_every_table_holds_its_own_entries() -> None:
    assert nearest_duration(DURATION_STEPS, 12).tolist() == DURATION_STEPS.tolist()
    assert nearest_tempo(TEMPO_US).tolist() == list(range(32))
    assert velocity_bin(bin_velocity(np.arange(32))).tolist() == list(range(32))
    assert len(set(METERS)) == len(METERS)


def test_the_tables_are_what_the_format_says() -> None:
    assert (len(DURATION_STEPS), len(METERS), len(TEMPO_BPM)) == (42, 62, 32)
    assert (int(TEMPO_BPM[0]), int(TEMPO_BPM[-1])) == (40, 250)
    assert 120 in TEMPO_BPM
    assert int(METER_STEPS.max()) == 96
    assert (METER_STEPS % 3 == 0).all()


@pytest.mark.parametrize(("ticks", "steps"), [(0, 1), (1, 1), (QUARTER, 12), (10**9, 384)])
def test_a_duration_goes_to_the_nearest_entry_and_lasts_at_least_a_step(ticks: int, steps: int) -> None:
    assert nearest_duration(np.array([ticks]), QUARTER).tolist() == [steps]

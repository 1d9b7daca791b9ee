"""Names of instruments: what General MIDI calls them, and what people do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meloformer.errors import SettingsError
from meloformer.midi.programs import COMMON_NAMES, FAMILIES, PROGRAM_NAMES, drum_name, program_name, programs_of
from meloformer.midi.score import DRUMS


@given(st.integers(0, DRUMS))
def test_the_name_and_the_number_of_a_program_lead_back_to_it(program: int) -> None:
    name = program_name(program)
    assert programs_of(name) == programs_of(name.upper()) == programs_of(f"  {name} ") == [program]
    assert programs_of(str(program)) == programs_of(f"#{program}") == [program]


def test_there_are_128_programs_of_different_names_in_16_families_of_eight() -> None:
    assert len(set(PROGRAM_NAMES)) == len(PROGRAM_NAMES) == 128
    assert sorted(program for family in FAMILIES.values() for program in family) == list(range(128))
    assert {len(family) for family in FAMILIES.values()} == {8}


@pytest.mark.parametrize(
    ("name", "programs"),
    [
        ("drums", [DRUMS]),
        ("#D", [DRUMS]),
        ("piano", list(range(8))),
        ("bass", list(range(32, 40))),
        ("guitars", list(range(24, 32))),
        ("violin", [40]),
        ("flute", [73]),
        ("horn", [60]),
        ("sax", list(range(64, 68))),
        ("church", [19]),
        ("(nylon)", [24]),
    ],
)
def test_families_and_common_names_stand_for_their_programs(name: str, programs: list[int]) -> None:
    assert programs_of(name) == programs


def test_every_common_name_stands_for_real_programs() -> None:
    for name, programs in COMMON_NAMES.items():
        assert programs_of(name) == list(programs)
        assert all(0 <= program <= DRUMS for program in programs)


@pytest.mark.parametrize(("wrong", "near"), [("vioiln", "violin"), ("pinao", "piano"), ("drumms", "drums")])
def test_a_misspelt_name_is_answered_with_close_ones(wrong: str, near: str) -> None:
    with pytest.raises(SettingsError, match=wrong) as caught:
        programs_of(wrong)
    assert caught.value.hint is not None
    assert near in caught.value.hint


@pytest.mark.parametrize("wrong", ["", "   ", "#", "129", "-1", "1.5", "²", "zzzz"])
def test_what_is_no_instrument_is_refused(wrong: str) -> None:
    with pytest.raises(SettingsError, match="no instrument"):
        programs_of(wrong)


def test_drums_have_their_general_midi_names() -> None:
    names = {
        35: "Acoustic Bass Drum",
        38: "Acoustic Snare",
        42: "Closed Hi-Hat",
        49: "Crash Cymbal 1",
        81: "Open Triangle",
    }
    assert {pitch: drum_name(pitch) for pitch in names} == names
    assert drum_name(34) == "key 34"
    assert drum_name(82) == "key 82"

"""The events of a track: every kind, and what no event can be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meloformer.midi.chunks import track_ticks
from meloformer.midi.events import walk
from tests.midi.hexdump import from_hex


def messages_of(text: str, *, running_status: int = 0) -> list[tuple[int, str, bool]]:
    """(tick, message, whether it is sure) of every event of a hex dump."""
    events = walk(from_hex(text), running_status=running_status)
    return [(event.tick, event.message.hex(" "), event.is_sure) for event in events]


def test_every_kind_of_event_is_walked_over() -> None:
    body = from_hex("""
        01 90 3c 40           # note on
        02    3c 00           # running status
        04 c0 05              # program change: one data byte
        08 e0 00 40           # pitch bend
        10 f0 03 7e 7f f7     # system exclusive, three bytes
        20 f2 01 02           # song position: two data bytes
        40 f8                 # clock: none
        81 00 ff 01 02 61 62  # a text, 128 ticks later
        05 90 3c 00           # note off
        07 ff 2f 00           # end of track
        7f 90 3c 40           # what follows the end does not count
    """)
    assert track_ticks(body) == 1 + 2 + 4 + 8 + 16 + 32 + 64 + 128 + 5 + 7


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("00 90 bc 40", "90 7f 40"),  # a pitch above 127
        ("00 c0 ff", "c0 7f"),  # a program above 127
        ("00 3c 40", "90 3c 40"),  # no status so far: a note of channel 1
        ("00 f4", "f4"),  # an undefined status
        ("80 80 80 80 00 90 3c 40", "90 3c 40"),  # a delta time of five bytes
        ("00 ff 86 01 41", "ff 86 41"),  # a type of meta event above 127
    ],
)
def test_what_the_standard_does_not_allow_is_read_as_the_nearest_thing(body: str, message: str) -> None:
    assert messages_of(body) == [(0, message, False)]


def test_running_status_goes_on_after_a_meta_event_and_from_the_track_before() -> None:
    body = """
        01 3c 40        # data only
        01 ff 01 01 41  # a text 'A'
        01 3c 00        # data only
    """
    assert messages_of(body, running_status=0x95) == [
        (1, "95 3c 40", True),
        (2, "ff 01 41", True),
        (3, "95 3c 00", True),
    ]


@pytest.mark.parametrize(
    "cut", ["80", "00", "00 90", "00 90 3c", "00 ff", "00 ff 01", "00 ff 01 02 41", "00 f0 81", "00 f2 01"]
)
def test_an_event_that_is_cut_is_none(cut: str) -> None:
    assert messages_of("05 80 3c 00" + cut) == [(5, "80 3c 00", True)]


@given(st.binary(max_size=300))
def test_any_bytes_are_walked_to_an_end(body: bytes) -> None:
    events = list(walk(body))
    assert [event.end for event in events] == sorted({event.end for event in events})
    assert all(event.end <= len(body) for event in events)
    assert track_ticks(body) >= 0

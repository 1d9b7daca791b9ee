"""The length of a track in ticks, which symusic loses past 32 bits."""

from __future__ import annotations

from pathlib import Path

import mido
import pytest

from meloformer.errors import RejectError
from meloformer.midi.chunks import MAX_TICKS, refuse_too_many_ticks, track_ticks
from meloformer.midi.read import parse_midi
from tests.midi.hexdump import midi_file

LONGEST_WAIT = "ff ff ff 7f ff 01 01 78  # 2^28 - 1 ticks later: a text 'x'\n"
NOTE = """
    00 90 3c 40  # C4 on
    60 80 3c 00  # off 96 ticks later
"""


@pytest.mark.parametrize("waits", [8, 9, 16, 17, 33])
def test_more_ticks_than_32_bits_hold_are_named_wherever_symusic_would_put_the_notes(waits: int) -> None:
    with pytest.raises(RejectError) as caught:
        parse_midi(midi_file("", NOTE + waits * LONGEST_WAIT + NOTE))
    assert caught.value.reason == "too-many-ticks"


def test_a_track_just_short_of_the_limit_is_read() -> None:
    score = parse_midi(midi_file(NOTE + 7 * LONGEST_WAIT + NOTE))
    assert score.onset_ticks.tolist() == [0, 96 + 7 * (2**28 - 1)]


def test_long_waits_in_different_tracks_do_not_add_up() -> None:
    assert parse_midi(midi_file(*(4 * [3 * LONGEST_WAIT + NOTE]))).num_notes == 4


def test_high_bytes_that_are_no_delta_times_exclude_nothing() -> None:
    text = "00 ff 01 40" + 64 * " ff"  # a text of 64 bytes that looks like very long delta times
    assert parse_midi(midi_file(text + NOTE)).num_notes == 1


def test_tracks_of_real_files_are_as_long_as_mido_says(dev_files: list[Path]) -> None:
    for path in [path for path in dev_files if path.stat().st_size < 20_000][::60]:
        data = path.read_bytes()
        refuse_too_many_ticks(data)
        ticks, position = [], 14
        while position < len(data):
            length = int.from_bytes(data[position + 4 : position + 8], "big")
            ticks.append(track_ticks(data[position + 8 : position + 8 + length]))
            position += 8 + length
        assert ticks == [sum(message.time for message in track) for track in mido.MidiFile(path, clip=True).tracks]
        assert max(ticks) <= MAX_TICKS

"""Broken files give back what they still hold, and say what was wrong."""

from __future__ import annotations

import struct
from collections import Counter

import pytest
from hypothesis import given, settings

from meloformer.errors import RejectError
from meloformer.midi.mend import mend
from meloformer.midi.read import parse_midi
from meloformer.midi.score import Score
from meloformer.midi.write import to_midi_bytes
from tests.midi.hexdump import from_hex, midi_file, notes_of
from tests.midi.strategies import midi_scores

C4 = """
    00 90 3c 40  # C4 on
    60 80 3c 00  # off 96 ticks later
"""
D4 = """
    00 91 3e 40  # channel 2: D4 on
    60 81 3e 00  # off 96 ticks later
"""
TWO_TRACKS = midi_file(C4, D4)
FIRST_END = 14 + 8 + 12
"""Offset of the second track in ``TWO_TRACKS``: header, chunk header, two events and End of Track."""


def with_bytes(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset] + new + data[offset + len(new) :]


def check(data: bytes, *, pitches: list[int], recovered: str | None) -> Score:
    score = parse_midi(data)
    assert score.pitch.tolist() == pitches
    assert score.recovered == recovered
    return score


# Truncated


def test_a_truncated_file_gives_its_whole_tracks_and_the_events_before_the_cut() -> None:
    cut = FIRST_END + 8 + 4 + 2  # inside the second note-off
    score = check(TWO_TRACKS[:cut], pitches=[60, 62], recovered="truncated at byte 48: 1 of 2 tracks whole")
    assert notes_of(score) == [(0, 96, 60, 64, 0), (0, 0, 62, 64, 0)]


def test_a_note_that_is_open_at_the_cut_ends_with_the_last_event_before_it() -> None:
    data = midi_file("""
        00 90 3c 40  # C4 on
        00 90 40 40  # E4 on
        60 80 3c 00  # C4 off at 96
        60 80 40 00  # E4 off at 192: cut away
    """)
    assert notes_of(parse_midi(data[:-8])) == [(0, 96, 60, 64, 0), (0, 96, 64, 64, 0)]  # without it and End of Track


def test_the_end_of_the_last_track_alone_may_be_missing() -> None:
    check(TWO_TRACKS[:-1], pitches=[60, 62], recovered="truncated at byte 53: 1 of 2 tracks whole")


def test_a_file_cut_between_two_tracks_lacks_one_that_its_header_promises() -> None:
    fault = "1 of the 2 tracks that the header promises"
    for cut in (FIRST_END, FIRST_END + 3):
        check(TWO_TRACKS[:cut], pitches=[60], recovered=fault)


def test_a_file_cut_before_its_first_note_is_rejected_as_truncated() -> None:
    with pytest.raises(RejectError, match="not one note") as caught:
        parse_midi(TWO_TRACKS[:24])
    assert caught.value.reason == "truncated"


@settings(max_examples=15)
@given(midi_scores())
def test_of_a_file_cut_anywhere_the_notes_are_those_before_the_cut_and_grow_with_it(score: Score) -> None:
    data = to_midi_bytes(score)
    whole = parse_midi(data)
    before: Counter[tuple[int, ...]] = Counter()
    longest = {onset_pitch_velocity(note): note[1] for note in sorted(notes_of(whole))}
    for cut in range(len(data) + 1):
        try:
            part = parse_midi(data[:cut])
        except RejectError as error:
            assert error.reason in ("empty-file", "not-midi", "truncated", "unreadable")  # noqa: PT017
            assert not before
            continue
        assert (part.recovered is None) == (cut == len(data))
        found = Counter(onset_pitch_velocity(note) for note in notes_of(part))
        assert found >= before
        assert all(note[1] <= longest[onset_pitch_velocity(note)] for note in notes_of(part))
        before = found
    assert before == Counter(onset_pitch_velocity(note) for note in notes_of(whole))
    assert parse_midi(data) == whole


def onset_pitch_velocity(note: tuple[int, int, int, int, int]) -> tuple[int, ...]:
    """What a cut leaves as it is of a note: all but its duration."""
    return note[0], note[2], note[3], note[4]


# Headers and chunks


@pytest.mark.parametrize(
    ("promised", "recovered"), [(0, None), (1, None), (5, "2 of the 5 tracks that the header promises")]
)
def test_as_many_tracks_are_read_as_there_are(promised: int, recovered: str | None) -> None:
    check(with_bytes(TWO_TRACKS, 10, struct.pack(">H", promised)), pitches=[60, 62], recovered=recovered)


@pytest.mark.parametrize("length", [0, 4, 7, 11, 13, 20, 200, 2**31])
def test_a_track_of_the_wrong_length_ends_with_its_end_of_track(length: int) -> None:
    data = with_bytes(TWO_TRACKS, 18, struct.pack(">I", length))
    check(data, pitches=[60, 62], recovered=f"track 1 is 12 bytes long, not {length}")
    data = with_bytes(TWO_TRACKS, FIRST_END + 4, struct.pack(">I", length))
    check(data, pitches=[60, 62], recovered=f"track 2 is 12 bytes long, not {length}")


def test_bytes_between_chunks_are_passed_over() -> None:
    for between in (b"\x00", b"garbage!!!", b"\xff" * 50):
        check(TWO_TRACKS[:FIRST_END] + between + TWO_TRACKS[FIRST_END:], pitches=[60, 62], recovered=None)


def test_an_unknown_chunk_is_passed_over_whatever_it_holds() -> None:
    unknown = b"XFIH" + struct.pack(">I", 12) + TWO_TRACKS[14:26]
    check(TWO_TRACKS[:FIRST_END] + unknown + TWO_TRACKS[FIRST_END:], pitches=[60, 62], recovered=None)


def test_bytes_after_the_last_track_are_passed_over() -> None:
    check(TWO_TRACKS + b"*", pitches=[60, 62], recovered=None)
    check(TWO_TRACKS + bytes(range(256)), pitches=[60, 62], recovered=None)


def test_only_the_first_of_two_files_in_one_is_read() -> None:
    fault = "another file begins at byte 34 and is left out"
    check(midi_file(C4) + midi_file(D4), pitches=[60], recovered=fault)


def test_the_name_and_the_format_of_a_header_may_be_wrong() -> None:
    check(b"MT0d" + TWO_TRACKS[4:], pitches=[60, 62], recovered='the header chunk is called "MT0d"')
    fault = "the header says format 3, which there is not"
    check(with_bytes(TWO_TRACKS, 8, b"\x00\x03"), pitches=[60, 62], recovered=fault)


def test_a_track_needs_no_end_of_track() -> None:
    body = from_hex(C4)
    data = midi_file(C4)[:14] + b"MTrk" + struct.pack(">I", len(body)) + body
    check(data, pitches=[60], recovered=None)


# Events


def test_a_byte_that_no_event_can_have_is_read_as_the_nearest_one_if_the_track_then_ends_well() -> None:
    fault = "track 1 has bytes that no event can have, the first in the event at byte 22"
    check(midi_file("00 b0 07 c8  # volume 200\n" + C4), pitches=[60], recovered=fault)
    check(midi_file("00 f4        # an undefined status\n" + C4), pitches=[60], recovered=fault)
    check(midi_file("00 3c 40     # no status before: a note\n 60 3c 00"), pitches=[60], recovered=fault)


def test_a_track_that_turns_into_noise_gives_the_events_before_it() -> None:
    body = from_hex(C4 + "00 90") + bytes(range(0xF0, 0x80, -1))
    data = midi_file(C4, D4)[:14] + b"MTrk" + struct.pack(">I", len(body)) + body + TWO_TRACKS[FIRST_END:]
    check(data, pitches=[60, 62], recovered="track 1 breaks off at byte 30, where no event can be")


def test_a_track_that_starts_with_running_status_goes_on_from_the_one_before() -> None:
    second = """
        00 3e 40  # D4 on, in the status of the track before
        60 3e 00  # off
    """
    data = midi_file("00 95 3c 40  # channel 6: C4 on\n 60 3c 00  # off", second)
    assert notes_of(parse_midi(data)) == [(0, 96, 60, 64, 0), (0, 96, 62, 64, 0)]


def test_an_event_that_runs_past_the_end_of_its_track_is_left_out() -> None:
    data = midi_file(C4 + "00 f0 7f 01 02  # 127 bytes of which two are there", D4)
    check(data, pitches=[60, 62], recovered="track 1 breaks off at byte 30")


def test_a_broken_file_with_too_many_ticks_is_rejected() -> None:
    with pytest.raises(RejectError) as caught:
        parse_midi(midi_file(9 * "ff ff ff 7f f4  # a long wait, an undefined status\n" + C4))
    assert caught.value.reason == "too-many-ticks"


def test_long_waits_before_what_is_left_out_add_up() -> None:
    score = parse_midi(midi_file(5 * "ff ff ff 7f f4  # a long wait, an undefined status\n" + C4))
    assert score.onset_ticks.tolist() == [5 * (2**28 - 1)]


def test_many_faults_make_one_sentence() -> None:
    data = midi_file(*9 * ["00 b0 07 c8\n" + C4])
    recovered = parse_midi(data).recovered
    assert recovered is not None
    assert recovered.endswith("; 6 more")


def test_a_hundred_thousand_beginnings_of_tracks_are_mended() -> None:
    data = TWO_TRACKS[:10] + b"\xff\xff\x00\x60" + 100_000 * b"MTrk\x7f\xff\xff\xff"
    assert mend(data).recovered is not None
    data = TWO_TRACKS[:10] + b"\xff\xff\x00\x60" + 50_000 * (b"MTrk\x00\x00\x00\x04" + b"\x00\x90")
    assert mend(data).recovered is not None


# SMPTE


@pytest.mark.parametrize(
    ("division", "ticks_per_quarter", "tempo_us", "scale"),
    [
        ("e8 50", 24 * 80 // 2, 500_000, 1),  # 24 frames of 80 ticks
        ("e7 28", 25 * 40 // 2, 500_000, 1),  # 25 frames of 40 ticks: milliseconds
        ("e7 01", 25, 500_000, 2),  # 25 frames of one tick: 12.5 to the half second
        ("e3 64", 30 * 100 // 2, 500_500, 1),  # 29.97 frames of 100 ticks: 15.015 frames are 501.001 ms
        ("e2 50", 30 * 80 // 2, 500_000, 1),  # 30 frames of 80 ticks
    ],
)
def test_smpte_time_becomes_quarter_notes_of_half_a_second(
    division: str, ticks_per_quarter: int, tempo_us: int, scale: int
) -> None:
    data = midi_file("00 ff 51 03 0f 42 40  # 60 bpm, which means nothing here\n" + C4)
    score = check(with_bytes(data, 12, from_hex(division)), pitches=[60], recovered=None)
    assert (score.ticks_per_quarter, score.tempo_us.tolist()) == (ticks_per_quarter, [tempo_us])
    assert score.duration_ticks.tolist() == [96 * scale]
    frames, ticks = 256 - from_hex(division)[0], from_hex(division)[1]
    seconds = 96 / ticks / (30_000 / 1001 if frames == 29 else frames)
    assert 96 * scale / ticks_per_quarter * tempo_us / 1e6 == pytest.approx(seconds, rel=1e-12)

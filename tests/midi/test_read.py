"""Reading sound MIDI: every rule on a few bytes, and real files as another reader reads them."""

from __future__ import annotations

from pathlib import Path

import mido
import pytest

from meloformer.errors import InputError
from meloformer.midi.chords import CHORD_NAMES
from meloformer.midi.read import parse_midi, read_midi
from meloformer.midi.score import DEFAULT_TEMPO_US, DRUMS
from tests.midi.hexdump import midi_file, notes_of

ONE_NOTE = """
    00 90 3c 40  # note on: channel 1, C4, velocity 64
    60 80 3c 00  # 96 ticks later: off
"""


# Notes


def test_a_note_has_onset_duration_pitch_and_velocity() -> None:
    score = parse_midi(midi_file(ONE_NOTE))
    assert notes_of(score) == [(0, 96, 60, 64, 0)]
    assert (score.ticks_per_quarter, score.end_ticks, score.num_tracks) == (96, 96, 1)


def test_running_status_and_velocity_0_end_a_note() -> None:
    data = midi_file("""
        00 90 3c 40  # C4 on
        18    3c 00  # off after 24 ticks: running status, velocity 0
        00    3e 40  # D4 on
        18    3e 00  # off
    """)
    assert notes_of(parse_midi(data)) == [(0, 24, 60, 64, 0), (24, 24, 62, 64, 0)]


def test_overlapping_notes_of_one_pitch_are_paired_first_in_first_out() -> None:
    data = midi_file("""
        00 90 3c 40  # C4 on, velocity 64
        0a 90 3c 50  # C4 on again after 10 ticks, velocity 80
        0a 80 3c 00  # off at 20: ends the first
        0a 80 3c 00  # off at 30: ends the second
    """)
    assert notes_of(parse_midi(data)) == [(0, 20, 60, 64, 0), (10, 20, 60, 80, 0)]


def test_a_note_without_length_is_kept_and_one_without_end_is_not() -> None:
    data = midi_file("""
        00 90 3c 40  # C4 on
        00 80 3c 00  # off at once
        00 90 40 40  # E4 on, never off
    """)
    assert notes_of(parse_midi(data)) == [(0, 0, 60, 64, 0)]


def test_a_program_holds_for_the_notes_after_it_and_channel_10_is_drums() -> None:
    data = midi_file("""
        00 c0 21     # channel 1: program 33
        00 90 24 40  # C2 on
        18 80 24 00  # off
        00 c0 28     # program 40
        00 90 3c 40  # C4 on
        18 80 3c 00  # off
        00 99 26 40  # channel 10: snare on
        18 89 26 00  # off
    """)
    assert notes_of(parse_midi(data)) == [(0, 24, 36, 64, 33), (24, 24, 60, 64, 40), (48, 24, 38, 64, DRUMS)]


def test_the_tracks_of_formats_0_1_and_2_sound_together() -> None:
    second = """
        00 91 43 40  # channel 2: G4 on
        60 81 43 00  # off
    """
    for midi_format in (0, 1, 2):
        score = parse_midi(midi_file(ONE_NOTE, second, midi_format=midi_format))
        assert [note[2] for note in notes_of(score)] == [60, 67]
        assert score.num_tracks == 2


# Tempo, meter, chords


def test_without_events_tempo_and_meter_are_120_and_4_4() -> None:
    score = parse_midi(midi_file(ONE_NOTE))
    assert (score.tempo_ticks.tolist(), score.tempo_us.tolist()) == ([0], [DEFAULT_TEMPO_US])
    assert (score.meter_numerator.tolist(), score.meter_denominator.tolist()) == ([4], [4])


def test_of_several_tempos_and_meters_at_one_tick_the_last_counts() -> None:
    data = midi_file(
        """
        00 ff 51 03 07 a1 20     # 500,000 us per quarter
        00 ff 51 03 06 1a 80     # 400,000 at the same tick
        00 ff 58 04 04 02 18 08  # 4/4
        00 ff 58 04 06 03 18 08  # 6/8 at the same tick
        60 ff 51 03 09 27 c0     # 600,000 a quarter later
        """,
        ONE_NOTE,
    )
    score = parse_midi(data)
    assert list(zip(score.tempo_ticks, score.tempo_us, strict=True)) == [(0, 400_000), (96, 600_000)]
    assert list(zip(score.meter_numerator, score.meter_denominator, strict=True)) == [(6, 8)]


@pytest.mark.parametrize(("numerator", "power"), [(0, 2), (3, 0), (3, 7), (3, 8), (3, 255), (255, 2)])
def test_no_meter_event_is_strange_enough_to_crash(numerator: int, power: int) -> None:
    meter = f"00 ff 58 04 {numerator:02x} {power:02x} 18 08"
    marker = "00 ff 06 01 4e  # marker 'N'"
    score = parse_midi(midi_file(meter + "\n" + marker, ONE_NOTE))
    assert score.num_notes == 1
    assert score.meter_numerator.tolist() == [numerator]


CHORD_MARKERS = """
    00    ff 06 05 43 3a 6d 61 6a  # marker 'C:maj' at tick 0
    83 00 ff 06 01 4e              # marker 'N' a bar of 4/4 later, at 384
"""


def test_a_chord_marker_on_every_bar_line_restores_chords_and_length() -> None:
    score = parse_midi(midi_file(CHORD_MARKERS, ONE_NOTE))
    assert score.chords is not None
    assert score.chords.tolist() == [CHORD_NAMES.index("C:maj"), 0]
    assert score.end_ticks == 768


@pytest.mark.parametrize(
    ("where", "note"),
    [
        ("off the bar line", CHORD_MARKERS.replace("83 00", "83 01")),
        ("a bar is missing", CHORD_MARKERS.replace("83 00", "86 00")),
        ("another text", CHORD_MARKERS.replace("4e", "58")),
        ("not in UTF-8", CHORD_MARKERS.replace("6d 61 6a", "e9 ff 80")),
    ],
)
def test_other_markers_are_no_chords(where: str, note: str) -> None:
    score = parse_midi(midi_file(note, ONE_NOTE))
    assert score.chords is None, where
    assert score.end_ticks == 96


def test_chord_markers_that_end_before_the_music_are_no_chords() -> None:
    late = "8c 00 90 3c 40  # a note at tick 1536, in the fifth bar\n 60 80 3c 00"
    assert parse_midi(midi_file(CHORD_MARKERS, late)).chords is None


# The sustain pedal


def pedalled(events: str) -> list[tuple[int, int]]:
    """(onset, duration) of the notes, with the pedal."""
    score = parse_midi(midi_file(events), sustain="extend")
    return list(zip(score.onset_ticks.tolist(), score.duration_ticks.tolist(), strict=True))


def test_a_note_that_ends_under_the_pedal_sounds_until_it_comes_up() -> None:
    events = """
        00 90 3c 40  # C4 on
        08 b0 40 7f  # pedal down at 8
        08 80 3c 00  # C4 off at 16
        10 b0 40 00  # pedal up at 32
        08 90 40 40  # E4 on at 40
        08 80 40 00  # off at 48, without pedal
    """
    assert pedalled(events) == [(0, 32), (40, 8)]
    assert parse_midi(midi_file(events)).duration_ticks.tolist() == [16, 8]


def test_the_pedal_lengthens_no_note_past_the_next_one_of_its_pitch() -> None:
    assert pedalled("""
        00 b0 40 7f  # pedal down
        00 90 3c 40  # C4 on
        08 80 3c 00  # off at 8
        08 90 3c 40  # C4 on again at 16
        08 80 3c 00  # off at 24
        08 b0 40 00  # pedal up at 32
    """) == [(0, 16), (16, 16)]


def test_a_pedal_that_goes_down_as_a_chord_ends_is_for_the_next_chord() -> None:
    assert pedalled("""
        00 90 3c 40  # C4 on
        18 80 3c 00  # off at 24
        00 b0 40 7f  # pedal down at 24
        00 90 40 40  # E4 on at 24
        08 80 40 00  # off at 32
        10 b0 40 00  # pedal up at 48
    """) == [(0, 24), (24, 24)]


def test_drums_have_no_pedal() -> None:
    assert pedalled("""
        00 b9 40 7f  # channel 10: pedal down
        00 99 24 40  # bass drum on
        08 89 24 00  # off at 8
        08 b9 40 00  # pedal up at 16
    """) == [(0, 8)]


def test_a_path_that_cannot_be_read_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.mid"):
        read_midi(tmp_path / "nothing.mid")
    with pytest.raises(InputError):
        read_midi(tmp_path)


# Real files


def mido_notes(path: Path) -> list[tuple[int, int, int, int]]:
    """(onset, duration, pitch, velocity) of every note by mido and first-in-first-out pairing."""
    notes = []
    for track in mido.MidiFile(path, clip=True).tracks:
        now = 0
        open_notes: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for message in track:
            now += message.time
            if message.type not in ("note_on", "note_off"):
                continue
            waiting = open_notes.setdefault((message.channel, message.note), [])
            if message.type == "note_on" and message.velocity:
                waiting.append((now, message.velocity))
            elif waiting:
                onset, velocity = waiting.pop(0)
                notes.append((onset, now - onset, message.note, velocity))
    return sorted(notes)


def test_real_files_have_the_notes_that_mido_finds(dev_files: list[Path]) -> None:
    for path in [path for path in dev_files if path.stat().st_size < 30_000][::40]:
        assert sorted(note[:4] for note in notes_of(read_midi(path))) == mido_notes(path), path.name

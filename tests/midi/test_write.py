"""Writing MIDI: what is read back is what was written, by every reader."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import mido
import numpy as np
import pytest
from hypothesis import given

from meloformer.errors import OutputError
from meloformer.midi.chords import CHORD_NAMES
from meloformer.midi.read import parse_midi, read_midi
from meloformer.midi.score import DRUMS, MAP_COLUMNS, NOTE_COLUMNS, Score, make_score
from meloformer.midi.write import to_midi_bytes, write_midi
from tests.midi.strategies import midi_scores


def same_music(written: Score, read: Score) -> None:
    """All fields are equal, ticks in the ratio of the resolutions."""
    scale = read.ticks_per_quarter // written.ticks_per_quarter
    assert written.ticks_per_quarter * scale == read.ticks_per_quarter >= 480
    for name in (*NOTE_COLUMNS, *MAP_COLUMNS):
        expected = getattr(written, name) * (scale if name.endswith("_ticks") else 1)
        assert np.array_equal(getattr(read, name), expected), name
    assert (written.chords is None) == (read.chords is None)
    if written.chords is not None and read.chords is not None:
        assert np.array_equal(read.chords, written.chords)
        assert read.end_ticks == written.end_ticks * scale


def tracks_of(data: bytes) -> list[mido.MidiTrack]:
    return mido.MidiFile(file=BytesIO(data)).tracks


@given(midi_scores())
def test_what_is_written_is_read_back(score: Score) -> None:
    same_music(score, parse_midi(to_midi_bytes(score)))


def test_what_real_files_hold_is_written_and_read_back(dev_files: list[Path]) -> None:
    for path in [path for path in dev_files if path.stat().st_size < 20_000][::50]:
        score = read_midi(path)
        same_music(score, parse_midi(to_midi_bytes(score)))


def score_of(notes: list[tuple[int, int, int, int]], **fields: object) -> Score:
    """A score of (onset, duration, pitch, program) at 480 ticks a quarter."""
    onset, duration, pitch, program = zip(*notes, strict=True) if notes else ((), (), (), ())
    velocity = [64] * len(notes)
    return make_score(
        ticks_per_quarter=480,
        onset_ticks=onset,
        duration_ticks=duration,
        pitch=pitch,
        velocity=velocity,
        program=program,
        **fields,  # type: ignore[arg-type]
    )


def test_a_note_inside_a_longer_one_of_its_pitch_gets_a_track_of_its_own() -> None:
    nested = score_of([(0, 480, 60, 5), (120, 120, 60, 5)])
    assert len(tracks_of(to_midi_bytes(nested))) == 3
    overlapping = score_of([(0, 480, 60, 5), (120, 600, 60, 5)])
    assert len(tracks_of(to_midi_bytes(overlapping))) == 2


def test_every_instrument_has_a_track_with_its_general_midi_name() -> None:
    tracks = tracks_of(to_midi_bytes(score_of([(0, 480, 60, 0), (0, 480, 36, DRUMS), (0, 480, 40, 33)])))
    assert [track.name for track in tracks[1:]] == ["Acoustic Grand Piano", "Electric Bass (finger)", "Drums"]
    channels = [{message.channel for message in track if message.type == "note_on"} for track in tracks[1:]]
    assert channels == [{0}, {1}, {9}]


def test_no_two_instruments_share_port_and_channel_and_only_drums_have_the_drum_channel() -> None:
    tracks = tracks_of(to_midi_bytes(score_of([(0, 10, 60, program) for program in range(DRUMS + 1)])))[1:]
    places = set()
    for track in tracks:
        ports = [message.port for message in track if message.type == "midi_port"]
        channels = {message.channel for message in track if not message.is_meta}
        assert len(channels) == 1
        places.add((ports[0] if ports else 0, *channels))
        assert (channels == {9}) == (track.name == "Drums")
    assert len(places) == len(tracks) == 129


def test_a_bar_line_carries_the_name_of_its_chord() -> None:
    score = score_of([(0, 480, 60, 0)], end_ticks=3840, chords=[CHORD_NAMES.index("C:maj"), 0])
    markers = [message.text for message in tracks_of(to_midi_bytes(score))[0] if message.type == "marker"]
    assert markers == ["C:maj", "N"]


def test_the_file_is_as_long_as_the_piece() -> None:
    file = mido.MidiFile(file=BytesIO(to_midi_bytes(score_of([(0, 480, 60, 0)], end_ticks=1920))))
    assert file.length == pytest.approx(2.0)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    score = score_of([(0, 480, 60, 0)])
    write_midi(score, tmp_path / "song.mid")
    assert [path.name for path in tmp_path.iterdir()] == ["song.mid"]
    same_music(score, read_midi(tmp_path / "song.mid"))
    with pytest.raises(OutputError, match="nowhere"):
        write_midi(score, tmp_path / "nowhere" / "song.mid")
    (tmp_path / "folder.mid").mkdir()
    with pytest.raises(OutputError):
        write_midi(score, tmp_path / "folder.mid")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.mid", "song.mid"]

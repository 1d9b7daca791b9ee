"""Score -> MIDI file, by mido: a conductor track, then one track for every instrument."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import mido
import numpy as np

from meloformer.files import whole_file
from meloformer.midi.bars import grid_of
from meloformer.midi.chords import CHORD_NAMES
from meloformer.midi.programs import program_name
from meloformer.midi.score import DRUMS, MAX_TEMPO_US, NOTE_COLUMNS, Score

MIN_TICKS_PER_QUARTER = 480
"""Resolution of a written file at the least; what most sequencers work with."""
DRUM_CHANNEL = 9
MELODIC_CHANNELS = [channel for channel in range(16) if channel != DRUM_CHANNEL]


def write_midi(score: Score, path: str | Path) -> None:
    """Write a MIDI file; it appears under its name only when it is whole.

    Raises:
        OutputError: The path cannot be written.
    """
    with whole_file(Path(path)) as beside:
        beside.write_bytes(to_midi_bytes(score))


def to_midi_bytes(score: Score) -> bytes:
    """The bytes of a format 1 MIDI file.

    The resolution is multiplied by a whole number until it is at least 480. Where the score has chords, every
    bar line carries a marker with the chord's name, from which :func:`~meloformer.midi.read.parse_midi` restores
    chords and length: ``quantise(parse_midi(to_midi_bytes(score))) == score`` for a quantised score. Instruments past
    the fifteenth go to the channels of a further MIDI port.
    """
    scale = -(-MIN_TICKS_PER_QUARTER // score.ticks_per_quarter)
    file = mido.MidiFile(type=1, ticks_per_beat=score.ticks_per_quarter * scale)
    file.tracks.append(_conductor_track(score, scale))
    channel_count = 0
    for program in np.unique(score.program).tolist():
        for lane in _lanes(score, program):
            if program == DRUMS:
                port, channel = 0, DRUM_CHANNEL
            else:
                port, index = divmod(channel_count, len(MELODIC_CHANNELS))
                channel = MELODIC_CHANNELS[index]
                channel_count += 1
            file.tracks.append(_note_track(score, lane, program, channel=channel, port=port, scale=scale))
    buffer = BytesIO()
    file.save(file=buffer)
    return buffer.getvalue()


def parts_for_one_port(score: Score) -> list[Score]:
    """The score in parts that need no more than the sixteen channels of one MIDI port each, drums in the first.

    At least one; each has the tempo map, the bars and the end of the whole.
    """
    programs = [program for program in np.unique(score.program).tolist() if program != DRUMS]
    lanes = [lane for program in programs for lane in _lanes(score, program)]
    groups = [lanes[first : first + len(MELODIC_CHANNELS)] for first in range(0, len(lanes), len(MELODIC_CHANNELS))]
    parts = []
    for number, group in enumerate(groups or [[]]):
        drums = np.flatnonzero(score.program == DRUMS) if number == 0 else np.zeros(0, dtype=np.int64)
        notes = np.sort(np.concatenate([drums, *group]))
        parts.append(score.with_changes(**{name: getattr(score, name)[notes] for name in NOTE_COLUMNS}))
    return parts


def _track(events: list[tuple[int, int, mido.Message | mido.MetaMessage]]) -> mido.MidiTrack:
    """A track of (tick, rank at one tick, message) in any order, times made relative."""
    track = mido.MidiTrack()
    now = 0
    for tick, _, message in sorted(events, key=lambda event: event[:2]):
        track.append(message.copy(time=tick - now))
        now = tick
    return track


def _conductor_track(score: Score, scale: int) -> mido.MidiTrack:
    """Meters, tempos and chord markers; it ends where the piece does."""
    events: list[tuple[int, int, mido.Message | mido.MetaMessage]] = []
    for tick, numerator, denominator in zip(
        score.meter_ticks.tolist(), score.meter_numerator.tolist(), score.meter_denominator.tolist(), strict=True
    ):
        meter = mido.MetaMessage("time_signature", numerator=numerator, denominator=denominator)
        events.append((tick * scale, 0, meter))
    for tick, tempo_us in zip(score.tempo_ticks.tolist(), score.tempo_us.tolist(), strict=True):
        events.append((tick * scale, 1, mido.MetaMessage("set_tempo", tempo=min(max(tempo_us, 1), MAX_TEMPO_US))))
    if score.chords is not None:
        grid = grid_of(score)
        for tick, chord in zip(grid.start_ticks.tolist(), score.chords.tolist(), strict=True):
            events.append((tick * scale, 2, mido.MetaMessage("marker", text=CHORD_NAMES[chord])))
    last = max([score.end_ticks * scale, *(event[0] for event in events)])
    events.append((last, 3, mido.MetaMessage("end_of_track")))
    return _track(events)


def _lanes(score: Score, program: int) -> list[np.ndarray]:
    """Note indices of one program, parted so that in each lane the notes of one pitch end in the order they begin.

    Readers pair a note's end with the earliest open note of its pitch, so a note inside a longer one of the same pitch
    needs a track of its own.
    """
    end = score.onset_ticks + score.duration_ticks
    lanes: list[list[int]] = []
    last_end: list[dict[int, int]] = []
    for index in np.flatnonzero(score.program == program).tolist():
        pitch = int(score.pitch[index])
        number = next((n for n, ends in enumerate(last_end) if ends.get(pitch, -1) <= end[index]), len(lanes))
        if number == len(lanes):
            lanes.append([])
            last_end.append({})
        lanes[number].append(index)
        last_end[number][pitch] = int(end[index])
    return [np.array(lane, dtype=np.int64) for lane in lanes]


def _note_track(
    score: Score, indices: np.ndarray, program: int, *, channel: int, port: int, scale: int
) -> mido.MidiTrack:
    events: list[tuple[int, int, mido.Message | mido.MetaMessage]] = [
        (0, 0, mido.MetaMessage("track_name", name=program_name(program)))
    ]
    if port:
        events.append((0, 0, mido.MetaMessage("midi_port", port=port)))
    if program != DRUMS:
        events.append((0, 1, mido.Message("program_change", channel=channel, program=program)))
    onset = (score.onset_ticks[indices] * scale).tolist()
    end = ((score.onset_ticks[indices] + score.duration_ticks[indices]) * scale).tolist()
    for start, stop, pitch, velocity in zip(
        onset, end, score.pitch[indices].tolist(), score.velocity[indices].tolist(), strict=True
    ):
        # At one tick: what sounded before ends, then notes begin, then those end that have no length.
        events.append(
            (stop, 2 if stop > start else 4, mido.Message("note_off", channel=channel, note=pitch, velocity=0))
        )
        events.append((start, 3, mido.Message("note_on", channel=channel, note=pitch, velocity=velocity)))
    return _track(events)

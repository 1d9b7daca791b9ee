"""Score files by way of music21: notes, ties, pickups, and files that hold no piece."""

from __future__ import annotations

from pathlib import Path

import pytest

from meloformer.errors import RejectError
from meloformer.midi.bars import bar_grid
from meloformer.midi.score import DRUMS, Score
from meloformer.midi.score_formats import TICKS_PER_QUARTER, parse_score

ABC = "X:1\nT:A tune\nM:3/4\nL:1/4\nK:C\n"
KERN = "**kern\n*M3/4\n=1\n4c\n4d\n4e\n=2\n[4c\n4c]\n4r\n==\n*-\n"


def parsed(tmp_path: Path, text: str, suffix: str = ".abc") -> Score:
    path = tmp_path / f"tune{suffix}"
    path.write_text(text)
    return parse_score(path)


def notes_of(score: Score) -> list[tuple[float, float, int]]:
    """(onset, duration) in quarters and pitch of every note."""
    onset, duration = score.onset_ticks / score.ticks_per_quarter, score.duration_ticks / score.ticks_per_quarter
    return list(zip(onset.tolist(), duration.tolist(), score.pitch.tolist(), strict=True))


def test_a_pickup_has_the_meter_of_its_true_length(tmp_path: Path) -> None:
    score = parsed(tmp_path, ABC + "C|DEF|\n")
    assert (score.meter_numerator[:2].tolist(), score.meter_denominator[:2].tolist()) == ([1, 3], [4, 4])
    assert (score.meter_ticks[:2] / score.ticks_per_quarter).tolist() == [0, 1]
    assert notes_of(score) == [(0, 1, 60), (1, 1, 62), (2, 1, 64), (3, 1, 65)]


def test_tied_notes_are_one_note(tmp_path: Path) -> None:
    assert notes_of(parsed(tmp_path, ABC + "CDE-|E2F|\n")) == [(0, 1, 60), (1, 1, 62), (2, 3, 64), (5, 1, 65)]


def test_the_notes_of_a_chord_sound_together(tmp_path: Path) -> None:
    assert notes_of(parsed(tmp_path, ABC + "[CEG]2 z|\n")) == [(0, 2, 60), (0, 2, 64), (0, 2, 67)]


def test_triplets_are_exact(tmp_path: Path) -> None:
    onsets = parsed(tmp_path, ABC + "(3C/2D/2E/2 F G|\n").onset_ticks
    assert onsets.tolist() == [0, 3360, 6720, 10080, 20160]


def test_humdrum_is_read(tmp_path: Path) -> None:
    score = parsed(tmp_path, KERN, ".krn")
    assert notes_of(score) == [(0, 1, 60), (1, 1, 62), (2, 1, 64), (3, 2, 60)]
    assert score.meter_numerator[0] == 3


def note_xml(step: str, duration: int, extra: str = "") -> str:
    """A note in the fourth octave; two divisions are a quarter."""
    return f"<note><pitch><step>{step}</step><octave>4</octave></pitch><duration>{duration}</duration>{extra}</note>"


def part_xml(number: int, measures: list[str], attributes: str = "") -> str:
    first = f"<attributes><divisions>2</divisions>{attributes}<time><beats>4</beats><beat-type>4</beat-type></time>"
    bodies = [f"{first}</attributes>{measures[0]}", *measures[1:]]
    numbered = "".join(f'<measure number="{index}">{body}</measure>' for index, body in enumerate(bodies, start=1))
    return f'<part id="P{number}">{numbered}</part>'


def parse_xml(
    tmp_path: Path, *parts: str, names: tuple[str, ...] = ("Violin", "Flute"), instruments: str = ""
) -> Score:
    """The score of MusicXML parts."""
    listed = "".join(
        f'<score-part id="P{number}"><part-name>{name}</part-name>{instruments}</score-part>'
        for number, name in enumerate(names[: len(parts)], start=1)
    )
    text = f'<score-partwise version="3.1"><part-list>{listed}</part-list>{"".join(parts)}</score-partwise>'
    path = tmp_path / "score.musicxml"
    path.write_text(text)
    return parse_score(path)


def quarters(ticks: object) -> list[float]:
    return [tick / TICKS_PER_QUARTER for tick in ticks.tolist()]  # type: ignore[attr-defined]


def bars_of(score: Score) -> list[float]:
    """Where the bars begin, in quarters."""
    meter = (score.meter_ticks, score.meter_numerator, score.meter_denominator)
    grid = bar_grid(*meter, ticks_per_quarter=score.ticks_per_quarter, end_ticks=score.end_ticks)
    return quarters(grid.start_ticks)


def meters_of(score: Score) -> list[str]:
    return [f"{n}/{d}" for n, d in zip(score.meter_numerator, score.meter_denominator, strict=True)]


def test_a_pickup_of_an_eighth_has_eighths(tmp_path: Path) -> None:
    score = parsed(tmp_path, ABC.replace("M:3/4", "M:4/4").replace("L:1/4", "L:1/8") + "G|C4 G4|C8|\n")
    assert meters_of(score) == ["1/8", "4/4"]
    assert bars_of(score) == [0, 0.5, 4.5]


def test_a_tie_over_several_measures_is_one_note_and_repeated_notes_are_not(tmp_path: Path) -> None:
    start, stop = '<tie type="start"/>', '<tie type="stop"/>'
    tied = part_xml(1, [note_xml("C", 8, start), note_xml("C", 8, stop + start), note_xml("C", 4, stop)])
    assert quarters(parse_xml(tmp_path, tied).duration_ticks) == [10]
    repeated = part_xml(1, [note_xml("C", 8), note_xml("C", 8)])
    assert quarters(parse_xml(tmp_path, repeated).duration_ticks) == [4, 4]


def test_a_measure_that_is_short_in_one_part_does_not_shift_the_others(tmp_path: Path) -> None:
    whole = note_xml("C", 8)
    short = part_xml(1, [whole, note_xml("D", 7), whole])
    full = part_xml(2, [whole, whole, whole])
    for parts in ((short, full), (full.replace("P2", "P1"), short.replace("P1", "P2"))):
        score = parse_xml(tmp_path, *parts)
        assert quarters(score.onset_ticks) == [0, 0, 4, 4, 8, 8]
        assert bars_of(score) == [0, 4, 8]


def test_a_measure_that_is_longer_than_its_meter_gets_the_meter_of_its_length(tmp_path: Path) -> None:
    score = parse_xml(tmp_path, part_xml(1, [note_xml("C", 8), note_xml("D", 10), note_xml("E", 8)]))
    assert bars_of(score) == [0, 4, 9]
    assert meters_of(score) == ["4/4", "5/4", "4/4"]


def test_a_length_that_no_meter_has_is_rounded_up_to_sixteenths(tmp_path: Path) -> None:
    triplet = "<time-modification><actual-notes>3</actual-notes><normal-notes>2</normal-notes></time-modification>"
    odd = note_xml("D", 8) + note_xml("E", 1, f"<type>eighth</type>{triplet}")
    score = parse_xml(tmp_path, part_xml(1, [note_xml("C", 8), odd, note_xml("E", 8)]))
    assert all(start % 0.25 == 0 for start in bars_of(score))


def test_a_transposing_instrument_sounds_as_it_does(tmp_path: Path) -> None:
    clarinet = "<transpose><diatonic>-1</diatonic><chromatic>-2</chromatic></transpose>"
    score = parse_xml(tmp_path, part_xml(1, [note_xml("D", 8)], clarinet), names=("Clarinet in Bb",))
    assert score.pitch.tolist() == [60]


@pytest.mark.parametrize(
    ("name", "program"),
    [("Violin", 40), ("Soprano", 52), ("Bass", 52), ("Flute", 73), ("", 0), ("Nobody knows", 0)],
)
def test_a_part_plays_the_instrument_it_is_named_after(tmp_path: Path, name: str, program: int) -> None:
    assert parse_xml(tmp_path, part_xml(1, [note_xml("C", 8)]), names=(name,)).program.tolist() == [program]


def test_a_midi_program_in_the_file_is_believed(tmp_path: Path) -> None:
    said = (
        '<score-instrument id="P1-I1"><instrument-name>x</instrument-name></score-instrument>'
        '<midi-instrument id="P1-I1"><midi-channel>1</midi-channel><midi-program>34</midi-program></midi-instrument>'
    )
    score = parse_xml(tmp_path, part_xml(1, [note_xml("C", 8)]), names=("Voice",), instruments=said)
    assert score.program.tolist() == [33]


def test_unpitched_notes_are_drums_where_their_instrument_has_a_key(tmp_path: Path) -> None:
    hit = "<note><unpitched><display-step>C</display-step><display-octave>5</display-octave></unpitched>"
    measure = f"{hit}<duration>8</duration></note>"
    score = parse_xml(tmp_path, part_xml(1, [measure]), names=("Snare Drum",))
    assert (score.program.tolist(), score.pitch.tolist()) == ([DRUMS], [38])


def test_a_metronome_mark_is_a_tempo(tmp_path: Path) -> None:
    mark = (
        "<direction><direction-type><metronome><beat-unit>quarter</beat-unit><per-minute>90</per-minute></metronome>"
        "</direction-type></direction>"
    )
    score = parse_xml(tmp_path, part_xml(1, [note_xml("C", 8), mark + note_xml("D", 8)]))
    assert score.tempo_us.tolist() == [500_000, 666_667]
    assert quarters(score.tempo_ticks) == [0, 4]


@pytest.mark.parametrize(
    ("reason", "text", "suffix"),
    [
        ("several-pieces", ABC + "CDE|\n\n" + ABC.replace("X:1", "X:2") + "CDE|\n", ".abc"),
        ("no-notes", ABC + "z3|\n", ".abc"),
        ("unreadable", "", ".abc"),
        ("unreadable", "", ".krn"),
        ("unreadable", "", ".mxl"),
        ("unreadable", "this is no XML", ".musicxml"),
        ("unreadable", "<html></html", ".xml"),
        ("unreadable", "<html><body>404</body></html>", ".xml"),
    ],
)
def test_what_holds_no_piece_is_rejected_with_its_reason(tmp_path: Path, reason: str, text: str, suffix: str) -> None:
    with pytest.raises(RejectError) as caught:
        parsed(tmp_path, text, suffix)
    assert caught.value.reason == reason

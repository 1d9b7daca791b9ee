"""Score files by way of music21: notes, ties, pickups, and files that hold no piece."""

from __future__ import annotations

from pathlib import Path

import pytest

from meloformer.errors import RejectError
from meloformer.midi.score import Score
from meloformer.midi.score_formats import parse_score

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
    ],
)
def test_what_holds_no_piece_is_rejected_with_its_reason(tmp_path: Path, reason: str, text: str, suffix: str) -> None:
    with pytest.raises(RejectError) as caught:
        parsed(tmp_path, text, suffix)
    assert caught.value.reason == reason

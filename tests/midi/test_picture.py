from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from meloformer.midi.picture import piano_roll
from meloformer.midi.score import DRUMS, Score, make_score


def piece(**changes: object) -> Score:
    score = make_score(
        ticks_per_quarter=12,
        onset_ticks=[0, 12, 24, 36, 60],
        duration_ticks=[12, 12, 24, 1, 12],
        pitch=[60, 64, 67, 36, 72],
        velocity=[90, 60, 100, 80, 70],
        program=[0, 0, 40, DRUMS, 40],
        tempos=[(0, 600_000)],
        meters=[(0, 1, 4), (12, 4, 4)],
        end_ticks=12 + 3 * 48,
        chords=[0, 1, 2, 1],
    )
    return score.with_changes(**changes)


@pytest.fixture
def titles(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is printed above the pictures."""
    printed: list[str] = []
    draw = Figure.suptitle

    def remember(figure: Figure, text: str, **options: object) -> object:
        printed.append(text)
        return draw(figure, text, **options)

    monkeypatch.setattr(Figure, "suptitle", remember)
    return printed


def test_the_picture_is_a_png_with_more_than_one_colour(tmp_path: Path) -> None:
    piano_roll(piece(), tmp_path / "piece.png")
    pixels = imread(tmp_path / "piece.png")[..., :3]
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10
    assert [path.name for path in tmp_path.iterdir()] == ["piece.png"]


def test_the_title_names_the_meter_of_most_bars_and_the_tempo(tmp_path: Path, titles: list[str]) -> None:
    piano_roll(piece(), tmp_path / "piece.png", title="song")
    assert titles == ["song   (4/4, 100 bpm, 4 bars)"]


def test_a_piece_without_chords_drums_or_notes_can_be_drawn(tmp_path: Path) -> None:
    piano_roll(piece(chords=None), tmp_path / "no-chords.png")
    piano_roll(make_score(ticks_per_quarter=12, end_ticks=48), tmp_path / "empty.png")
    drums = make_score(
        ticks_per_quarter=12, onset_ticks=[0], duration_ticks=[1], pitch=[36], velocity=[9], program=[DRUMS]
    )
    piano_roll(drums, tmp_path / "drums.png")
    assert len(list(tmp_path.iterdir())) == 3

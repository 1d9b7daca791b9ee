"""The piano roll: everything of a piece is in it, and any piece can be drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

from meloformer.errors import OutputError
from meloformer.midi.bars import BarGrid, bar_grid
from meloformer.midi.chords import CHORD_NAMES
from meloformer.midi.read import read_midi
from meloformer.midi.score import DRUMS, Score, make_score
from meloformer.render.labels import COLOURS, chord_symbol
from meloformer.render.piano_roll import MAX_ROWS, depth_of_cover, piano_roll, rows_of


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


def bars_of(score: Score) -> BarGrid:
    meter = (score.meter_ticks, score.meter_numerator, score.meter_denominator)
    return bar_grid(*meter, ticks_per_quarter=score.ticks_per_quarter, end_ticks=score.end_ticks)


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


def test_a_long_piece_is_drawn_in_rows_that_hold_every_bar_once() -> None:
    score = make_score(ticks_per_quarter=12, meters=[(0, 1, 4), (12, 4, 4)], end_ticks=12 + 99 * 48)
    rows = rows_of(bars_of(score))
    assert len(rows) == 7
    assert [bar for row in rows for bar in range(row.first_bar, row.last_bar + 1)] == list(range(100))
    assert len({row.end - row.start for row in rows}) == 1
    assert len(rows_of(bars_of(score.with_changes(end_ticks=3000 * 48)))) == MAX_ROWS


def test_the_chord_of_a_pickup_does_not_hide_that_of_the_first_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[str, float]] = []
    monkeypatch.setattr(Axes, "annotate", lambda _, text, at, *__, **___: written.append((text, at[0])))
    f_sharp, c, a = (CHORD_NAMES.index(name) for name in ("F#:maj7", "C:maj", "A:min"))
    chords = [f_sharp, *[c] * 7, *[a] * 8]
    piano_roll(piece(chords=chords, end_ticks=12 + 15 * 48), tmp_path / "piece.png")
    assert written == [("C", 12), ("Am", 12 + 7 * 48)]
    written.clear()
    piano_roll(piece(chords=[c, c, f_sharp, f_sharp]), tmp_path / "short.png")
    assert written == [("C", 0), ("F#maj7", 60)]


def test_chords_are_written_as_musicians_do() -> None:
    names = ("C:maj", "A:min7", "F:maj7", "Bb:9", "F#:hdim7", "D:5", "E:min")
    assert [chord_symbol(CHORD_NAMES.index(name)) for name in names] == [
        "C",
        "Am7",
        "Fmaj7",
        "Bb9",
        "F#hdim7",
        "D5",
        "Em",
    ]


def test_a_picture_of_a_real_piece_has_the_colour_of_every_instrument(dev_files: list[Path], tmp_path: Path) -> None:
    (path,) = [path for path in dev_files if path.name == "examples__mozart_konigdernacht.mid"]
    score = read_midi(path)
    piano_roll(score, tmp_path / "piece.png")
    pixels = (imread(tmp_path / "piece.png")[..., :3] * 255).round().astype(np.int64)
    seen = set(np.unique(pixels @ [65536, 256, 1]).tolist())
    wanted = {int(colour.removeprefix("#"), 16) for colour in COLOURS[: len(np.unique(score.program))]}
    assert len(wanted) == 8
    assert wanted <= seen


def test_a_path_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nowhere"):
        piano_roll(piece(), tmp_path / "nowhere" / "piece.png")
    assert list(tmp_path.iterdir()) == []


def test_a_note_upon_another_instruments_note_is_drawn_thinner() -> None:
    score = make_score(
        ticks_per_quarter=12, onset_ticks=[0, 0, 0, 12, 24], duration_ticks=[24, 24, 12, 12, 12],
        pitch=[60, 60, 64, 60, 60], velocity=[80] * 5, program=[0, 40, 0, 60, 60],
    )  # fmt: skip
    depth = dict(zip(zip(score.onset_ticks.tolist(), score.program.tolist(), score.pitch.tolist(), strict=True),
                     depth_of_cover(score).tolist(), strict=True))  # fmt: skip
    assert depth == {(0, 0, 60): 0, (0, 40, 60): 1, (0, 0, 64): 0, (12, 60, 60): 2, (24, 60, 60): 0}


def test_a_title_with_dollar_signs_is_no_formula(tmp_path: Path, titles: list[str]) -> None:
    piano_roll(piece(), tmp_path / "piece.png", title="$x_{$")
    assert titles[0].startswith(r"\$x_{\$")

"""What a grid of bars says of a piece."""

from __future__ import annotations

from hypothesis import given

from meloformer.midi.bars import empty_bars, grid_of
from meloformer.midi.score import Score
from tests.strategies import scores


@given(scores(on_grid=True))
def test_a_bar_is_empty_where_no_note_sounds(score: Score) -> None:
    grid = grid_of(score)
    notes = list(zip(score.onset_ticks.tolist(), (score.onset_ticks + score.duration_ticks).tolist(), strict=True))
    bars = zip(grid.start_ticks.tolist(), (grid.start_ticks + grid.length_ticks).tolist(), strict=True)
    expected = sum(all(onset >= stop or end <= start for onset, end in notes) for start, stop in bars)
    assert empty_bars(score) == expected

"""Music of one's own: what is kept stays as it is, and what is new is where it should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import meloformer as mf
from benchmarks.controls import rests_of
from meloformer.bench.music import practice_piece
from meloformer.errors import GenerationError, RejectError
from meloformer.generation.cache import PieceCache
from meloformer.generation.constraints import OPENING_BARS
from meloformer.generation.decoder import Decoder
from meloformer.generation.plan import bars_of
from meloformer.midi.bars import grid_of
from meloformer.midi.score import DRUMS, Score, ending_with_its_bars, make_score
from meloformer.settings import GenerationSettings
from meloformer.tokens.grammar import grammar_errors
from meloformer.tokens.vocabulary import Vocabulary

SHORT = GenerationSettings(max_notes_per_bar=6, density=3)
SEED, BASS, STRINGS = 0, 33, (*range(40, 46), *range(48, 52))  # with a piano, a trumpet and drums


@pytest.fixture(scope="module")
def model() -> mf.MeloFormer:
    torch.manual_seed(1)
    return mf.MeloFormer(mf.ModelSettings.of_size("tiny", num_layers=2, dim=16, ffn_dim=16)).eval()


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("songs") / "song.mid"
    mf.write_midi(ending_with_its_bars(practice_piece(SEED, num_bars=12)), path)
    return path


def cells_of(score_or_ids: Score | np.ndarray) -> list[dict[int, list[int]]]:
    """For every bar program -> ids of its cell."""
    ids = mf.encode(score_or_ids) if isinstance(score_or_ids, Score) else score_or_ids
    return [{cell.program: cell.ids for cell in bar.plan.cells} for bar in bars_of(ids.astype(np.int64))]


def headers_of(ids: np.ndarray) -> list[tuple[int | None, ...]]:
    return [bar.plan[:3] for bar in bars_of(ids.astype(np.int64))]


def without(cells: dict[int, list[int]], programs: set[int]) -> dict[int, list[int]]:
    return {program: ids for program, ids in cells.items() if program not in programs}


def test_a_primer_goes_on(model: mf.MeloFormer, song: Path) -> None:
    given = mf.encode(mf.read_midi(song))
    pieces = mf.generate(model, settings=SHORT, primer=song, primer_bars=8, bars=11, num=2, chords="G", tempo=90)
    assert not np.array_equal(pieces[0], pieces[1])
    for ids in pieces:
        assert grammar_errors(ids) == []
        assert cells_of(ids)[:8] == cells_of(given)[:8]
        assert headers_of(ids)[:8] == headers_of(given)[:8]
        score = mf.decode(ids)
        assert score.chords is not None
        assert len(score.chords) == 11
        assert [mf.Vocabulary.default().names[6 + chord] for chord in score.chords[8:]] == ["G:maj"] * 3


def test_instruments_are_wished_of_what_goes_on_only(model: mf.MeloFormer, song: Path) -> None:
    (ids,) = mf.generate(model, settings=SHORT, primer=song, primer_bars=2, bars=5, instruments="violin,drums")
    new = cells_of(ids)[2:]
    assert set().union(*new) == {40, DRUMS}


def test_wished_instruments_sound_in_what_goes_on_where_given_notes_of_theirs_ring(
    model: mf.MeloFormer, tmp_path: Path
) -> None:
    held = make_score(
        ticks_per_quarter=12, onset_ticks=[0, 0], duration_ticks=[384, 12], pitch=[60, 36], velocity=[80, 80],
        program=[0, 33], tempos=[(0, 500_000)], end_ticks=96, num_tracks=2,
    )  # fmt: skip
    mf.write_midi(held, tmp_path / "held.mid")
    wish = {"primer": tmp_path / "held.mid", "primer_bars": 1, "bars": 6, "max_polyphony": 1}
    (ids,) = mf.generate(model, settings=SHORT, instruments="#0,#33", **wish)
    assert 0 in set().union(*cells_of(ids)[1:5])


def test_an_added_and_a_replaced_instrument_keep_playing(model: mf.MeloFormer, song: Path) -> None:
    for max_rest in (0, 2):
        (ids,) = mf.generate(model, settings=SHORT, primer=song, replace="bass", add="choir,strings", max_rest=max_rest)
        for programs in ({BASS}, {52, 53, 54}, set(STRINGS)):
            before, *rests = rests_of(mf.decode(ids), programs)
            assert before < OPENING_BARS
            assert max(rests) <= max_rest
    (ids,) = mf.generate(model, settings=SHORT, primer=song, add="#75", max_rest=12)
    assert max(rests_of(mf.decode(ids), {75})) > 2  # these weights would let it rest


def test_an_instrument_is_replaced_and_every_other_cell_stays(model: mf.MeloFormer, song: Path) -> None:
    given, own = mf.encode(mf.read_midi(song)), set(range(32, 40))
    (ids,) = mf.generate(model, settings=SHORT, primer=song, replace="bass", seed=3)
    assert grammar_errors(ids) == []
    assert headers_of(ids) == headers_of(given)
    before, after = cells_of(given), cells_of(ids)
    assert [without(cells, own) for cells in after] == [without(cells, own) for cells in before]
    new = [{program for program in cells if program in own} for cells in after]
    assert set().union(*new) == {BASS}
    assert [cells.get(BASS) for cells in after] != [cells.get(BASS) for cells in before]


def test_an_instrument_is_added_in_some_bars(model: mf.MeloFormer, song: Path) -> None:
    given = mf.encode(mf.read_midi(song))
    (ids,) = mf.generate(model, settings=SHORT, primer=song, add="strings,choir", vary="3-5", seed=3)
    assert grammar_errors(ids) == []
    before, after = cells_of(given), cells_of(ids)
    strings, choir = set(STRINGS), {52, 53, 54}
    assert [without(cells, strings | choir) for cells in after] == before
    new = [set(cells) & (strings | choir) for cells in after]
    assert not any(new[:2] + new[5:])
    used = set().union(*new)
    assert used & strings
    assert used & choir


def test_some_bars_are_varied_and_the_rest_stays(model: mf.MeloFormer, song: Path) -> None:
    given = mf.encode(mf.read_midi(song))
    (ids,) = mf.generate(model, settings=SHORT, primer=song, vary="4-6", chords="F:maj G:7", seed=3)
    before, after = bars_of(given.astype(np.int64)), bars_of(ids.astype(np.int64))
    assert grammar_errors(ids) == []
    assert [bar.plan for bar in after[:3] + after[6:]] == [bar.plan for bar in before[:3] + before[6:]]
    assert [bar.plan.cells for bar in after[3:6]] != [bar.plan.cells for bar in before[3:6]]
    names = [Vocabulary.default().names[6 + (bar.plan.chord or 0)] for bar in after[3:6]]
    assert names == ["F:maj", "G:7", "F:maj"]
    playing = {cell.program for bar in before for cell in bar.plan.cells}
    assert {cell.program for bar in after for cell in bar.plan.cells} <= playing
    assert grid_of(mf.decode(ids)).start_ticks.tolist() == grid_of(mf.decode(given)).start_ticks.tolist()


def test_a_real_piece_is_rewritten(model: mf.MeloFormer, dev_files: list[Path]) -> None:
    for path in dev_files[5:700:150]:
        given = mf.encode(mf.read_midi(path))
        before = cells_of(given)
        own = {max(set().union(*before), key=lambda program: sum(program in cells for cells in before))}
        name = "drums" if own == {DRUMS} else str(min(own))
        last = min(len(before), 4)
        (ids,) = mf.generate(model, settings=SHORT, primer=path, replace=name, vary=f"1-{last}")
        after = cells_of(ids)
        assert grammar_errors(ids) == []
        assert [without(cells, own) for cells in after] == [without(cells, own) for cells in before]
        assert after[last:] == before[last:]


def test_a_piece_is_the_same_alone_and_among_others_when_it_goes_on(model: mf.MeloFormer, song: Path) -> None:
    wish = {"primer": song, "primer_bars": 3, "bars": 6}
    together = mf.generate(model, settings=SHORT, num=3, **wish)
    (alone,) = mf.generate(model, settings=SHORT, **wish)
    assert np.array_equal(alone, together[0])


def test_of_a_long_primer_as_much_is_read_as_is_in_sight(
    model: mf.MeloFormer, song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    read = Decoder.read

    def counted(self: Decoder, ids: np.ndarray) -> tuple[PieceCache, torch.Tensor]:
        lengths.append(len(ids))
        return read(self, ids)

    monkeypatch.setattr(Decoder, "read", counted)
    (ids,) = mf.generate(model, settings=SHORT, primer=song, bars=40, context=100)
    assert len(ids) > 200
    assert 0 < max(lengths) < 100
    assert len(lengths) > 1  # and anew, as the piece grows
    assert grammar_errors(ids) == []


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"bars": 12}, "12 bars are given and the piece is to have 12 in all"),
        ({"primer_bars": 13}, "has 12 bars, not 13"),
        ({"replace": "flute"}, "no flute to replace; it has .*Bass"),
        ({"add": "33"}, "has 33 already; use --replace"),
        ({"vary": "5-30"}, "the piece has 12"),
        ({"vary": "6-5"}, "are no range"),
        ({"vary": "1", "meter": "3/4"}, "--meter does not go with"),
        ({"vary": "1", "bars": 12}, "--bars does not go with"),
        ({"replace": "bass", "instruments": "bass"}, "--instruments does not go with"),
    ],
)
def test_what_does_not_go_together_is_refused(model: mf.MeloFormer, song: Path, wish: dict, message: str) -> None:
    with pytest.raises(GenerationError, match=message):
        mf.generate(model, settings=SHORT, primer=song, **wish)


def test_a_primer_that_is_no_music_is_named(model: mf.MeloFormer, tmp_path: Path) -> None:
    (tmp_path / "song.mid").write_bytes(b"nothing")
    with pytest.raises(RejectError, match=r"song.mid"):
        mf.generate(model, primer=tmp_path / "song.mid")

"""Figures are taken in turns, and written where the page has room for them."""

from __future__ import annotations

import re
from array import array
from pathlib import Path

import pytest

from benchmarks import live, preprocess
from benchmarks.measure import PAGE, interleaved, table, write_section
from benchmarks.preprocess import report
from meloformer.bench.music import practice_piece
from meloformer.midi.write import write_midi
from meloformer.render.live import Played


def busy(rounds: int) -> None:
    sum(number * number for number in range(rounds))


def test_tasks_take_turns_and_more_work_takes_more_time() -> None:
    order: list[str] = []

    def task(name: str, rounds: int) -> None:
        order.append(name)
        busy(rounds)

    seconds = interleaved({"a": lambda: task("a", 1000), "b": lambda: task("b", 200_000)}, repeats=3)
    assert order == ["a", "b"] * 3
    assert 0 < seconds["a"] < seconds["b"]


def test_a_section_is_replaced_and_the_rest_of_the_page_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- x -->\nold\n<!-- /x -->\nbelow\n")
    write_section(page, "x", table(("", "n"), [("a", "1")]))
    assert page.read_text() == "above\n<!-- x -->\n|  | n |\n|---|---:|\n| a | 1 |\n<!-- /x -->\nbelow\n"
    with pytest.raises(ValueError, match="once each"):
        write_section(page, "y", "")


def test_the_report_has_a_figure_for_everyone_and_says_who_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(4):
        write_midi(practice_piece(seed, num_bars=8), tmp_path / f"{seed}.mid")
    (tmp_path / "broken.mid").write_bytes(b"no music")
    monkeypatch.setattr(preprocess, "miditok_remi", lambda: None)
    monkeypatch.setattr(preprocess, "LEVELS", (1, 3))
    text = report(tmp_path, num_files=10, repeats=1)
    assert "MidiTok is not installed" in text
    assert "the same 4 files" in text
    assert "4 documents" in text
    assert (
        len(re.findall(r"^\| (symusic|MeloFormer|1|3|reading|`build-vocab`|tokenising)[ ,].*\d \|$", text, re.M)) == 7
    )


def test_lateness_is_told_by_quantiles_and_by_the_share_within_the_budget() -> None:
    played = Played(bars=4, pauses=1, late_seconds=array("d", [0.001] * 98 + [0.004, 0.010]))
    assert live.row("case", played) == ["case", "4", "100", "1.00", "4.06", "10.00", "99.00 %", "1"]
    assert "<!-- live -->" in PAGE.read_text()


@pytest.mark.peers
def test_miditok_writes_chords_too(tmp_path: Path) -> None:
    pytest.importorskip("miditok")
    write_midi(practice_piece(0, num_bars=8), tmp_path / "song.mid")
    remi = preprocess.miditok_remi()
    assert remi is not None
    assert any(token.startswith("Chord_") for token in remi(tmp_path / "song.mid").tokens)

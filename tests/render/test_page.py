"""The page as text: everything of the piece is in it, and nothing else is asked for."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from meloformer.errors import OutputError
from meloformer.midi.programs import FAMILIES
from meloformer.midi.score import DRUMS, make_score
from meloformer.render.page import WEB, json_in_html, page_of, write_page
from tests.render.pieces import band

NASTY = """</script><script>alert("&'1")</script> <!-- {{piece}} \u2028"""


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the text of each kind."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found:
            tag = self.found[-1][0]
            self.text[tag] = self.text.get(tag, "") + data


def piece_in(page: str) -> dict:
    match = re.search(r'<script type="application/json" id="piece">(.*?)</script>', page, re.DOTALL)
    assert match
    return json.loads(match[1])


def test_a_page_asks_for_nothing_outside_itself() -> None:
    page = page_of(band(), title="song")
    for tag, attributes in Elements(page).found:
        assert tag not in ("img", "iframe", "object", "embed", "audio", "video", "base")
        assert "src" not in attributes
        assert attributes.get("href", "data:,") == "data:,"
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttpRequest|WebSocket|import\(", page)


def test_a_title_that_looks_like_html_is_only_text() -> None:
    page = page_of(band(), title=NASTY)
    elements = Elements(page)
    assert [tag for tag, _ in elements.found].count("script") == 2
    assert elements.text["title"].strip() == NASTY.strip()
    assert piece_in(page)["title"] == NASTY
    assert "{{" not in page.replace("{{piece}}", "", 3)


def test_json_inside_a_script_holds_nothing_that_ends_it() -> None:
    text = json_in_html({"name": NASTY})
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text) == {"name": NASTY}


def test_the_piece_is_in_the_page_with_every_note_in_milliseconds() -> None:
    score = band(num_bars=2)
    piece = piece_in(page_of(score, title="song"))
    assert (piece["end"], piece["bars"], piece["bpm"]) == (4000, [0, 2000], 120.0)
    assert len(piece["chords"]) == 2
    assert [track["family"] for track in piece["tracks"]] == ["piano", "bass", "ensemble", "drums"]
    for track, program in zip(piece["tracks"], (0, 33, 48, DRUMS), strict=True):
        onset, duration, pitch, velocity = np.array(track["notes"]).reshape(-1, 4).T
        own = score.program == program
        assert onset.tolist() == (500 * np.arange(8)).tolist()
        assert set(duration) == ({100} if program == DRUMS else {500})
        assert pitch.tolist() == score.pitch[own].tolist()
        assert velocity.tolist() == score.velocity[own].tolist()
    assert [name for _, name in piece["drums"]] == ["Bass Drum 1", "Side Stick", "Acoustic Snare", "Hand Clap"]


def test_a_change_of_tempo_moves_bars_and_notes() -> None:
    score = make_score(
        ticks_per_quarter=480, onset_ticks=[0, 1920, 2880], duration_ticks=[480] * 3, pitch=[60] * 3,
        velocity=[80] * 3, program=[0] * 3, tempos=[(0, 500_000), (1920, 1_000_000)], end_ticks=3840,
    )  # fmt: skip
    piece = piece_in(page_of(score, title=""))
    assert (piece["bars"], piece["end"], piece["chords"]) == ([0, 2000], 6000, [])
    assert piece["tracks"][0]["notes"] == [0, 500, 60, 80, 2000, 1000, 60, 80, 4000, 1000, 60, 80]


def test_every_family_and_every_drum_has_a_sound() -> None:
    timbres = (WEB / "timbres.js").read_text()
    assert re.findall(r'^  "([a-z ]+)": \{', timbres, re.MULTILINE) == list(FAMILIES)
    drums = re.search(r"const DRUMS = \{(.*?)\};", (WEB / "drums.js").read_text(), re.DOTALL)
    assert drums
    assert [int(key) for key in re.findall(r"\b(\d\d): ", drums[1])] == list(range(35, 82))


def test_a_page_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nowhere"):
        write_page(band(), tmp_path / "nowhere" / "song.html", title="song")

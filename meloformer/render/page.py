"""A piece as one page of HTML that shows it and plays it, and that asks no network for anything."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from meloformer.files import write_text
from meloformer.midi.bars import grid_of, seconds_of
from meloformer.midi.programs import FAMILIES, drum_name, program_name
from meloformer.midi.score import DRUMS, Score
from meloformer.render.bars import DRUM_SECONDS
from meloformer.render.labels import chord_symbol, colour_of_programs, facts_of

WEB = Path(__file__).parent / "web"
SCRIPTS = ("timbres.js", "drums.js", "player.js", "roll.js", "main.js")
"""In this order; together they are the script of the page."""
_MARK = re.compile(r"(?:/\*)?\{\{(?P<name>\w+)\}\}(?:\*/)?")


def write_page(score: Score, path: Path, *, title: str) -> None:
    """Write the page of a piece.

    Args:
        score: The piece; its chords are shown where it has some.
        path: The HTML file; it appears only when it is whole.
        title: Of the page.
    Raises:
        OutputError: The path cannot be written.
        RejectError: The score has a meter whose bars are no whole number of ticks, or too many bars.
    """
    write_text(path, page_of(score, title=title))


def page_of(score: Score, *, title: str) -> str:
    """The text of the page: layout, styles, script and piece in one."""
    parts = {
        "title": html.escape(title),
        "facts": html.escape(facts_of(score, grid_of(score))),
        "styles": (WEB / "page.css").read_text(encoding="utf-8"),
        "piece": json_in_html(piece_of(score, title=title)),
        "script": "\n".join((WEB / name).read_text(encoding="utf-8") for name in SCRIPTS),
    }
    layout = (WEB / "page.html").read_text(encoding="utf-8")
    return _MARK.sub(lambda mark: parts[mark["name"]], layout)  # in one go: no part is searched for marks


def json_in_html(record: object) -> str:
    """JSON that can stand inside a script element: it holds no ``<``, so nothing in it can end the element."""
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def piece_of(score: Score, *, title: str) -> dict[str, Any]:
    """What the script of the page knows of a piece; times are in milliseconds at the written tempo.

    ``notes`` of a track are flat: onset, duration, pitch, velocity, onset, ...
    """
    grid = grid_of(score)
    bars = _milliseconds(score, np.append(grid.start_ticks, grid.end_ticks))
    onset = _milliseconds(score, score.onset_ticks)
    end = _milliseconds(score, score.onset_ticks + score.duration_ticks)
    tracks = []
    for program, colour in colour_of_programs(score).items():
        own = score.program == program
        duration = np.full(own.sum(), int(1000 * DRUM_SECONDS)) if program == DRUMS else (end - onset)[own]
        columns = [onset[own], np.maximum(duration, 1), score.pitch[own], score.velocity[own]]
        tracks.append(
            {
                "name": program_name(program),
                "colour": colour,
                "family": "drums" if program == DRUMS else list(FAMILIES)[program // 8],
                "notes": np.stack(columns, axis=1).reshape(-1).tolist(),
            }
        )
    drums = np.unique(score.pitch[score.program == DRUMS]).tolist()
    return {
        "title": title,
        "bpm": round(60e6 / float(score.tempo_us[0]), 1),
        "end": int(bars[-1]),
        "bars": bars[:-1].tolist(),
        "chords": [] if score.chords is None else [chord_symbol(chord) for chord in score.chords.tolist()],
        "drums": [[pitch, drum_name(pitch)] for pitch in drums],
        "tracks": tracks,
    }


def _milliseconds(score: Score, ticks: np.ndarray) -> np.ndarray:
    """(N,) int64."""
    return np.rint(1000 * seconds_of(score, ticks)).astype(np.int64)

"""``--port``: playing while generating, playing files, and what Ctrl-C leaves."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import mido
import numpy as np
import pytest

from meloformer.midi.read import read_midi
from meloformer.midi.score import Score, make_score
from meloformer.midi.write import write_midi
from meloformer.tokens.quantise import quantise
from tests.cli.conftest import Run
from tests.cli.test_commands import result_of
from tests.cli.test_errors import assert_one_line
from tests.render import recording_backend

QUICK = (
    *("--tempo", "250", "--meter", "1/4", "--instruments", "piano,bass,drums"),
    *("--set", "generation.max_notes_per_bar=4", "--set", "generation.context=64"),
)
"""Bars of a quarter of a second."""


@pytest.fixture(autouse=True)
def _recorder() -> Iterator[None]:
    mido.set_backend("tests.render.recording_backend")
    recording_backend.sent.clear()
    recording_backend.at_message.clear()
    yield
    mido.set_backend()


def begun() -> list[tuple[int, int]]:
    """(pitch, velocity) of every note that was played, sorted."""
    messages = [message for _, _, message in recording_backend.sent if message.type == "note_on"]
    return sorted((message.note, message.velocity) for message in messages)


def written(score: Score) -> list[tuple[int, int]]:
    return sorted(zip(score.pitch.tolist(), score.velocity.tolist(), strict=True))


def test_what_is_played_while_it_is_generated_is_what_is_written(
    meloformer: Run, untrained: Path, tmp_path: Path
) -> None:
    play = ("generate", "--checkpoint", untrained, "--bars", "4", *QUICK, "--seed", "3")
    (piece,) = result_of(meloformer, *play, "--port", "recorder a")["pieces"]
    assert (piece["played_bars"], piece["bars"]) == (4, 4)
    score = read_midi(tmp_path / piece["file"])
    assert begun() == written(score)
    assert len(begun()) == piece["played_notes"] >= 3
    silent = result_of(meloformer, *play, "--out", "silent")["pieces"][0]
    assert read_midi(tmp_path / silent["file"]) == score


def test_ctrl_c_silences_the_port_and_keeps_the_bars_that_were_played(
    meloformer: Run, untrained: Path, tmp_path: Path
) -> None:
    recording_backend.at_message[6] = lambda: signal.raise_signal(signal.SIGINT)
    before = signal.getsignal(signal.SIGINT)
    done = meloformer("generate", "--checkpoint", untrained, "--bars", "40", *QUICK, "--port", "Recorder A")
    assert done.returncode == 130
    kept = tmp_path / "generated" / "seed0-1.mid"
    score = quantise(read_midi(kept))
    assert score.chords is not None
    assert f"stopped in bar {len(score.chords)}; what was played is in generated/seed0-1.mid" in done.stderr
    assert 1 <= len(score.chords) < 40
    assert not set(begun()) - set(written(score))
    last = recording_backend.sent[-1][2]
    assert (last.type, last.channel, last.control) == ("control_change", 15, 120)
    sounding = set()
    for _, _, message in recording_backend.sent:
        if message.type == "note_on":
            sounding.add((message.channel, message.note))
        elif message.type == "note_off":
            sounding.discard((message.channel, message.note))
    assert not sounding
    assert signal.getsignal(signal.SIGINT) is before


def test_render_plays_a_file(meloformer: Run, tmp_path: Path) -> None:
    score = make_score(
        ticks_per_quarter=12, onset_ticks=[0, 6, 12], duration_ticks=[6, 6, 12], pitch=[60, 64, 67],
        velocity=[50, 60, 70], program=[0, 0, 40], tempos=[(0, 300_000)],
    )  # fmt: skip
    write_midi(score, tmp_path / "song.mid")
    done = meloformer("render", "song.mid", "--port", "Recorder B")
    assert (done.returncode, "played 1 bars" in done.stderr) == (0, True)
    notes = [(moment, message.note) for moment, _, message in recording_backend.sent if message.type == "note_on"]
    assert [pitch for _, pitch in notes] == [60, 64, 67]
    assert np.diff([moment for moment, _ in notes]) == pytest.approx([0.15, 0.15], abs=0.1)
    assert (tmp_path / "rendered" / "song.png").exists()
    recording_backend.sent.clear()
    recording_backend.at_message[2] = lambda: signal.raise_signal(signal.SIGTERM)
    stopped = meloformer("render", "song.mid", "--port", "Recorder B")
    assert (stopped.returncode, "stopped in bar 1 of song" in stopped.stderr) == (130, True)


def test_ports_are_listed_and_a_wrong_one_is_told_before_the_work(meloformer: Run, tmp_path: Path) -> None:
    for command in ("generate", "render"):
        assert meloformer(command, "--list-ports").stdout == "Recorder A\nRecorder B\nOrgan\n"
    assert_one_line(meloformer("generate", "--port", "Flute", "--checkpoint", "none"), "Flute", "Recorder A")
    assert list(tmp_path.iterdir()) == []


def test_a_port_plays_one_piece_at_a_time(meloformer: Run, untrained: Path) -> None:
    done = meloformer("generate", "--checkpoint", untrained, "--port", "Recorder A", "--num", "2")
    assert_one_line(done, "--num")

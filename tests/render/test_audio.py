"""Sound: the right pitches at the right times, at the right level, from a SoundFont that is found or named."""

from __future__ import annotations

import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from meloformer.errors import InputError, MeloFormerError
from meloformer.midi.score import DRUMS, Score, make_score
from meloformer.midi.write import parts_for_one_port
from meloformer.render import soundfont
from meloformer.render.audio import PEAK, TAIL_SECONDS, sound_of, write_wav
from meloformer.render.soundfont import find_soundfont
from tests.render.pieces import band
from tests.render.soundfonts import write_sine_soundfont

pytest.importorskip("midirenderer", reason="midirenderer is not installed")


@pytest.fixture
def sine(tmp_path: Path) -> Path:
    return write_sine_soundfont(tmp_path / "sine.sf2")


def notes(*rows: tuple[int, int, int], program: int = 0) -> Score:
    """Rows of onset, duration and pitch, in twelfths of a quarter at 120 bpm."""
    onset, duration, pitch = zip(*rows, strict=True)
    return make_score(
        ticks_per_quarter=12, onset_ticks=onset, duration_ticks=duration, pitch=pitch,
        velocity=[100] * len(rows), program=[program] * len(rows),
    )  # fmt: skip


def hertz_of(samples: np.ndarray, rate: int) -> float:
    """The loudest frequency."""
    spectrum = np.abs(np.fft.rfft(samples.mean(axis=1) * np.hanning(len(samples))))
    return float(np.fft.rfftfreq(len(samples), 1 / rate)[spectrum.argmax()])


def test_notes_sound_at_their_pitch_in_their_time(sine: Path) -> None:
    samples, rate = sound_of(notes((0, 24, 69), (24, 24, 57), (72, 24, 81)), sine)
    seconds = [samples[round(second * rate) : round((second + 1) * rate)] for second in range(4)]
    assert [hertz_of(second, rate) for second in (seconds[0], seconds[1], seconds[3])] == pytest.approx(
        [440, 220, 880], abs=2
    )
    loudness = [float(np.sqrt((second[rate // 4 :] ** 2).mean())) for second in seconds]
    assert loudness[2] < 0.1 * loudness[1]  # the rest
    assert min(loudness[0], loudness[1], loudness[3]) > 0.1


def test_the_loudest_sample_is_one_decibel_below_the_full_scale(sine: Path, tmp_path: Path) -> None:
    score = notes((0, 12, 69), (0, 12, 64), (0, 12, 60))
    write_wav(score, tmp_path / "piece.wav", sine)
    with wave.open(str(tmp_path / "piece.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (2, 2)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        seconds = file.getnframes() / file.getframerate()
    assert np.abs(samples).max() == pytest.approx(32767 * PEAK, abs=2)
    assert 0.5 <= seconds <= 0.5 + TAIL_SECONDS + 0.1


def test_more_instruments_than_channels_all_sound(sine: Path) -> None:
    score = make_score(
        ticks_per_quarter=12, onset_ticks=[0] * 20, duration_ticks=[24] * 20, pitch=range(50, 70),
        velocity=[100] * 20, program=range(20),
    )  # fmt: skip
    parts = parts_for_one_port(score)
    assert [part.num_notes for part in parts] == [15, 5]
    samples, rate = sound_of(score, sine)
    spectrum = np.abs(np.fft.rfft(samples[:rate].mean(axis=1) * np.hanning(rate)))
    for pitch in range(50, 70):
        assert spectrum[round(440 * 2 ** ((pitch - 69) / 12))] > 0.1 * spectrum.max()


def test_drums_are_in_the_first_part_only() -> None:
    score = band(programs=(*range(16), DRUMS))
    with_drums = [bool((part.program == DRUMS).any()) for part in parts_for_one_port(score)]
    assert with_drums == [True, False]
    assert sum(part.num_notes for part in parts_for_one_port(score)) == score.num_notes


def test_a_piece_without_notes_is_silence_of_its_length(sine: Path) -> None:
    samples, rate = sound_of(make_score(ticks_per_quarter=12, end_ticks=48), sine)
    assert samples.shape == (2 * rate, 2)
    assert not samples.any()


def test_a_file_that_is_no_soundfont_is_named(tmp_path: Path) -> None:
    (tmp_path / "song.sf2").write_bytes(b"RIFF, but nothing else")
    with pytest.raises(InputError, match=r"song\.sf2 cannot be played from"):
        sound_of(band(), tmp_path / "song.sf2")


def test_a_damaged_soundfont_is_named_too(sine: Path) -> None:
    damaged = bytearray(sine.read_bytes())
    end_of_loop = damaged.rindex(b"sine".ljust(20, b"\0")) + 32
    damaged[end_of_loop : end_of_loop + 4] = (60_000).to_bytes(4, "little")  # past the samples: the synthesizer panics
    sine.write_bytes(damaged)
    with pytest.raises(InputError, match=r"sine\.sf2 cannot be played from"):
        sound_of(notes((0, 24, 69)), sine)


def test_a_missing_package_is_named(sine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "midirenderer", None)
    with pytest.raises(MeloFormerError, match=r"pip install 'meloformer\[audio\]'"):
        sound_of(band(), sine)


def test_a_soundfont_is_named_or_found_in_this_order(
    sine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soundfont, "find_spec", lambda _name: None)
    monkeypatch.delenv(soundfont.VARIABLE, raising=False)
    monkeypatch.setattr(soundfont, "FOLDERS", (str(tmp_path / "none"), str(tmp_path / "fonts")))
    with pytest.raises(InputError, match=r"no SoundFont.*--soundfont"):
        find_soundfont()
    (tmp_path / "fonts").mkdir()
    for name in ("zither.sf2", "FluidR3_GM.sf2", "TimGM6mb.sf2", "readme.txt"):
        (tmp_path / "fonts" / name).write_bytes(b"")
    assert find_soundfont().name == "FluidR3_GM.sf2"
    monkeypatch.setenv(soundfont.VARIABLE, str(tmp_path / "fonts" / "zither.sf2"))
    assert find_soundfont().name == "zither.sf2"
    assert find_soundfont(sine) == sine
    with pytest.raises(InputError, match=r"no SoundFont .*gone\.sf2"):
        find_soundfont(tmp_path / "gone.sf2")


def test_the_soundfont_of_the_extra_is_found_without_importing_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pretty_midi", reason="pretty_midi is not installed")
    monkeypatch.delitem(sys.modules, "pretty_midi", raising=False)
    monkeypatch.delenv(soundfont.VARIABLE, raising=False)
    monkeypatch.setattr(soundfont, "FOLDERS", ())
    assert find_soundfont().name == "TimGM6mb.sf2"
    assert "pretty_midi" not in sys.modules

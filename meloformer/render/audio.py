"""A piece as sound: a SoundFont played into a WAV file, by rustysynth through midirenderer."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np

from meloformer.errors import InputError, MeloFormerError
from meloformer.files import whole_file
from meloformer.midi.bars import seconds_of
from meloformer.midi.score import Score
from meloformer.midi.write import parts_for_one_port, to_midi_bytes

PEAK = 10 ** (-1 / 20)
"""The loudest sample of a file: 1 dB below the full scale, so that players that resample do not clip."""
TAIL_SECONDS = 1.5
"""After the last note, for it to ring out."""
SILENCE = 10 ** (-60 / 20)
"""What is softer than this share of the peak at the end is cut off."""


def write_wav(score: Score, path: Path, soundfont: Path) -> None:
    """Write a piece as a 16-bit stereo WAV file.

    Args:
        score: The piece.
        path: The file; it appears only when it is whole.
        soundfont: An .sf2 file.
    Raises:
        MeloFormerError: ``midirenderer`` is not installed.
        InputError: The SoundFont cannot be read.
        OutputError: The path cannot be written.
    """
    samples, rate = sound_of(score, soundfont)
    with whole_file(path) as beside, wave.open(str(beside), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.rint(samples * 32767).astype("<i2").tobytes())


def sound_of(score: Score, soundfont: Path) -> tuple[np.ndarray, int]:
    """The sound of a piece, at ``PEAK``.

    Returns:
        (T, 2) float32 from -1 to 1, left and right; and the samples a second.
    Raises:
        MeloFormerError, InputError: As for :func:`write_wav`.
    """
    require_synthesizer()
    try:
        sounds = soundfont.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {soundfont}: {error.strerror or error}") from None
    mix, rate = np.zeros((0, 2), dtype=np.float32), 48_000
    for part in parts_for_one_port(_with_tail(score)):  # a synthesizer has sixteen channels
        samples, rate = _played(part, sounds, soundfont)
        longer, shorter = (mix, samples) if len(mix) > len(samples) else (samples, mix)
        longer[: len(shorter)] += shorter
        mix = longer
    return _levelled(mix, written=round(rate * float(seconds_of(score, score.end_ticks)))), rate


def require_synthesizer() -> None:
    """See that the package that plays SoundFonts is there.

    Raises:
        MeloFormerError: It is not.
    """
    try:
        import midirenderer  # noqa: F401
    except ImportError:
        raise MeloFormerError("sound needs the package midirenderer", "pip install 'meloformer[audio]'") from None


def _played(part: Score, sounds: bytes, soundfont: Path) -> tuple[np.ndarray, int]:
    """(T, 2) float32 of one part, and the samples a second."""
    import midirenderer

    try:
        return _samples(midirenderer.render_wave_from(sounds, to_midi_bytes(part)))
    except BaseException as error:
        is_panic = type(error).__name__ == "PanicException"  # Rust's, from a damaged SoundFont; no Exception
        if not is_panic and not isinstance(error, RuntimeError):
            raise
        raise InputError(f"{soundfont} cannot be played from ({error})", "name another with --soundfont") from None


def _with_tail(score: Score) -> Score:
    """The score without its chords and with silence behind it, for the last notes to ring out."""
    end = max(score.end_ticks, int((score.onset_ticks + score.duration_ticks).max(initial=0)))
    ticks_per_second = 1e6 * score.ticks_per_quarter / float(score.tempo_us[-1])
    return score.with_changes(end_ticks=end + max(1, round(TAIL_SECONDS * ticks_per_second)), chords=None)


def _samples(sound: bytes) -> tuple[np.ndarray, int]:
    """(T, 2) float32 of a 16-bit stereo WAV file, and its samples a second."""
    with wave.open(io.BytesIO(sound)) as file:
        frames = file.readframes(file.getnframes())
        return np.frombuffer(frames, "<i2").reshape(-1, 2).astype(np.float32) / 32768, file.getframerate()


def _levelled(mix: np.ndarray, *, written: int) -> np.ndarray:
    """The mix at ``PEAK``, without the silence behind the end of the piece, which is after ``written`` samples."""
    loudness = np.abs(mix).max(axis=1, initial=0)
    peak = float(loudness.max(initial=0))
    if peak == 0:
        return mix[:written]
    heard = int(np.flatnonzero(loudness > SILENCE * peak)[-1]) + 1
    return mix[: max(heard, written)] * np.float32(PEAK / peak)

"""The whole road in Python: scores -> MIDI files -> shards -> weights -> ids -> MIDI files that other programs read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mido
import numpy as np
import symusic

import meloformer as mf
from meloformer.bench.music import practice_piece
from meloformer.midi.score import DRUMS
from meloformer.settings_file import load_settings
from meloformer.shards.pipeline import pack_pieces
from meloformer.shards.store import open_shards
from meloformer.tokens.grammar import grammar_errors
from meloformer.tokens.grid import nearest_tempo
from meloformer.training.loop import train

SETTINGS = load_settings(
    None,
    [
        "model.size=tiny", "model.num_layers=2", "model.dim=64", "model.ffn_dim=128", "training.seq_len=256",
        "training.batch_size=2", "training.steps=20", "training.eval_every=20", "training.eval_rows=4",
        "training.device=cpu", "pack.val_share=0.25", "pack.test_share=0", "generation.max_notes_per_bar=24",
    ],
)  # fmt: skip
NUM_PIECES = 12


def bars_until(end: int, meters: list[tuple[int, int, int]], ticks_per_quarter: int) -> list[int]:
    """Starts of the bars in [0, ``end``) and ``end``, by (tick, numerator, denominator) alone."""
    lines = [0]
    while lines[-1] < end:
        _, numerator, denominator = [meter for meter in meters if meter[0] <= lines[-1]][-1]
        lines.append(lines[-1] + 4 * ticks_per_quarter * numerator // denominator)
    assert lines[-1] == end, "the piece ends inside a bar"
    return lines


def read_by_mido(path: Path) -> tuple[list[int], int]:
    """Bar lines up to the end of the first track, and the number of notes."""
    file = mido.MidiFile(path)
    meters, tick = [], 0
    for message in file.tracks[0]:
        tick += message.time
        if message.type == "time_signature":
            meters.append((tick, message.numerator, message.denominator))
    num_notes = sum(message.type == "note_on" and message.velocity > 0 for track in file.tracks for message in track)
    return bars_until(tick, meters, file.ticks_per_beat), num_notes


def read_by_symusic(path: Path) -> tuple[list[int], int]:
    """Bar lines up to the last marker, of which every bar has one, and the number of notes."""
    file: Any = symusic.Score(path)
    meters = [(meter.time, meter.numerator, meter.denominator) for meter in file.time_signatures]
    lines = bars_until(file.markers[-1].time, meters, file.ticks_per_quarter)
    assert lines == [marker.time for marker in file.markers]
    return lines, sum(len(track.notes) for track in file.tracks)


def test_a_folder_of_midi_in_new_music_out(tmp_path: Path) -> None:
    (tmp_path / "midi").mkdir()
    # Quantised scores carry their bars into the file, even where the last note sounds past the last bar.
    scores = [mf.quantise(practice_piece(seed, num_bars=8)) for seed in range(NUM_PIECES)]
    for number, score in enumerate(scores):
        mf.write_midi(score, tmp_path / "midi" / f"{number:02d}.mid")

    report = pack_pieces([tmp_path / "midi"], tmp_path / "shards", SETTINGS)
    assert report.inputs == report.kept == NUM_PIECES
    shards = open_shards(tmp_path / "shards")
    packed = [bytes(ids) for split in ("train", "val") for ids in shards.split(split)]
    assert sorted(packed) == sorted(bytes(mf.encode(score)) for score in scores)

    result = train(tmp_path / "shards", tmp_path / "run", SETTINGS)
    assert result.step == 20
    assert result.validation is not None
    assert result.baseline is not None
    assert result.validation.per_note < result.baseline.per_note

    model = mf.load(tmp_path / "run")
    pieces = mf.generate(model, bars=8, num=2, seed=1, settings=SETTINGS.generation)
    pieces += mf.generate(
        model, bars=8, seed=2, tempo=100, meter="3/4", instruments="drums,bass,piano", settings=SETTINGS.generation
    )
    for ids in pieces:
        assert grammar_errors(ids, model.vocabulary) == []
        text = mf.to_text(ids, model.vocabulary)
        assert np.array_equal(mf.from_text(text, model.vocabulary), ids)
        score = mf.decode(ids, model.vocabulary)
        mf.write_midi(score, tmp_path / "new.mid")
        assert mf.quantise(mf.read_midi(tmp_path / "new.mid")) == score
        assert np.array_equal(mf.encode(score, model.vocabulary), ids)
        bar_lines, num_notes = read_by_mido(tmp_path / "new.mid")
        assert len(bar_lines) == 8 + 1
        assert num_notes == score.num_notes
        assert read_by_symusic(tmp_path / "new.mid") == (bar_lines[:-1], num_notes)
    wished = mf.decode(pieces[-1], model.vocabulary)
    assert set(wished.program.tolist()) <= {DRUMS, *range(32, 40), *range(8)}
    assert {"drums" if p == DRUMS else p // 8 for p in wished.program.tolist()} == {"drums", 4, 0}
    assert list(zip(wished.meter_numerator, wished.meter_denominator, strict=True)) == [(3, 4)]
    assert nearest_tempo(wished.tempo_us).tolist() == nearest_tempo(np.array([600_000])).tolist()

"""A small folder of music with all kinds of trouble in it, and shards of made-up documents."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meloformer.bench.music import practice_piece
from meloformer.midi.score import DRUMS, Score, make_score
from meloformer.midi.write import to_midi_bytes
from meloformer.settings import Settings
from meloformer.settings_file import load_settings
from meloformer.shards.format import SUFFIX, Shard, ShardWriter
from meloformer.shards.report import Report
from meloformer.shards.store import Documents, open_shards

NUM_PIECES = 10
REJECTED = {
    "broken/empty.mid": "empty-file",
    "broken/page.mid": "not-midi",
    "broken/cut.mid": "truncated",
    "few/three notes.mid": "too-few-notes",
    "few/silent.mid": "no-notes",
    "zz/again.mid": "duplicate",
    "zz/higher and faster.mid": "duplicate",
}
"""Name -> reason of what ``music`` holds beside its good pieces."""


def settings_with(*changes: str) -> Settings:
    return load_settings(None, list(changes))


SETTINGS = settings_with("pack.val_share=0.3", "pack.test_share=0.2")
"""Enough of every split."""


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def shards_in(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in bytes_in(folder).items() if name.endswith(".zst")}


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def split_by_name(folder: Path) -> dict[str, str]:
    return {line["name"]: line["split"] for line in lines_of(folder / "documents.jsonl")}


def assert_adds_up(report: Report, folder: Path) -> None:
    """Report, manifest and the files of a folder of shards tell the same story."""
    manifest = open_shards(folder).manifest
    rejects = lines_of(folder / "rejects.jsonl")
    documents = lines_of(folder / "documents.jsonl")
    assert report.inputs == report.kept + sum(report.rejects.values())
    assert Counter(line["reason"] for line in rejects) == report.rejects == manifest.rejects
    assert manifest.num_inputs == report.inputs
    assert manifest.num_documents == report.kept == len(documents) == report.to_dict()["num_documents"]
    assert manifest.num_tokens == report.num_tokens == sum(line["tokens"] for line in documents)
    assert manifest.num_notes == report.num_notes == sum(line["statistics"]["notes"] for line in documents)
    names = [line["name"] for line in (*rejects, *documents)]
    assert len(set(names)) == len(names) == report.inputs


def altered(score: Score, *, semitones: int, tempo_us: int) -> Score:
    """The score in another key and at another tempo; drums stay."""
    return make_score(
        ticks_per_quarter=score.ticks_per_quarter,
        onset_ticks=score.onset_ticks,
        duration_ticks=score.duration_ticks,
        pitch=np.where(score.program == DRUMS, score.pitch, score.pitch + semitones),
        velocity=score.velocity,
        program=score.program,
        tempos=[(0, tempo_us)],
        meters=np.stack([score.meter_ticks, score.meter_numerator, score.meter_denominator], axis=1),
        end_ticks=score.end_ticks,
    )


def write_music(folder: Path) -> None:
    """Ten good pieces and everything in ``REJECTED``, in a few folders."""
    for name in ("broken", "few", "good/deeper", "zz"):
        (folder / name).mkdir(parents=True)
    pieces = [practice_piece(seed, num_bars=8) for seed in range(NUM_PIECES)]
    for number, piece in enumerate(pieces):
        where = "good" if number % 2 else "good/deeper"
        (folder / where / f"{number}.mid").write_bytes(to_midi_bytes(piece))
    whole = to_midi_bytes(pieces[0])
    (folder / "broken/empty.mid").write_bytes(b"")
    (folder / "broken/page.mid").write_bytes(b"<!DOCTYPE html><html><body>404</body></html>")
    (folder / "broken/cut.mid").write_bytes(whole[:40])
    quarter = 480
    (folder / "few/three notes.mid").write_bytes(
        to_midi_bytes(
            make_score(
                ticks_per_quarter=quarter,
                onset_ticks=np.arange(3) * quarter,
                duration_ticks=np.full(3, quarter),
                pitch=[60, 64, 67],
                velocity=[80] * 3,
                program=[0] * 3,
            )
        )
    )
    # no notes at all: header, one track with an end-of-track event
    (folder / "few/silent.mid").write_bytes(
        bytes.fromhex("4d546864 00000006 0000 0001 01e0 4d54726b 00000004 00ff2f00")
    )
    (folder / "zz/again.mid").write_bytes(to_midi_bytes(pieces[1]))
    (folder / "zz/higher and faster.mid").write_bytes(to_midi_bytes(altered(pieces[2], semitones=3, tempo_us=400_000)))
    (folder / "zz/notes.txt").write_text("not music, not an input")


@pytest.fixture(scope="session")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of ten good pieces and the files of ``REJECTED``; not to be changed."""
    folder = tmp_path_factory.mktemp("music")
    write_music(folder)
    return folder


@pytest.fixture
def own_music(tmp_path: Path) -> Path:
    """The same, to be changed."""
    folder = tmp_path / "music"
    write_music(folder)
    return folder


Write = Callable[[Sequence[np.ndarray]], Documents]


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Write:
    """Writes documents into shards of three and opens them."""

    def write(ids: Sequence[np.ndarray]) -> Documents:
        folder = tmp_path_factory.mktemp("stored")
        shards = []
        for first in range(0, len(ids), 3):
            path = folder / f"all-{first:05d}{SUFFIX}"
            with ShardWriter(path, level=1) as writer:
                for document in ids[first : first + 3]:
                    writer.add(document)
            shards.append(Shard(path))
        return Documents(shards)

    return write

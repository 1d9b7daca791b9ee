"""Files, lists and shards that are damaged or gone: rejects with their reason, or an end that writes nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from meloformer.bench.music import practice_piece
from meloformer.errors import InputError, ShardError
from meloformer.midi.write import write_midi
from meloformer.shards.pipeline import filter_pieces, pack_pieces, tokenize_pieces
from tests.shards.conftest import NUM_PIECES, SETTINGS, assert_adds_up, lines_of, settings_with


def test_what_is_left_of_a_damaged_file_is_kept_and_marked_or_rejected(own_music: Path, tmp_path: Path) -> None:
    whole = (own_music / "good/1.mid").read_bytes()
    (own_music / "cut in half.mid").write_bytes(whole[: len(whole) // 2])
    report = pack_pieces([own_music], tmp_path / "shards", SETTINGS)
    assert (report.kept, report.recovered) == (NUM_PIECES + 1, 1)
    marks = {line["name"]: line["recovered"] for line in lines_of(tmp_path / "shards/documents.jsonl")}
    assert {name for name, mark in marks.items() if mark is not None} == {"cut in half.mid"}
    assert "truncated" in marks["cut in half.mid"]
    assert filter_pieces([own_music], tmp_path / "kept", SETTINGS).recovered == 1
    assert pack_pieces([tmp_path / "kept"], tmp_path / "from_list", SETTINGS).recovered == 1
    assert pack_pieces([tmp_path / "shards"], tmp_path / "again", SETTINGS).recovered == 1
    report = pack_pieces([own_music], tmp_path / "strict", settings_with("filter.keep_recovered=false"))
    assert (report.kept, report.recovered, report.rejects["recovered"]) == (NUM_PIECES, 0, 1)


def test_files_that_changed_or_went_since_filter_are_rejects(own_music: Path, tmp_path: Path) -> None:
    filter_pieces([own_music], tmp_path / "kept", SETTINGS)
    write_midi(practice_piece(77, num_bars=8), own_music / "good/1.mid")
    (own_music / "good/3.mid").write_bytes(b"no longer music")
    (own_music / "good/5.mid").unlink()
    report = pack_pieces([tmp_path / "kept"], tmp_path / "shards", SETTINGS)
    assert_adds_up(report, tmp_path / "shards")
    reasons = {line["name"]: line["reason"] for line in lines_of(tmp_path / "shards/rejects.jsonl")}
    assert reasons == {"good/1.mid": "changed", "good/3.mid": "changed", "good/5.mid": "unreadable"}
    assert report.inputs == NUM_PIECES


def test_a_folder_without_music_or_an_empty_one_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for stage in (filter_pieces, tokenize_pieces, pack_pieces):
        with pytest.raises(InputError, match="there is no music in"):
            stage([tmp_path / "empty"], tmp_path / "out", SETTINGS)
        with pytest.raises(InputError, match="there is no file or folder"):
            stage([tmp_path / "nowhere"], tmp_path / "out", SETTINGS)
    assert not (tmp_path / "out").exists()


def test_a_folder_in_which_nothing_is_usable_still_says_why(tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    (tmp_path / "music/bad.mid").write_bytes(b"bad")
    report = pack_pieces([tmp_path / "music"], tmp_path / "shards", SETTINGS)
    assert_adds_up(report, tmp_path / "shards")
    assert report.to_dict()["rejects"] == {"not-midi": 1}
    assert report.tokens_per_note == 0


def damaged_list(kept: Path, damage: str) -> None:
    path = kept / "manifest.jsonl"
    text = path.read_text()
    if damage == "version":
        manifest = json.loads((kept / "manifest.json").read_text())
        (kept / "manifest.json").write_text(json.dumps({**manifest, "version": 9}))
    elif damage == "gone":
        path.unlink()
    else:
        path.write_text(
            {"cut": text[:-40], "short": "".join(text.splitlines(keepends=True)[:-2]), "other": "[]"}[damage]
        )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("cut", "damaged in or behind line"),
        ("other", "damaged"),
        ("gone", "No such file"),
        ("short", "its manifest says 10 of 17"),
        ("version", "has version 9, this program reads 2"),
    ],
)
def test_a_damaged_list_is_refused(music: Path, tmp_path: Path, damage: str, message: str) -> None:
    filter_pieces([music], tmp_path / "kept", SETTINGS)
    damaged_list(tmp_path / "kept", damage)
    with pytest.raises(InputError, match=rf"{message}.*`meloformer filter`"):
        pack_pieces([tmp_path / "kept"], tmp_path / "shards", SETTINGS)
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("short", "12 lines for 13 documents"),
        ("cut", "does not fit its shards"),
        ("swapped", "does not fit its shards"),
        ("gone", "No such file"),
    ],
)
def test_documents_that_do_not_fit_their_shards_are_refused(
    music: Path, tmp_path: Path, damage: str, message: str
) -> None:
    tokenize_pieces([music], tmp_path / "tokens", SETTINGS)
    path = tmp_path / "tokens/documents.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    changed = {"short": lines[:-1], "cut": [*lines[:-1], lines[-1][:-30]], "swapped": [lines[1], lines[0], *lines[2:]]}
    if damage == "gone":
        path.unlink()
    else:
        path.write_text("".join(changed[damage]))
    with pytest.raises(ShardError, match=message):
        pack_pieces([tmp_path / "tokens"], tmp_path / "shards", SETTINGS)
    assert not (tmp_path / "shards").exists()


def test_a_damaged_document_among_tokens_stops_the_run(music: Path, tmp_path: Path) -> None:
    tokenize_pieces([music], tmp_path / "tokens", SETTINGS)
    path = tmp_path / "tokens/all-00000.hid.zst"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ShardError, match=r"all-00000\.hid\.zst, document \d+"):
        pack_pieces([tmp_path / "tokens"], tmp_path / "shards", SETTINGS)
    assert not (tmp_path / "shards").exists()


def test_shards_without_their_manifest_are_not_taken_for_a_folder_without_music(music: Path, tmp_path: Path) -> None:
    tokenize_pieces([music], tmp_path / "tokens", SETTINGS)
    (tmp_path / "tokens/manifest.json").unlink()
    with pytest.raises(ShardError, match="holds no shards"):
        pack_pieces([tmp_path / "tokens"], tmp_path / "shards", SETTINGS)


def test_a_folder_that_cannot_be_read_is_one_reject(
    own_music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("deeper"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    report = pack_pieces([own_music], tmp_path / "shards", SETTINGS)
    assert_adds_up(report, tmp_path / "shards")
    rejects = {line["name"]: line for line in lines_of(tmp_path / "shards/rejects.jsonl")}
    assert rejects["good/deeper/"]["reason"] == "unreadable"
    assert report.kept == NUM_PIECES // 2 + 1  # a copy takes the place of a piece that is not seen


def test_links_that_lead_nowhere_or_to_themselves_and_pipes_are_rejects(own_music: Path, tmp_path: Path) -> None:
    (own_music / "loop.mid").symlink_to(own_music / "loop.mid")
    (own_music / "nowhere.mid").symlink_to(own_music / "gone.mid")
    os.mkfifo(own_music / "pipe.mid")
    for stage in (filter_pieces, pack_pieces):
        report = stage([own_music], tmp_path / stage.__name__, SETTINGS)
        assert report.rejects["unreadable"] == 3
        assert report.kept == NUM_PIECES
    assert pack_pieces([own_music / "pipe.mid"], tmp_path / "one", SETTINGS).rejects == {"unreadable": 1}
    with pytest.raises(InputError, match="one of the names is empty"):
        pack_pieces([""], tmp_path / "none", SETTINGS)

"""Filter, tokenise, pack: every file is accounted for, and every road to the shards gives the same shards."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meloformer.bench.music import practice_piece
from meloformer.errors import InputError, OutputError, ShardError
from meloformer.midi.sources import find_sources
from meloformer.midi.write import write_midi
from meloformer.shards.count import count_tokens
from meloformer.shards.pipeline import filter_pieces, pack_pieces, split_of, tokenize_pieces
from meloformer.shards.report import Report
from meloformer.shards.store import open_shards
from meloformer.tokens.grammar import grammar_errors
from meloformer.tokens.vocabulary import TokenType, Vocabulary
from tests.shards.conftest import NUM_PIECES, REJECTED, altered, settings_with

SETTINGS = settings_with("pack.val_share=0.3", "pack.test_share=0.2")


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


def test_every_file_is_kept_or_rejected_with_its_reason(music: Path, tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    report = pack_pieces([music], tmp_path / "shards", SETTINGS, progress=lambda *counts: done.append(counts))
    assert_adds_up(report, tmp_path / "shards")
    assert report.kept == NUM_PIECES
    assert {line["name"]: line["reason"] for line in lines_of(tmp_path / "shards/rejects.jsonl")} == REJECTED
    assert done == [(n + 1, report.inputs) for n in range(report.inputs)]
    assert report.tokens_per_note == report.num_tokens / report.num_notes


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


def test_a_name_that_is_no_text_is_written_and_read_again(own_music: Path, tmp_path: Path) -> None:
    (own_music / "good/1.mid").rename(Path(os.fsdecode(os.fsencode(own_music) + b"/caf\xe9.mid")))
    filter_pieces([own_music], tmp_path / "kept", SETTINGS)
    report = pack_pieces([tmp_path / "kept"], tmp_path / "shards", SETTINGS)
    assert report.kept == NUM_PIECES
    assert os.fsdecode(b"caf\xe9.mid") in split_by_name(tmp_path / "shards")


def test_the_list_of_filter_tells_all_that_is_known_of_every_file(music: Path, tmp_path: Path) -> None:
    report = filter_pieces([music], tmp_path / "kept", SETTINGS)
    lines = {line["name"]: line for line in lines_of(tmp_path / "kept/manifest.jsonl")}
    assert list(lines) == [source.name for source in find_sources([music])]
    assert {name: line["reason"] for name, line in lines.items() if not line["keep"]} == REJECTED
    assert report.kept == sum(line["keep"] for line in lines.values()) == NUM_PIECES
    for name, line in lines.items():
        assert Path(line["path"]) == music / name
        assert len(line["sha256"]) == 64
        readable = line["keep"] or line["reason"] in ("duplicate", "too-few-notes")
        assert (line["statistics"] is not None) == (line["content_key"] is not None) == readable
    assert lines["few/three notes.mid"]["statistics"]["notes"] == 3
    manifest = json.loads((tmp_path / "kept/manifest.json").read_text())
    assert manifest["rejects"] == dict(Counter(REJECTED.values()).most_common())
    assert manifest["settings"]["filter"] == SETTINGS.filter.model_dump(mode="json")


def test_tokenize_rejects_only_what_cannot_be_written(music: Path, tmp_path: Path) -> None:
    report = tokenize_pieces([music], tmp_path / "tokens", SETTINGS)
    assert_adds_up(report, tmp_path / "tokens")
    assert set(report.rejects) == {"empty-file", "not-midi", "truncated", "no-notes"}
    assert set(report.splits) == {"all"}
    settings = open_shards(tmp_path / "tokens").manifest.settings
    assert set(settings) == {"tokens", "pack"}


@pytest.mark.distributed
def test_the_bytes_are_the_same_for_any_number_of_workers(music: Path, tmp_path: Path) -> None:
    for workers in (1, 3):
        settings = settings_with(f"pack.workers={workers}", "pack.val_share=0.3", "pack.shard_tokens=2000")
        pack_pieces([music], tmp_path / f"shards{workers}", settings)
    assert bytes_in(tmp_path / "shards1") == bytes_in(tmp_path / "shards3")


def test_every_road_leads_to_the_same_shards(music: Path, tmp_path: Path) -> None:
    pack_pieces([music], tmp_path / "straight", SETTINGS)
    filter_pieces([music], tmp_path / "kept", SETTINGS)
    pack_pieces([tmp_path / "kept"], tmp_path / "from_list", SETTINGS)
    tokenize_pieces([music], tmp_path / "tokens", SETTINGS)
    pack_pieces([tmp_path / "tokens"], tmp_path / "from_tokens", SETTINGS)
    tokenize_pieces([tmp_path / "kept"], tmp_path / "kept_tokens", SETTINGS)
    pack_pieces([tmp_path / "kept_tokens"], tmp_path / "from_kept_tokens", SETTINGS)
    pack_pieces([tmp_path / "from_tokens"], tmp_path / "again", SETTINGS)
    expected = shards_in(tmp_path / "straight")
    settings = open_shards(tmp_path / "straight").manifest.settings
    assert len(expected) == 3
    for road in ("from_list", "from_tokens", "from_kept_tokens", "again"):
        assert shards_in(tmp_path / road) == expected, road
        assert (tmp_path / road / "documents.jsonl").read_bytes() == (
            tmp_path / "straight/documents.jsonl"
        ).read_bytes()
        assert open_shards(tmp_path / road).manifest.settings == settings


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


def test_what_filter_kept_is_not_judged_again(music: Path, tmp_path: Path) -> None:
    lenient = settings_with("filter.min_notes=1", "filter.min_pitches=1", "filter.min_bars=1", "filter.min_on_beat=0")
    filter_pieces([music], tmp_path / "kept", lenient)
    report = pack_pieces([tmp_path / "kept"], tmp_path / "shards", SETTINGS)
    assert "few/three notes.mid" in split_by_name(tmp_path / "shards")
    assert not report.rejects
    recorded = open_shards(tmp_path / "shards").manifest.settings["filter"]
    assert recorded == lenient.filter.model_dump(mode="json")


def test_tokens_keep_the_settings_that_they_were_made_with(music: Path, tmp_path: Path) -> None:
    tokenize_pieces([music], tmp_path / "tokens", settings_with("tokens.chords=false"))
    pack_pieces([tmp_path / "tokens"], tmp_path / "shards", SETTINGS)
    assert open_shards(tmp_path / "shards").manifest.settings["tokens"]["chords"] is False


def test_copies_in_other_keys_and_tempos_fall_on_one_side(tmp_path: Path) -> None:
    music = tmp_path / "music"
    music.mkdir()
    for seed in range(8):
        piece = practice_piece(seed, num_bars=8)
        for copy in range(3):
            changed = altered(piece, semitones=copy, tempo_us=500_000 - 50_000 * copy)
            write_midi(changed, music / f"{copy}-{seed}.mid")
    settings = settings_with("filter.keep_duplicates=true", "pack.val_share=0.4", "pack.test_share=0.3")
    report = pack_pieces([music], tmp_path / "shards", settings)
    sides = split_by_name(tmp_path / "shards")
    assert report.kept == 24
    assert set(sides.values()) == {"train", "val", "test"}
    for seed in range(8):
        assert len({sides[f"{copy}-{seed}.mid"] for copy in range(3)}) == 1


def test_adding_files_moves_no_document_to_another_side(own_music: Path, tmp_path: Path) -> None:
    pack_pieces([own_music], tmp_path / "before", SETTINGS)
    for seed in range(50, 60):
        write_midi(practice_piece(seed, num_bars=8), own_music / f"aa{seed}.mid")
    pack_pieces([own_music], tmp_path / "after", SETTINGS)
    before, after = split_by_name(tmp_path / "before"), split_by_name(tmp_path / "after")
    assert len(after) == len(before) + 10
    assert all(after[name] == side for name, side in before.items())


def test_the_sides_have_the_shares_that_were_asked_for() -> None:
    settings = settings_with("pack.val_share=0.2", "pack.test_share=0.1").pack
    rng = np.random.default_rng(0)
    sides = Counter(split_of(rng.bytes(16).hex(), settings) for _ in range(5000))
    assert sides["val"] == pytest.approx(1000, abs=100)
    assert sides["test"] == pytest.approx(500, abs=80)
    nothing_held_out = settings_with("pack.val_share=0", "pack.test_share=0").pack
    assert {split_of(f"{digit}" * 32, nothing_held_out) for digit in "0f"} == {"train"}


def test_a_pruned_vocabulary_shrinks_the_ids_and_refuses_what_it_lacks(music: Path, tmp_path: Path) -> None:
    counted, report = count_tokens([music / "good"], SETTINGS)
    assert report.kept == NUM_PIECES
    pruned = counted.pruned(np.array(counted.counts))
    assert len(pruned) < len(counted)
    tokenize_pieces([music / "good"], tmp_path / "full", SETTINGS)
    tokenize_pieces([music / "good"], tmp_path / "pruned", SETTINGS, pruned)
    pack_pieces(
        [tmp_path / "full"], tmp_path / "repacked", settings_with("pack.val_share=0", "pack.test_share=0"), pruned
    )
    repacked = open_shards(tmp_path / "repacked")
    assert repacked.vocabulary == pruned
    full = open_shards(tmp_path / "full")
    for a, b, c in zip(
        full.split("all"), open_shards(tmp_path / "pruned").split("all"), repacked.split("train"), strict=True
    ):
        assert np.array_equal(full.vocabulary.to_canonical(a), pruned.to_canonical(b))
        assert np.array_equal(b, c)
    no_drums = [0 if name == "#D" else 1 for name in pruned.names]
    report = pack_pieces([tmp_path / "full"], tmp_path / "less", SETTINGS, pruned.pruned(np.array(no_drums)))
    assert set(report.rejects) == {"not-in-vocabulary"}
    assert_adds_up(report, tmp_path / "less")


def test_counting_tokens_is_the_same_from_music_and_from_tokens(music: Path, tmp_path: Path) -> None:
    tokenize_pieces([music], tmp_path / "tokens", SETTINGS)
    counted, _ = count_tokens([music], SETTINGS)
    from_tokens, report = count_tokens([tmp_path / "tokens"], SETTINGS)
    assert counted.counts == from_tokens.counts
    assert counted.counts is not None
    assert sum(counted.counts) == open_shards(tmp_path / "tokens").manifest.num_tokens == report.num_tokens
    assert counted.counts[TokenType.BOS] == report.kept


def test_the_input_is_not_replaced_by_the_output(music: Path, tmp_path: Path) -> None:
    tokenize_pieces([music], tmp_path / "tokens", SETTINGS)
    before = bytes_in(tmp_path / "tokens")
    with pytest.raises(OutputError, match="is the input"):
        pack_pieces([tmp_path / "tokens"], tmp_path / "music/../tokens", SETTINGS)
    assert bytes_in(tmp_path / "tokens") == before


def test_packing_again_replaces_the_earlier_shards(music: Path, tmp_path: Path) -> None:
    pack_pieces([music], tmp_path / "shards", settings_with("pack.shard_tokens=1000"))
    assert len(shards_in(tmp_path / "shards")) > 3
    pack_pieces([music], tmp_path / "shards", SETTINGS)
    assert len(shards_in(tmp_path / "shards")) == 3
    assert os.listdir(tmp_path) == ["shards"]  # noqa: PTH208


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


@pytest.mark.parametrize("name", ["dev_files", "malformed_files"])
def test_every_real_file_is_accounted_for(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    files: list[Path] = request.getfixturevalue(name)
    report = pack_pieces([Path(os.path.commonpath(files))], tmp_path / "shards", SETTINGS)
    assert_adds_up(report, tmp_path / "shards")
    assert report.inputs == len(files)
    assert "crashed" not in report.rejects
    assert report.kept > 0.8 * len(files) if name == "dev_files" else report.kept < len(files) / 2
    shards = open_shards(tmp_path / "shards")
    for ids in list(shards.split("val"))[:40]:
        assert not grammar_errors(ids, Vocabulary.default())


def test_shards_are_not_replaced_by_nothing(music: Path, tmp_path: Path) -> None:
    pack_pieces([music], tmp_path / "shards", SETTINGS)
    before = bytes_in(tmp_path / "shards")
    with pytest.raises(InputError, match=r"none of 17 files is kept \(too-few-notes 13, .*is not replaced"):
        pack_pieces([music], tmp_path / "shards", settings_with("filter.min_notes=100000"))
    assert bytes_in(tmp_path / "shards") == before
    assert os.listdir(tmp_path) == ["shards"]  # noqa: PTH208


def test_settings_that_an_earlier_stage_has_settled_are_named(music: Path, tmp_path: Path) -> None:
    filter_pieces([music], tmp_path / "kept", SETTINGS)
    tokenize_pieces([music], tmp_path / "tokens", SETTINGS)
    with pytest.warns(UserWarning, match=r"settings of filter have no effect: .*kept was made with its own"):
        pack_pieces([tmp_path / "kept"], tmp_path / "a", settings_with("filter.min_notes=2000"))
    with pytest.warns(UserWarning, match=r"settings of tokens have no effect: .*tokens was made with its own"):
        pack_pieces([tmp_path / "tokens"], tmp_path / "b", settings_with("tokens.chords=false"))


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

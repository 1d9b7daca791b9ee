"""Filter, tokenise, pack: every file is accounted for, and every road to the shards gives the same shards."""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from meloformer.bench.music import practice_piece
from meloformer.errors import InputError, OutputError, SettingsError
from meloformer.midi.sources import find_sources
from meloformer.midi.write import write_midi
from meloformer.shards.count import count_tokens
from meloformer.shards.pipeline import filter_pieces, pack_pieces, split_of, tokenize_pieces
from meloformer.shards.store import open_shards
from meloformer.tokens.grammar import grammar_errors
from meloformer.tokens.vocabulary import TokenType, Vocabulary
from tests.shards.conftest import (
    NUM_PIECES,
    REJECTED,
    SETTINGS,
    altered,
    assert_adds_up,
    bytes_in,
    lines_of,
    settings_with,
    shards_in,
    split_by_name,
)


def test_every_file_is_kept_or_rejected_with_its_reason(music: Path, tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    report = pack_pieces([music], tmp_path / "shards", SETTINGS, progress=lambda *counts: done.append(counts))
    assert_adds_up(report, tmp_path / "shards")
    assert report.kept == NUM_PIECES
    assert {line["name"]: line["reason"] for line in lines_of(tmp_path / "shards/rejects.jsonl")} == REJECTED
    assert done == [(n + 1, report.inputs) for n in range(report.inputs)]
    assert report.tokens_per_note == report.num_tokens / report.num_notes


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


@pytest.mark.parametrize("by_way_of", ["music", "tokens", "list"])
def test_what_is_excluded_by_name_is_accounted_for_on_every_road(music: Path, tmp_path: Path, by_way_of: str) -> None:
    chosen = settings_with('filter.exclude=["3.mid", "good/5*"]')
    source = {"music": music, "tokens": tmp_path / "tokens", "list": tmp_path / "list"}[by_way_of]
    if by_way_of == "tokens":
        tokenize_pieces([music], source, chosen)  # judges nothing
    if by_way_of == "list":
        filter_pieces([music], source, chosen)
    whole = pack_pieces([music], tmp_path / "whole", settings_with())
    report = pack_pieces([source], tmp_path / "out", chosen)
    kept = {json.loads(line)["name"] for line in (tmp_path / "out/documents.jsonl").read_text().splitlines()}
    everything = {json.loads(line)["name"] for line in (tmp_path / "whole/documents.jsonl").read_text().splitlines()}
    assert kept == {name for name in everything if Path(name).name not in ("3.mid", "5.mid")}
    assert len(kept) < len(everything) == whole.kept
    assert open_shards(tmp_path / "out").manifest.settings["filter"]["exclude"] == ["3.mid", "good/5*"]
    if by_way_of != "list":
        assert report.reasons()["excluded"] >= 1


def test_what_filter_has_kept_cannot_be_excluded_behind_it(music: Path, tmp_path: Path) -> None:
    filter_pieces([music], tmp_path / "list", settings_with('filter.exclude=["1.mid"]'))
    pack_pieces([tmp_path / "list"], tmp_path / "out", settings_with('filter.exclude=["1.mid"]'))
    with pytest.raises(SettingsError, match=r"filter\.exclude has no effect"):
        pack_pieces([tmp_path / "list"], tmp_path / "out", settings_with('filter.exclude=["1.mid", "2.mid"]'))


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [("1.mid", True), ("*1.mid", True), ("good/*", True), ("good/?.mid", True), ("g*", True), ("*ood/1*", True),
     ("ood/1.mid", False), ("mid", False), ("1.MID", False), ("good/", True),
     ("good", True), ("goo", False), ("[g]ood/1.mid", False)],
)  # fmt: skip
def test_a_pattern_fits_from_the_start_of_a_name_to_the_end(
    music: Path, tmp_path: Path, pattern: str, fits: bool
) -> None:
    for sources in ([music], [music, music / "good"]):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            filter_pieces(sources, tmp_path / "out", settings_with(f'filter.exclude=["{pattern}"]'))
        lines = [json.loads(line) for line in (tmp_path / "out/manifest.jsonl").read_text().splitlines()]
        (one,) = (line for line in lines if line["name"].endswith("good/1.mid"))
        assert (one.get("reason") == "excluded") == fits
        is_told = any(f"no name fits '{pattern}'" in str(each.message) for each in told)
        assert is_told == all(line.get("reason") != "excluded" for line in lines)


def test_settings_that_an_earlier_stage_has_settled_are_named(music: Path, tmp_path: Path) -> None:
    filter_pieces([music], tmp_path / "kept", SETTINGS)
    tokenize_pieces([music], tmp_path / "tokens", SETTINGS)
    with pytest.warns(UserWarning, match=r"settings of filter have no effect: .*kept was made with its own"):
        pack_pieces([tmp_path / "kept"], tmp_path / "a", settings_with("filter.min_notes=2000"))
    with pytest.warns(UserWarning, match=r"settings of tokens have no effect: .*tokens was made with its own"):
        pack_pieces([tmp_path / "tokens"], tmp_path / "b", settings_with("tokens.chords=false"))

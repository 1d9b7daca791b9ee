"""Opening a folder of shards: what does not fit is refused, with both values and the command that repairs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meloformer.errors import InputError, MeloFormerError, ShardError, VocabularyError
from meloformer.midi.read import read_midi
from meloformer.shards.pipeline import filter_pieces, pack_pieces
from meloformer.shards.store import open_shards
from meloformer.tokens.decode import decode
from meloformer.tokens.quantise import quantise
from meloformer.tokens.vocabulary import Vocabulary
from tests.shards.conftest import NUM_PIECES, settings_with

SMALL_SHARDS = settings_with("pack.shard_tokens=2000", "pack.val_share=0.3", "pack.test_share=0.2")


@pytest.fixture(scope="module")
def packed(music: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "shards"
    pack_pieces([music], out, SMALL_SHARDS)
    return out


@pytest.fixture
def shards(packed: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(packed, tmp_path / "shards"))


def change(path: Path, **fields: Any) -> None:
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, **fields}))


def test_every_document_is_there_with_its_name_and_decodes_to_its_piece(packed: Path, music: Path) -> None:
    folder = open_shards(packed)
    assert folder.manifest.num_documents == NUM_PIECES
    documents = {name: folder.split(name) for name in ("train", "val", "test")}
    assert sum(len(split) for split in documents.values()) == NUM_PIECES
    seen = {name: iter(split) for name, split in documents.items()}
    lines = [json.loads(line) for line in (packed / "documents.jsonl").read_text().splitlines()]
    for line in lines:
        ids = next(seen[line["split"]])
        assert len(ids) == line["tokens"]
        assert decode(ids, folder.vocabulary) == quantise(read_midi(music / line["name"]))
        assert line["statistics"]["notes"] > 0
    assert len(lines) == NUM_PIECES


def test_counts_in_the_manifest_are_those_of_the_files(packed: Path) -> None:
    folder = open_shards(packed)
    counted = 0
    for name, counts in folder.manifest.splits.items():
        documents = folder.split(name)  # pyright: ignore[reportArgumentType]
        assert counts.num_documents == len(documents) == sum(shard.num_documents for shard in counts.shards)
        assert counts.num_tokens == int(documents.lengths.sum()) == sum(len(ids) for ids in documents)
        for shard in counts.shards:
            assert (packed / shard.file).stat().st_size == shard.num_bytes
            assert shard.num_tokens <= SMALL_SHARDS.pack.shard_tokens or shard.num_documents == 1
        counted += counts.num_tokens
    assert counted == folder.manifest.num_tokens
    assert len(folder.manifest.splits["train"].shards) > 1


def test_documents_are_found_across_shards_by_number(packed: Path) -> None:
    documents = open_shards(packed).split("train")
    in_order = list(documents)
    for index in np.random.default_rng(0).permutation(len(documents)).tolist():
        assert np.array_equal(documents[index], in_order[index])
        assert documents.lengths[index] == len(in_order[index])
    for outside in (-1, len(documents)):
        with pytest.raises(IndexError):
            documents[outside]


def test_a_split_that_is_not_there_has_no_documents(packed: Path) -> None:
    documents = open_shards(packed).split("all")
    assert len(documents) == 0
    assert documents.lengths.shape == (0,)
    assert list(documents) == []


def test_a_missing_folder_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no shards at .*; make them with `meloformer pack"):
        open_shards(tmp_path / "none")


def test_a_folder_of_something_else_holds_no_shards(tmp_path: Path, music: Path) -> None:
    with pytest.raises(ShardError, match=r"holds no shards \(manifest\.json: No such file"):
        open_shards(music)
    filter_pieces([music], tmp_path / "kept", settings_with())
    with pytest.raises(ShardError, match=r"holds meloformer-filter, not meloformer-shards; .*meloformer pack"):
        open_shards(tmp_path / "kept")


def test_another_format_version_is_named_before_its_unknown_fields(shards: Path) -> None:
    change(shards / "manifest.json", version=9, something_new=1)
    with pytest.raises(ShardError, match=r"has version 9, this program reads 2; make the shards again"):
        open_shards(shards)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"format": "meloformer-shards"}'])
def test_a_damaged_manifest_is_refused(shards: Path, content: bytes) -> None:
    (shards / "manifest.json").write_bytes(content)
    with pytest.raises(ShardError, match=r"manifest|holds something else|version None"):
        open_shards(shards)


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"num_tokens": -1}, "num_tokens"),
        ({"unknown": 1}, "unknown"),
        ({"splits": {"train": {"num_documents": 1, "num_tokens": 1, "shards": [{"file": "../x"}]}}}, "shards.0.file"),
    ],
)
def test_a_wrong_field_of_the_manifest_is_named(shards: Path, fields: dict[str, Any], where: str) -> None:
    change(shards / "manifest.json", **fields)
    with pytest.raises(ShardError, match=rf"manifest\.json is damaged \(.*{where}"):
        open_shards(shards)


def test_another_vocabulary_is_refused_with_both_hashes_and_the_command(shards: Path) -> None:
    full = Vocabulary.default()
    smaller = full.pruned(np.arange(len(full)) % 2)
    (shards / "vocab.json").write_text(smaller.to_json())
    with pytest.raises(ShardError) as caught:
        open_shards(shards)
    for part in (full.sha256, smaller.sha256, "meloformer pack"):
        assert part in str(caught.value)


def test_a_missing_or_damaged_vocabulary_is_refused(shards: Path) -> None:
    (shards / "vocab.json").write_text("{}")
    with pytest.raises(VocabularyError, match=r"vocab\.json"):
        open_shards(shards)
    (shards / "vocab.json").unlink()
    with pytest.raises(InputError, match=r"vocab\.json"):
        open_shards(shards)


def test_a_shard_of_another_folder_is_refused_with_both_counts(shards: Path) -> None:
    other = shards / "train-00001.hid.zst"
    (shards / "train-00000.hid.zst").write_bytes(other.read_bytes())
    with pytest.raises(ShardError, match=r"train-00000\.hid\.zst has \d.* the manifest of its folder says \d"):
        open_shards(shards).split("train")
    open_shards(shards).split("val")


@pytest.mark.parametrize("damage", ["cut", "gone", "grown"])
def test_a_shard_that_is_not_whole_is_named(shards: Path, damage: str) -> None:
    path = shards / "train-00000.hid.zst"
    data = path.read_bytes()
    path.write_bytes({"cut": data[:-10], "gone": b"", "grown": data + b"x"}[damage])
    if damage == "gone":
        path.unlink()
    with pytest.raises(MeloFormerError, match=r"train-00000\.hid\.zst.*meloformer pack"):
        open_shards(shards).split("train")

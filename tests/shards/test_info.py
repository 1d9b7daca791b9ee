"""What shards hold: counts that a slow and plain count confirms, and damage that is found."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from meloformer.bench.music import practice_piece
from meloformer.errors import InputError, ShardError
from meloformer.midi.bars import grid_of
from meloformer.midi.score import DRUMS, make_score
from meloformer.settings import Settings
from meloformer.shards.info import bars_under, read_info
from meloformer.shards.manifest import ShardManifest
from meloformer.shards.pipeline import pack_pieces, tokenize_pieces
from meloformer.shards.store import open_shards
from meloformer.tokens.decode import decode
from meloformer.tokens.encode import encode
from meloformer.tokens.grid import METERS, TEMPO_BPM
from meloformer.tokens.quantise import quantise
from meloformer.tokens.vocabulary import TokenType, Vocabulary
from tests.shards.conftest import NUM_PIECES, settings_with


@pytest.fixture(scope="module")
def packed(music: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("info") / "shards"
    pack_pieces([music], out, settings_with("pack.shard_tokens=2000", "pack.val_share=0.3"))
    return out


def test_counts_are_those_of_the_decoded_pieces(packed: Path) -> None:
    info = read_info(packed, Settings())
    folder = open_shards(packed)
    pieces = [decode(ids, folder.vocabulary) for name in ("train", "val", "test") for ids in folder.split(name)]
    documents_with = Counter(program for piece in pieces for program in np.unique(piece.program).tolist())
    cells: Counter[int] = Counter()
    meters: Counter[str] = Counter()
    for piece in pieces:
        grid = grid_of(piece)
        bar = np.searchsorted(grid.start_ticks, piece.onset_ticks, side="right")
        cells.update(program for _, program in set(zip(bar.tolist(), piece.program.tolist(), strict=True)))
        meters.update(f"{n}/{d}" for n, d in zip(grid.numerator, grid.denominator, strict=True))
    assert len(pieces) == NUM_PIECES
    assert {one.program: (one.documents, one.cells) for one in info.instruments()} == {
        program: (documents_with[program], cells[program]) for program in cells
    }
    assert info.meters() == dict(meters)
    facts = info.to_dict()
    assert facts["num_notes"] == sum(piece.num_notes for piece in pieces) == facts["token_types"]["PITCH"]
    assert facts["num_bars"] == sum(meters.values()) == facts["token_types"]["CHORD"] == sum(facts["tempos"].values())
    assert facts["num_tokens"] == sum(facts["token_types"].values())


def test_length_hours_and_compression_are_those_of_the_files(packed: Path) -> None:
    facts = read_info(packed, Settings()).to_dict()
    lines = [json.loads(line) for line in (packed / "documents.jsonl").read_text().splitlines()]
    num_bytes = sum(path.stat().st_size for path in packed.glob("*.hid.zst"))
    assert facts["hours"] == pytest.approx(sum(line["statistics"]["seconds"] for line in lines) / 3600, abs=5e-4)
    assert facts["num_bytes"] == num_bytes
    assert facts["compression_ratio"] == pytest.approx(2 * facts["num_tokens"] / num_bytes, abs=1e-3)
    lengths = sorted(line["tokens"] for line in lines)
    assert facts["document_tokens"] == {
        "shortest": lengths[0], "median": lengths[4], "95 %": lengths[9], "longest": lengths[9]
    }  # fmt: skip
    assert sum(facts["rejects"].values()) + facts["num_documents"] == facts["num_inputs"]
    assert facts["settings"]["pack"]["shard_tokens"] == 2000


def test_a_meter_or_tempo_counts_for_every_bar_up_to_the_next() -> None:
    quarter = 480
    score = make_score(
        ticks_per_quarter=quarter,
        onset_ticks=[0],
        duration_ticks=[quarter],
        pitch=[60],
        velocity=[64],
        program=[DRUMS],
        meters=[(0, 4, 4), (8 * quarter, 3, 4), (11 * quarter, 4, 4)],
        tempos=[(0, 500_000), (4 * quarter, 1_000_000)],
        end_ticks=23 * quarter,
    )
    ids = encode(score)
    meters, tempos = bars_under(ids, TokenType.METER), bars_under(ids, TokenType.TEMPO)
    assert (meters[METERS.index((4, 4))], meters[METERS.index((3, 4))], meters.sum()) == (5, 1, 6)
    assert dict(zip(TEMPO_BPM[tempos > 0].tolist(), tempos[tempos > 0].tolist(), strict=True)) == {60: 5, 120: 1}


def test_a_pruned_vocabulary_changes_no_count(packed: Path, tmp_path: Path) -> None:
    full = read_info(packed, Settings())
    pruned = Vocabulary.default().pruned(full.token_counts)
    again = tmp_path / "again"
    pack_pieces([packed], again, settings_with("pack.shard_tokens=2000", "pack.val_share=0.3"), pruned)
    assert open_shards(again).vocabulary == pruned
    assert (read_info(again, Settings()).token_counts == full.token_counts).all()


def test_a_damaged_document_is_named(packed: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    for path in packed.iterdir():
        (shards / path.name).write_bytes(path.read_bytes())
    broken = shards / "train-00000.hid.zst"
    data = bytearray(broken.read_bytes())
    first_frame = open_shards(packed).split("train")
    data[len(data) // 8] ^= 0xFF  # within the first of its few frames
    broken.write_bytes(data)
    assert len(first_frame) > 1
    with pytest.raises(ShardError, match=r"train-00000\.hid\.zst, document 0: the frame is damaged"):
        read_info(shards, Settings())


def test_no_shards_are_an_error_and_no_documents_are_not(music: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no shards"):
        read_info(tmp_path / "absent", Settings())
    with pytest.raises(ShardError, match=r"holds no shards"):
        read_info(music, Settings())
    tokenize_pieces([music / "broken"], tmp_path / "none", Settings())
    facts = read_info(tmp_path / "none", Settings()).to_dict()
    assert (facts["num_documents"], facts["compression_ratio"], facts["instruments"]) == (0, 0, [])
    assert set(facts["document_tokens"].values()) == {0}


def test_the_pass_tells_its_progress(packed: Path) -> None:
    told: list[tuple[int, int]] = []
    info = read_info(packed, Settings(), progress=lambda done, total: told.append((done, total)))
    assert told == [(number, NUM_PIECES) for number in range(1, NUM_PIECES + 1)]
    assert isinstance(info.manifest, ShardManifest)
    assert quantise(practice_piece(0, num_bars=8)).num_notes in info.document_notes


@pytest.mark.parametrize("damage", ["gone", "cut", "emptied"])
def test_a_damaged_list_of_rejects_is_found(music: Path, tmp_path: Path, damage: str) -> None:
    pack_pieces([music], tmp_path / "shards", settings_with())
    path = tmp_path / "shards/rejects.jsonl"
    if damage == "gone":
        path.unlink()
    else:
        path.write_text("" if damage == "emptied" else path.read_text()[:-20])
    with pytest.raises(ShardError, match=r"rejects\.jsonl (is damaged|has 0 rejects)"):
        read_info(tmp_path / "shards", settings_with())

"""Batches: every token once an epoch, the same order for the same seed and epoch, from any place on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from meloformer.errors import ShardError
from meloformer.model.batch import Batch
from meloformer.shards.batches import BatchLoader
from meloformer.shards.format import Shard, ShardWriter
from meloformer.shards.store import Documents
from meloformer.tokens.attributes import attributes
from meloformer.tokens.vocabulary import PAD, Vocabulary
from tests.shards.conftest import Write
from tests.strategies import random_document

VOCABULARY = Vocabulary.default()


@pytest.fixture(scope="module")
def documents(stored: Write) -> Documents:
    """Forty random documents from 30 to some hundreds of tokens."""
    rng = np.random.default_rng(5)
    drawn = [
        random_document(rng, VOCABULARY, num_bars=int(bars), max_tokens=int(bars) * 40)
        for bars in rng.integers(1, 9, 40)
    ]
    return stored(drawn)


def loader_of(documents: Documents, *, seq_len: int = 128, batch_size: int = 3, seed: int = 0) -> BatchLoader:
    return BatchLoader(documents, VOCABULARY, seq_len=seq_len, batch_size=batch_size, seed=seed)


@pytest.mark.parametrize("seq_len", [16, 33, 128, 1000])
@pytest.mark.parametrize("epoch", [0, 3])
def test_every_token_of_every_document_is_a_target_exactly_once_an_epoch(
    documents: Documents, seq_len: int, epoch: int
) -> None:
    loader = loader_of(documents, seq_len=seq_len)
    times_target = [np.zeros(len(ids), dtype=np.int64) for ids in documents]
    rows = np.concatenate(list(loader.batches(epoch)))
    assert len(rows) == len(loader.rows(epoch))
    for row, numbers in zip(rows, loader.rows(epoch), strict=True):
        is_target = attributes(row, VOCABULARY).is_target
        position = 0
        for fragment in (loader.fragments[number] for number in numbers):
            body = slice(position + len(fragment.context), position + len(fragment))
            assert np.array_equal(row[body], documents[fragment.document][fragment.start : fragment.stop])
            times_target[fragment.document][fragment.start : fragment.stop] += is_target[body]
            position += len(fragment)
        assert (row[position:] == PAD).all()
        assert is_target.sum() <= position
    assert all(times.tolist() == [0] + [1] * (len(times) - 1) for times in times_target)
    assert sum(times.sum() for times in times_target) == loader.num_targets


def test_the_model_sees_as_many_targets_as_the_loader_promises(documents: Documents) -> None:
    loader = loader_of(documents)
    seen = sum(Batch.of(list(batch), VOCABULARY).num_targets for batch in loader.batches(0))
    assert seen == loader.num_targets


def test_a_batch_is_a_block_of_rows_and_the_last_may_be_smaller(documents: Documents) -> None:
    loader = loader_of(documents)
    batches = list(loader.batches(0))
    assert len(batches) == -(-loader.num_rows // 3)
    assert all(batch.dtype == np.int64 and batch.shape[1] == 128 for batch in batches)
    assert {len(batch) for batch in batches[:-1]} == {3}
    assert 1 <= len(batches[-1]) <= 3
    assert sum(map(len, batches)) == len(loader.rows(0))


def test_rows_count_on_from_epoch_to_epoch_and_can_be_read_in_any_order(documents: Documents) -> None:
    rows = [row for epoch in range(3) for batch in loader_of(documents).batches(epoch) for row in batch]
    loader = loader_of(documents)
    assert len(rows) == 3 * loader.num_rows
    for numbers in ([loader.num_rows - 1, loader.num_rows], [2 * loader.num_rows + 1, 0], [5]):
        ids, damage = loader.read(numbers)
        assert not damage
        assert np.array_equal(ids, np.stack([rows[number] for number in numbers]))


def test_seed_and_epoch_choose_the_order(documents: Documents) -> None:
    def order(seed: int, epoch: int) -> bytes:
        return np.concatenate(list(loader_of(documents, seed=seed).batches(epoch))).tobytes()

    assert order(0, 0) == order(0, 0)
    assert len({order(seed, epoch) for seed in range(2) for epoch in range(2)}) == 4


def test_the_share_of_padding_is_what_is_not_filled(documents: Documents) -> None:
    loader = loader_of(documents)
    rows = np.concatenate(list(loader.batches(0)))
    assert loader.padding_share(0) == pytest.approx((rows == PAD).mean())


def test_a_split_without_documents_has_no_batches(stored: Write) -> None:
    loader = loader_of(stored([]))
    assert (loader.num_rows, loader.num_targets, loader.padding_share(0)) == (0, 0, 0.0)
    assert list(loader.batches(0)) == []


def test_a_damaged_document_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train-00000.hid.zst"
    with ShardWriter(path, level=3) as writer:
        writer.add(np.arange(1, 60))
        writer.add(np.arange(2, 60))
        end_of_frames = writer.num_bytes
    data = bytearray(path.read_bytes())
    data[end_of_frames - 10] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ShardError, match=r"train-00000\.hid\.zst, document 1"):
        list(loader_of(Documents([Shard(path)])).batches(0))


def test_shapes_that_cannot_be_are_refused(documents: Documents) -> None:
    with pytest.raises(ValueError, match="batch_size is 0"):
        loader_of(documents, batch_size=0)
    with pytest.raises(ValueError, match="too short"):
        loader_of(documents, seq_len=8)

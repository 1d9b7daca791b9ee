"""A folder of shards: its manifest, its vocabulary, and its documents by split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from meloformer.errors import InputError, ShardError
from meloformer.shards.format import AGAIN, Shard
from meloformer.shards.manifest import (
    VOCABULARY_FILE,
    ShardCounts,
    ShardManifest,
    Split,
    SplitCounts,
    read_manifest,
)
from meloformer.tokens.vocabulary import Vocabulary


class Documents:
    """The documents of one split, across its shards.

    Args:
        shards: In order.
    """

    def __init__(self, shards: list[Shard]) -> None:
        self._shards = shards
        self._first = np.cumsum([0, *(len(shard) for shard in shards)])
        self.lengths = np.concatenate([np.zeros(0, dtype=np.int64), *(shard.lengths for shard in shards)])
        """(N,) int64 number of tokens of every document, known without reading it."""

    def __len__(self) -> int:
        return int(self._first[-1])

    @property
    def fingerprint(self) -> str:
        """A hash of how many documents there are and how long each is, which tells one data set from another."""
        return hashlib.sha256(self.lengths.astype("<i8").tobytes()).hexdigest()[:16]

    def __getitem__(self, index: int) -> np.ndarray:
        """(T,) uint16 ids.

        Raises:
            IndexError: There is no such document.
            ShardError: It is damaged; names shard and document.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = int(np.searchsorted(self._first, index, side="right")) - 1
        return self._shards[shard][index - int(self._first[shard])]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (ids for shard in self._shards for ids in shard)

    def whole(self) -> Iterator[np.ndarray]:
        """All that are not damaged."""
        for index in range(len(self)):
            with suppress(ShardError):
                yield self[index]


class ShardFolder:
    """An opened folder of shards; see :func:`open_shards`."""

    def __init__(self, path: Path, manifest: ShardManifest, vocabulary: Vocabulary) -> None:
        self.path = path
        self.manifest = manifest
        self.vocabulary = vocabulary

    def split(self, name: Split) -> Documents:
        """The documents of a split; none where the folder has no such split.

        Raises:
            ShardError: A shard is missing, damaged, or not the one that the manifest describes.
        """
        counts = self.manifest.splits.get(name, SplitCounts())
        return Documents([self._open_shard(shard) for shard in counts.shards])

    def _open_shard(self, counts: ShardCounts) -> Shard:
        shard = Shard(self.path / counts.file)
        found = len(shard), int(shard.lengths.sum()), shard.num_bytes
        wanted = counts.num_documents, counts.num_tokens, counts.num_bytes
        if found != wanted:
            facts = "{:,} documents, {:,} tokens and {:,} bytes"
            raise ShardError(
                f"{shard.path} has {facts.format(*found)}, the manifest of its folder says {facts.format(*wanted)}",
                AGAIN,
            )
        return shard


def open_shards(path: Path) -> ShardFolder:
    """Open what ``pack`` or ``tokenize`` wrote.

    Raises:
        InputError: There is no such folder.
        ShardError: It holds no shards, shards of another version, or a vocabulary that is not theirs.
        VocabularyError: The vocabulary is damaged.
    """
    if not path.is_dir():
        raise InputError(
            f"there are no shards at {path}",
            f"make them with `meloformer pack MIDI_FOLDER --out {path}`, or name where they lie now",
        )
    manifest = read_manifest(path, ShardManifest, error=ShardError, command="meloformer pack")
    vocabulary = Vocabulary.load(path / VOCABULARY_FILE)
    if vocabulary.sha256 != manifest.vocabulary_sha256:
        raise ShardError(
            f"{path}: {VOCABULARY_FILE} has sha256 {vocabulary.sha256}, the shards {manifest.vocabulary_sha256}", AGAIN
        )
    return ShardFolder(path, manifest, vocabulary)

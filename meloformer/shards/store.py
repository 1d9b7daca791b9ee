"""A folder of shards: its manifest, its vocabulary, and its documents by split."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from meloformer.errors import InputError, ShardError
from meloformer.shards.format import Shard
from meloformer.shards.output import MANIFEST_FILE
from meloformer.tokens.vocabulary import Vocabulary

FORMAT_VERSION = 1
VOCABULARY_FILE = "vocab.json"
REJECTS_FILE = "rejects.jsonl"
DOCUMENTS_FILE = "documents.jsonl"
Split = Literal["train", "val", "test", "all"]


class SplitCounts(BaseModel):
    """What one split holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_documents: int = 0
    num_tokens: int = 0
    shards: tuple[str, ...] = ()
    """File names, in order."""


class ShardManifest(BaseModel):
    """``manifest.json`` of a folder of shards."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["meloformer-shards"] = "meloformer-shards"
    version: int = FORMAT_VERSION
    vocabulary_sha256: str
    num_inputs: int
    """Files that were looked at: documents plus rejects."""
    num_documents: int
    num_tokens: int
    num_notes: int
    rejects: dict[str, int]
    """Reason -> number of files."""
    splits: dict[str, SplitCounts]
    settings: dict[str, dict[str, Any]]
    """The sections that the documents depend on."""


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


class ShardFolder:
    """An opened folder of shards; see :func:`open_shards`."""

    def __init__(self, path: Path, manifest: ShardManifest, vocabulary: Vocabulary) -> None:
        self.path = path
        self.manifest = manifest
        self.vocabulary = vocabulary

    def split(self, name: Split) -> Documents:
        """The documents of a split; none where the folder has no such split.

        Raises:
            ShardError: A shard is missing, damaged, or holds another number of documents than the manifest says.
        """
        counts = self.manifest.splits.get(name, SplitCounts())
        documents = Documents([Shard(self.path / file) for file in counts.shards])
        if len(documents) != counts.num_documents or int(documents.lengths.sum()) != counts.num_tokens:
            found = f"{len(documents)} documents of {int(documents.lengths.sum())} tokens"
            wanted = f"{counts.num_documents} of {counts.num_tokens}"
            raise ShardError(
                f"{self.path}: split {name} has {found}, its manifest says {wanted}",
                "make the shards again with `meloformer pack`",
            )
        return documents


def open_shards(path: Path) -> ShardFolder:
    """Open what ``pack`` or ``tokenize`` wrote.

    Raises:
        InputError: There is no such folder.
        ShardError: It holds no shards, shards of another version, or a vocabulary that is not theirs.
        VocabularyError: The vocabulary is damaged.
    """
    again = "make the shards again with `meloformer pack`"
    if not path.is_dir():
        raise InputError(f"there are no shards at {path}", f"make them with `meloformer pack MIDI_FOLDER --out {path}`")
    try:
        text = (path / MANIFEST_FILE).read_text(encoding="utf-8")
    except OSError as error:
        raise ShardError(f"{path} holds no shards ({MANIFEST_FILE}: {error.strerror})", again) from None
    try:
        manifest = ShardManifest.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        message = f"{path / MANIFEST_FILE} is no manifest of shards ({where}: {problem['msg']})"
        raise ShardError(message, again) from None
    if manifest.version != FORMAT_VERSION:
        raise ShardError(f"{path} has version {manifest.version}, this program reads {FORMAT_VERSION}", again)
    vocabulary = Vocabulary.load(path / VOCABULARY_FILE)
    if vocabulary.sha256 != manifest.vocabulary_sha256:
        raise ShardError(
            f"{path}: {VOCABULARY_FILE} has sha256 {vocabulary.sha256}, the shards {manifest.vocabulary_sha256}", again
        )
    return ShardFolder(path, manifest, vocabulary)

"""Pieces -> a folder of shards, one set of shards for every split."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import numpy as np

from meloformer.files import write_text
from meloformer.settings import PackSettings
from meloformer.shards.format import SUFFIX, ShardWriter
from meloformer.shards.manifest import (
    DOCUMENTS_FILE,
    FILES_OF,
    MANIFEST_FILE,
    REJECTS_FILE,
    SHARDS,
    VOCABULARY_FILE,
    Sections,
    ShardCounts,
    ShardManifest,
    Split,
    SplitCounts,
)
from meloformer.shards.output import output_folder
from meloformer.shards.process import Piece, Reject, Result
from meloformer.shards.report import Report
from meloformer.tokens.vocabulary import Vocabulary


class SplitWriter:
    """The shards of one split, a new one whenever the last is full; a context manager as :class:`ShardWriter` is.

    Args:
        folder: Where they go.
        split: Their name begins with it.
        settings: ``level`` and ``shard_tokens``.
    """

    def __init__(self, folder: Path, split: Split, settings: PackSettings) -> None:
        self._folder, self._split, self._settings = folder, split, settings
        self._writer: ShardWriter | None = None
        self._done: list[ShardCounts] = []

    def __enter__(self) -> SplitWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()
        elif self._writer is not None:
            self._writer.__exit__(kind, error, at)

    @property
    def _file(self) -> str:
        return f"{self._split}-{len(self._done):05d}{SUFFIX}"

    def add(self, ids: np.ndarray) -> tuple[str, int]:
        """Write a document, (T,) ids; the name of its shard and its number there."""
        if self._writer is not None and self._writer.num_tokens + len(ids) > self._settings.shard_tokens:
            self.close()
        if self._writer is None:
            self._writer = ShardWriter(self._folder / self._file, level=self._settings.level)
        self._writer.add(ids)
        return self._file, len(self._writer) - 1

    def close(self) -> SplitCounts:
        """Finish the open shard; what was written in all."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
            facts = {"num_tokens": writer.num_tokens, "num_bytes": writer.num_bytes}
            self._done.append(ShardCounts(file=self._file, num_documents=len(writer), **facts))
        return SplitCounts(
            num_documents=sum(shard.num_documents for shard in self._done),
            num_tokens=sum(shard.num_tokens for shard in self._done),
            shards=tuple(self._done),
        )


def write_shards(
    results: Iterable[Result],
    report: Report,
    out: Path,
    *,
    settings: PackSettings,
    sections: Sections,
    vocabulary: Vocabulary,
    split_of: Callable[[str], Split],
) -> None:
    """Write a folder of shards: pieces to their splits, rejects to ``rejects.jsonl``.

    Args:
        results: Counted by ``report`` as they come.
        report: Gets its ``splits`` here, and goes into the manifest.
        out: The folder.
        settings: ``level`` and ``shard_tokens``.
        sections: For the manifest.
        vocabulary: Of the ids.
        split_of: Content key -> split.
    Raises:
        OutputError: The folder cannot be written, or is something else.
    """
    with output_folder(out, SHARDS, FILES_OF[SHARDS]) as folder:
        writers: dict[Split, SplitWriter] = {}
        with ExitStack() as open_files:
            rejects = open_files.enter_context((folder / REJECTS_FILE).open("w", encoding="utf-8"))
            documents = open_files.enter_context((folder / DOCUMENTS_FILE).open("w", encoding="utf-8"))
            for result in results:
                if isinstance(result, Reject):
                    record = {"name": result.name, "reason": result.reason, "message": result.message}
                    write_line(rejects, record)
                    continue
                split = split_of(result.content_key)
                if split not in writers:
                    writers[split] = open_files.enter_context(SplitWriter(folder, split, settings))
                shard, index = writers[split].add(result.ids)
                write_line(documents, _document_record(result, split, shard, index))
        report.splits = {name: writers[name].close() for name in sorted(writers)}
        write_text(folder / VOCABULARY_FILE, vocabulary.to_json())
        manifest = ShardManifest(
            vocabulary_sha256=vocabulary.sha256,
            num_inputs=report.inputs,
            num_documents=report.kept,
            num_tokens=report.num_tokens,
            num_notes=report.num_notes,
            rejects=dict(report.rejects.most_common()),
            splits=report.splits,
            settings=sections,
        )
        write_text(folder / MANIFEST_FILE, manifest.model_dump_json(indent=1) + "\n")


def _document_record(piece: Piece, split: Split, shard: str, index: int) -> dict[str, Any]:
    """A line of ``documents.jsonl``: where a document lies and where it comes from."""
    return {
        "name": piece.name,
        "split": split,
        "shard": shard,
        "index": index,
        "tokens": len(piece.ids),
        "sha256": piece.sha256,
        "content_key": piece.content_key,
        "statistics": asdict(piece.statistics),
    }


def write_line(file: TextIO, record: dict[str, Any]) -> None:
    """Append a record to a file of JSON lines."""
    file.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")

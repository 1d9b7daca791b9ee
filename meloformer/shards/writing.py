"""What a stage writes, record by record: a list of files, or a folder of shards with one set for every split.

Both can go on with what an interrupted run left, which they read back from their own records.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TextIO

from meloformer.files import write_text
from meloformer.settings import PackSettings
from meloformer.shards.format import ID_BYTES, SUFFIX, ShardWriter
from meloformer.shards.manifest import (
    DOCUMENTS_FILE,
    LIST_FILE,
    MANIFEST_FILE,
    REJECTS_FILE,
    VOCABULARY_FILE,
    FilterManifest,
    Sections,
    ShardCounts,
    ShardManifest,
    Split,
    SplitCounts,
)
from meloformer.shards.process import Piece, Reject, Result
from meloformer.shards.records import read_records, write_record
from meloformer.shards.report import Report
from meloformer.tokens.vocabulary import Vocabulary


class Output(Protocol):
    """What a stage writes into a folder."""

    def restore(self, folder: Path, report: Report, kept: dict[bytes, str] | None) -> None:
        """Open the files and count what they hold already.

        Args:
            folder: Where they are.
            report: Counts.
            kept: Gets short content key -> name of the pieces that they hold.
        Raises:
            OSError, ValueError, KeyError, TypeError: They are damaged.
        """
        ...

    def add(self, result: Result, path: Path | None) -> None:
        """Write one result, of the file at ``path`` where it comes from one."""
        ...

    def sync(self) -> dict[str, int]:
        """Bring all files to the disk; name -> length in bytes."""
        ...

    def close(self) -> None:
        """Close the files, whatever state they are in."""
        ...

    def finish(self, report: Report) -> None:
        """Close the files and write the manifest."""
        ...


class FilteredList:
    """``manifest.jsonl``: a line per file with what it is and why it was kept or not.

    Args:
        sections: For the manifest.
    """

    def __init__(self, sections: Sections) -> None:
        self._sections = sections

    def restore(self, folder: Path, report: Report, kept: dict[bytes, str] | None) -> None:
        """See :class:`Output`."""
        self._folder = folder
        for record in _earlier_records(folder / LIST_FILE):
            if record["keep"]:
                report.count_piece(record["tokens"], record["statistics"]["notes"], record["recovered"])
                if kept is not None:
                    kept.setdefault(short_key(record["content_key"]), record["name"])
            else:
                report.count_reject(record["reason"])
        self._lines = (folder / LIST_FILE).open("a", encoding="utf-8")

    def add(self, result: Result, path: Path | None) -> None:
        """See :class:`Output`."""
        record: dict[str, Any] = {"name": result.name, "path": None if path is None else os.path.realpath(path)}
        record["keep"] = isinstance(result, Piece)
        if isinstance(result, Reject):
            record |= {"reason": result.reason, "message": result.message}
        else:
            record |= {"tokens": len(result.ids), "recovered": result.recovered}
        facts = None if result.statistics is None else asdict(result.statistics)
        write_record(
            self._lines, record | {"sha256": result.sha256, "content_key": result.content_key, "statistics": facts}
        )

    def sync(self) -> dict[str, int]:
        """See :class:`Output`."""
        return {LIST_FILE: _synced(self._lines)}

    def close(self) -> None:
        """See :class:`Output`."""
        self._lines.close()

    def finish(self, report: Report) -> None:
        """See :class:`Output`."""
        self.close()
        manifest = FilterManifest(
            num_inputs=report.inputs,
            num_kept=report.kept,
            rejects=report.reasons(),
            settings=self._sections,
        )
        write_text(self._folder / MANIFEST_FILE, manifest.model_dump_json(indent=1) + "\n")


class ShardSet:
    """A folder of shards: pieces go to their splits, rejects to ``rejects.jsonl``.

    Args:
        settings: ``level`` and ``shard_tokens``.
        sections: For the manifest.
        vocabulary: Of the ids.
        split_of: Content key -> split.
    """

    def __init__(
        self, settings: PackSettings, sections: Sections, vocabulary: Vocabulary, split_of: Callable[[str], Split]
    ) -> None:
        self._settings, self._sections, self._vocabulary, self._split_of = settings, sections, vocabulary, split_of
        self._done: dict[Split, list[ShardCounts]] = {}
        self._open: dict[Split, ShardWriter] = {}

    def restore(self, folder: Path, report: Report, kept: dict[bytes, str] | None) -> None:
        """See :class:`Output`."""
        self._folder, self._done = folder, {}
        frames: dict[Split, tuple[str, list[tuple[int, int]]]] = {}
        for record in _earlier_records(folder / DOCUMENTS_FILE):
            report.count_piece(record["tokens"], record["statistics"]["notes"], record["recovered"])
            if kept is not None:
                kept.setdefault(short_key(record["content_key"]), record["name"])
            split: Split = record["split"]
            if split not in frames or frames[split][0] != record["shard"]:  # the one before is full
                self._count_full(split, *frames.get(split, ("", [])))
                frames[split] = record["shard"], []
            frames[split][1].append((record["bytes"], record["tokens"] * ID_BYTES))
        for split, (file, sizes) in frames.items():
            self._open[split] = ShardWriter(folder / file, level=self._settings.level, frames=sizes)
        for record in _earlier_records(folder / REJECTS_FILE):
            report.count_reject(record["reason"])
        self._documents = (folder / DOCUMENTS_FILE).open("a", encoding="utf-8")
        self._rejects = (folder / REJECTS_FILE).open("a", encoding="utf-8")

    def _count_full(self, split: Split, file: str, sizes: list[tuple[int, int]]) -> None:
        done = self._done.setdefault(split, [])
        if sizes:
            done.append(
                ShardCounts(
                    file=file,
                    num_documents=len(sizes),
                    num_tokens=sum(raw for _, raw in sizes) // ID_BYTES,
                    num_bytes=(self._folder / file).stat().st_size,
                )
            )

    def add(self, result: Result, path: Path | None) -> None:  # noqa: ARG002 (names alone are the same on every machine)
        """See :class:`Output`."""
        if isinstance(result, Reject):
            write_record(self._rejects, {"name": result.name, "reason": result.reason, "message": result.message})
            return
        split = self._split_of(result.content_key)
        writer = self._writer_for(split, len(result.ids))
        num_bytes = writer.add(result.ids)
        write_record(self._documents, _document_record(result, split, self._file(split), len(writer) - 1, num_bytes))

    def _file(self, split: Split) -> str:
        """The shard of a split that is open, or comes next."""
        return f"{split}-{len(self._done.get(split, ())):05d}{SUFFIX}"

    def _writer_for(self, split: Split, num_tokens: int) -> ShardWriter:
        """The open shard of a split, a new one where the open one has no room for a document."""
        self._done.setdefault(split, [])
        writer = self._open.get(split)
        if writer is not None and writer.num_tokens + num_tokens > self._settings.shard_tokens:
            self._finish_shard(split)
            writer = None
        if writer is None:
            writer = self._open[split] = ShardWriter(self._folder / self._file(split), level=self._settings.level)
        return writer

    def _finish_shard(self, split: Split) -> None:
        writer = self._open.pop(split)
        writer.close()
        facts = {"num_tokens": writer.num_tokens, "num_bytes": writer.num_bytes}
        self._done[split].append(ShardCounts(file=self._file(split), num_documents=len(writer), **facts))

    def sync(self) -> dict[str, int]:
        """See :class:`Output`."""
        sizes = {shard.file: shard.num_bytes for done in self._done.values() for shard in done}
        sizes |= {self._file(split): writer.sync() for split, writer in self._open.items()}
        return sizes | {DOCUMENTS_FILE: _synced(self._documents), REJECTS_FILE: _synced(self._rejects)}

    def close(self) -> None:
        """See :class:`Output`."""
        for file in (*self._open.values(), self._documents, self._rejects):
            file.abandon() if isinstance(file, ShardWriter) else file.close()

    def finish(self, report: Report) -> None:
        """See :class:`Output`."""
        for split in list(self._open):
            self._finish_shard(split)
        self.close()
        report.splits = {
            name: SplitCounts(
                num_documents=sum(shard.num_documents for shard in self._done[name]),
                num_tokens=sum(shard.num_tokens for shard in self._done[name]),
                shards=tuple(self._done[name]),
            )
            for name in sorted(self._done)
        }
        write_text(self._folder / VOCABULARY_FILE, self._vocabulary.to_json())
        manifest = ShardManifest(
            vocabulary_sha256=self._vocabulary.sha256,
            num_inputs=report.inputs,
            num_documents=report.kept,
            num_tokens=report.num_tokens,
            num_notes=report.num_notes,
            rejects=report.reasons(),
            splits=report.splits,
            settings=self._sections,
        )
        write_text(self._folder / MANIFEST_FILE, manifest.model_dump_json(indent=1) + "\n")


def _document_record(piece: Piece, split: Split, shard: str, index: int, num_bytes: int) -> dict[str, Any]:
    """A line of ``documents.jsonl``: where a document lies and where it comes from."""
    return {
        "name": piece.name,
        "split": split,
        "shard": shard,
        "index": index,
        "tokens": len(piece.ids),
        "bytes": num_bytes,
        "recovered": piece.recovered,
        "sha256": piece.sha256,
        "content_key": piece.content_key,
        "statistics": asdict(piece.statistics),
    }


def short_key(content_key: str) -> bytes:
    """Half of a content key: a million pieces hardly share one by chance, and it takes less memory."""
    return bytes.fromhex(content_key[:16])


def _earlier_records(path: Path) -> Iterator[dict[str, Any]]:
    """What an interrupted run wrote; nothing where there was none."""
    return read_records(path) if path.exists() else iter(())


def _synced(file: TextIO) -> int:
    """Bring a file to the disk; its length in bytes."""
    file.flush()
    os.fsync(file.fileno())
    return os.fstat(file.fileno()).st_size

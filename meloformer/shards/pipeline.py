"""Folder -> filtered list, tokens or shards: read every piece, judge it, write it, and account for every one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from meloformer.errors import InputError, ShardError, VocabularyError
from meloformer.midi.quality import PieceStatistics, reject_reason
from meloformer.midi.sources import Source, find_sources
from meloformer.settings import FilterSettings, PackSettings, Settings
from meloformer.shards.format import SUFFIX, ShardWriter
from meloformer.shards.output import MANIFEST_FILE, output_folder, write_text
from meloformer.shards.process import Piece, Reject, Work, process_sources
from meloformer.shards.store import (
    DOCUMENTS_FILE,
    FORMAT_VERSION,
    REJECTS_FILE,
    VOCABULARY_FILE,
    Documents,
    ShardFolder,
    ShardManifest,
    Split,
    SplitCounts,
    open_shards,
)
from meloformer.tokens.vocabulary import Vocabulary

SHARDS = "meloformer-shards"
FILTERED = "meloformer-filter"
LIST_FILE = "manifest.jsonl"
Progress = Callable[[int, int], None]
"""Called with the number of files done and of all files."""


class FilterManifest(BaseModel):
    """``manifest.json`` of a filtered list."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["meloformer-filter"] = "meloformer-filter"
    version: int = FORMAT_VERSION
    num_inputs: int
    num_kept: int
    rejects: dict[str, int]
    settings: dict[str, dict[str, Any]]


@dataclass
class Report:
    """What became of every input; ``kept`` and the rejects add up to ``inputs``."""

    inputs: int = 0
    kept: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    num_tokens: int = 0
    num_notes: int = 0
    splits: dict[str, SplitCounts] = field(default_factory=dict)

    @property
    def tokens_per_note(self) -> float:
        """Mean over all kept notes; 0 without notes."""
        return self.num_tokens / self.num_notes if self.num_notes else 0.0

    def add(self, result: Piece | Reject) -> None:
        """Count one file."""
        self.inputs += 1
        if isinstance(result, Reject):
            self.rejects[result.reason] += 1
            return
        self.kept += 1
        self.num_tokens += len(result.ids)
        self.num_notes += result.statistics.notes

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "inputs": self.inputs,
            "kept": self.kept,
            "rejected": sum(self.rejects.values()),
            "rejects": dict(self.rejects.most_common()),
            "num_tokens": self.num_tokens,
            "num_notes": self.num_notes,
            "tokens_per_note": round(self.tokens_per_note, 4),
            "splits": {name: counts.model_dump(mode="json") for name, counts in self.splits.items()},
        }


def filter_pieces(
    arguments: Sequence[str | Path], out: Path, settings: Settings, *, progress: Progress | None = None
) -> Report:
    """Judge every file and write ``manifest.jsonl``: a line per file with what it is and why it was kept or not.

    Args:
        arguments: As :func:`~meloformer.midi.sources.find_sources` takes them.
        out: The folder to write.
        settings: Its sections ``filter``, ``tokens`` and ``pack.workers`` count.
        progress: Told of every file done.
    Raises:
        InputError: There is no music.
        OutputError: ``out`` cannot be written.
    """
    report = Report()
    sources = find_sources(arguments)
    paths = {source.name: source.path for source in sources}
    results = process_sources(sources, Work(settings, Vocabulary.default()))
    with output_folder(out, FILTERED) as folder:
        with (folder / LIST_FILE).open("w", encoding="utf-8") as lines:
            for result in _counted(_judged(results, settings.filter), report, len(sources), progress):
                record: dict[str, Any] = {"name": result.name, "path": str(paths[result.name].resolve())}
                if isinstance(result, Piece):
                    record |= {"keep": True, "sha256": result.sha256, "content_key": result.content_key}
                    record |= {"statistics": asdict(result.statistics)}
                else:
                    record |= {"keep": False, "reason": result.reason, "message": result.message}
                _write_line(lines, record)
        manifest = FilterManifest(
            num_inputs=report.inputs,
            num_kept=report.kept,
            rejects=dict(report.rejects.most_common()),
            settings=_sections(settings),
        )
        write_text(folder / MANIFEST_FILE, manifest.model_dump_json(indent=1) + "\n")
    return report


def tokenize_pieces(
    arguments: Sequence[str | Path],
    out: Path,
    settings: Settings,
    vocabulary: Vocabulary | None = None,
    *,
    progress: Progress | None = None,
) -> Report:
    """Write every piece that can be written as tokens, unjudged, into one split called ``all``.

    Args as for :func:`pack_pieces`.
    """
    pieces, total, vocabulary = open_pieces(arguments, settings, vocabulary)
    report = Report()
    counted = _counted(pieces, report, total, progress)
    _write_shards(counted, report, out, settings, vocabulary, lambda _: "all")
    return report


def pack_pieces(
    arguments: Sequence[str | Path],
    out: Path,
    settings: Settings,
    vocabulary: Vocabulary | None = None,
    *,
    progress: Progress | None = None,
) -> Report:
    """Judge, tokenise and split every piece into train, val and test shards.

    Args:
        arguments: Files, folders, ``corpus:NAME``; or one folder that ``filter`` or ``tokenize`` wrote.
        out: The folder to write. The bytes in it are the same for any number of workers.
        settings: Its sections ``filter``, ``tokens`` and ``pack`` count.
        vocabulary: By default the full one, or that of the tokens.
        progress: Told of every file done.
    Raises:
        InputError: There is no music.
        OutputError: ``out`` cannot be written.
        ShardError: The tokens are damaged.
    """
    pieces, total, vocabulary = open_pieces(arguments, settings, vocabulary)
    report = Report()
    counted = _counted(_judged(pieces, settings.filter), report, total, progress)
    _write_shards(counted, report, out, settings, vocabulary, lambda key: split_of(key, settings.pack))
    return report


def open_pieces(
    arguments: Sequence[str | Path], settings: Settings, vocabulary: Vocabulary | None
) -> tuple[Iterator[Piece | Reject], int, Vocabulary]:
    """Every piece of an input of any kind, one by one; how many there are; and the vocabulary of their ids.

    Raises:
        InputError, ShardError: As for :func:`pack_pieces`.
    """
    if len(arguments) == 1:
        folder = Path(arguments[0])
        if (folder / LIST_FILE).is_file():
            kept = _kept_sources(folder)
            vocabulary = vocabulary or Vocabulary.default()
            return process_sources(kept, Work(settings, vocabulary)), len(kept), vocabulary
        if (folder / DOCUMENTS_FILE).is_file():
            tokens = open_shards(folder)
            vocabulary = vocabulary or tokens.vocabulary
            return _stored_pieces(tokens, vocabulary), tokens.manifest.num_documents, vocabulary
    sources = find_sources(arguments)
    vocabulary = vocabulary or Vocabulary.default()
    return process_sources(sources, Work(settings, vocabulary)), len(sources), vocabulary


def split_of(key: str, settings: PackSettings) -> Split:
    """The side that a content key falls on, whatever else the corpus holds."""
    position = int(key[:12], 16) / 16**12
    if position < settings.test_share:
        return "test"
    return "val" if position < settings.test_share + settings.val_share else "train"


def _kept_sources(folder: Path) -> list[Source]:
    """The files that ``filter`` kept.

    Raises:
        InputError: The list is damaged.
    """
    try:
        FilterManifest.model_validate_json((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        lines = (folder / LIST_FILE).read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        return [Source(record["name"], Path(record["path"])) for record in records if record["keep"]]
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        first_line = str(error).splitlines()[0]
        message = f"{folder} holds a damaged list of files ({first_line})"
        raise InputError(message, "make it again with `meloformer filter`") from None


def _stored_pieces(tokens: ShardFolder, vocabulary: Vocabulary) -> Iterator[Piece | Reject]:
    """The documents of a folder of shards as pieces, in the order in which they were written."""
    splits: dict[str, Documents] = {}
    position: Counter[str] = Counter()
    with (tokens.path / DOCUMENTS_FILE).open(encoding="utf-8") as lines:
        for line in lines:
            try:
                record = json.loads(line)
                name, split = record["name"], record["split"]
                facts = PieceStatistics(**record["statistics"])
                documents = splits[split] if split in splits else splits.setdefault(split, tokens.split(split))
                ids = documents[position[split]]
                position[split] += 1
            except (ValueError, KeyError, TypeError, IndexError) as error:
                message = f"{tokens.path / DOCUMENTS_FILE} does not fit its shards ({error})"
                raise ShardError(message, "make them again with `meloformer tokenize`") from None
            try:
                ids = vocabulary.from_canonical(tokens.vocabulary.to_canonical(ids))
            except VocabularyError as error:
                yield Reject(name, "not-in-vocabulary", error.message)
            else:
                yield Piece(name, record["sha256"], record["content_key"], facts, ids)


def _judged(results: Iterable[Piece | Reject], settings: FilterSettings) -> Iterator[Piece | Reject]:
    """Pieces that break a rule, or repeat an earlier piece, become rejects."""
    first_with: dict[str, str] = {}
    for result in results:
        if isinstance(result, Reject):
            yield result
            continue
        broken = reject_reason(result.statistics, settings)
        if broken is None and not settings.keep_duplicates:
            earlier = first_with.setdefault(result.content_key, result.name)
            if earlier != result.name:
                broken = "duplicate", f"the same notes as {earlier}"
        yield result if broken is None else Reject(result.name, *broken)


def _counted(
    results: Iterable[Piece | Reject], report: Report, total: int, progress: Progress | None
) -> Iterator[Piece | Reject]:
    for done, result in enumerate(results, start=1):
        report.add(result)
        yield result
        if progress is not None:
            progress(done, total)


class _SplitWriter:
    """The shards of one split, a new one whenever the last is full."""

    def __init__(self, folder: Path, split: str, settings: PackSettings) -> None:
        self._folder, self._split, self._settings = folder, split, settings
        self._writer: ShardWriter | None = None
        self.names: list[str] = []
        self.num_documents = 0
        self.num_tokens = 0

    def add(self, ids: np.ndarray) -> tuple[str, int]:
        """Write a document; the name of its shard and its number there."""
        if self._writer is None or (
            self._writer.num_tokens + len(ids) > self._settings.shard_tokens and len(self._writer)
        ):
            self.close()
            self.names.append(f"{self._split}-{len(self.names):05d}{SUFFIX}")
            self._writer = ShardWriter(self._folder / self.names[-1], level=self._settings.level)
        self._writer.add(ids)
        self.num_documents += 1
        self.num_tokens += len(ids)
        return self.names[-1], len(self._writer) - 1

    def close(self) -> None:
        """Finish the open shard."""
        if self._writer is not None:
            self._writer.close()

    @property
    def counts(self) -> SplitCounts:
        """For the manifest."""
        return SplitCounts(num_documents=self.num_documents, num_tokens=self.num_tokens, shards=tuple(self.names))


def _write_shards(
    results: Iterable[Piece | Reject],
    report: Report,
    out: Path,
    settings: Settings,
    vocabulary: Vocabulary,
    split_for: Callable[[str], Split],
) -> None:
    writers: dict[str, _SplitWriter] = {}
    with output_folder(out, SHARDS) as folder:
        with ExitStack() as open_files:
            rejects = open_files.enter_context((folder / REJECTS_FILE).open("w", encoding="utf-8"))
            documents = open_files.enter_context((folder / DOCUMENTS_FILE).open("w", encoding="utf-8"))
            for result in results:
                if isinstance(result, Reject):
                    _write_line(rejects, asdict(result))
                    continue
                split = split_for(result.content_key)
                if split not in writers:
                    writers[split] = _SplitWriter(folder, split, settings.pack)
                shard, index = writers[split].add(result.ids)
                record = {"name": result.name, "split": split, "shard": shard, "index": index}
                record |= {"tokens": len(result.ids), "sha256": result.sha256, "content_key": result.content_key}
                _write_line(documents, record | {"statistics": asdict(result.statistics)})
            for writer in writers.values():
                writer.close()
        report.splits = {name: writers[name].counts for name in sorted(writers)}
        write_text(folder / VOCABULARY_FILE, vocabulary.to_json())
        manifest = ShardManifest(
            vocabulary_sha256=vocabulary.sha256,
            num_inputs=report.inputs,
            num_documents=report.kept,
            num_tokens=report.num_tokens,
            num_notes=report.num_notes,
            rejects=dict(report.rejects.most_common()),
            splits=report.splits,
            settings=_sections(settings),
        )
        write_text(folder / MANIFEST_FILE, manifest.model_dump_json(indent=1) + "\n")


def _sections(settings: Settings) -> dict[str, dict[str, Any]]:
    """What the documents depend on; the number of workers is not among it."""
    dumped = settings.model_dump(mode="json", include={"filter", "tokens", "pack"})
    del dumped["pack"]["workers"]
    return dumped


def _write_line(file: TextIO, record: dict[str, Any]) -> None:
    file.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")

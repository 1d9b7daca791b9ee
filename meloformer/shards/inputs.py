"""What a stage reads: music, the list that ``filter`` wrote, or the tokens that ``tokenize`` or ``pack`` wrote."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from meloformer.errors import InputError, ShardError, VocabularyError
from meloformer.midi.quality import PieceStatistics
from meloformer.midi.sources import Source, find_sources
from meloformer.settings import Settings
from meloformer.shards.format import SUFFIX
from meloformer.shards.manifest import (
    DOCUMENTS_FILE,
    FILTERED,
    LIST_FILE,
    SHARDS,
    FilterManifest,
    Sections,
    Split,
    format_of,
    read_manifest,
    sections_of,
)
from meloformer.shards.parallel import process_sources
from meloformer.shards.process import Piece, Reject, Result, Work
from meloformer.shards.records import read_records
from meloformer.shards.store import ShardFolder, open_shards
from meloformer.tokens.vocabulary import Vocabulary

_FILTER_AGAIN = "make it again with `meloformer filter`"
_TOKENIZE_AGAIN = "make them again with `meloformer tokenize`"


@dataclass(frozen=True)
class Pieces:
    """An opened input of any kind."""

    read: Callable[[int], Generator[Result]]
    """Results from an input on, by its number; one for every input, in an order that depends on the input alone."""
    total: int
    key: str
    """Equal for inputs with the same names at the same places."""
    vocabulary: Vocabulary
    """Of the ids."""
    sections: Sections
    """Settings that the pieces were made with: section ``tokens``, and ``filter`` where they were judged."""
    folder: Path | None = None
    """Where they are read from, if that is a folder that a stage wrote."""
    sources: Sequence[Source] = ()
    """The files, where files are read."""

    @property
    def judged(self) -> bool:
        """Whether an earlier stage chose these pieces; its choice stands."""
        return "filter" in self.sections

    def path(self, number: int) -> Path | None:
        """The file of an input, where files are read."""
        return self.sources[number].path if self.sources else None


def open_pieces(arguments: Sequence[str | Path], settings: Settings, vocabulary: Vocabulary | None = None) -> Pieces:
    """Open an input of any kind.

    Args:
        arguments: Files, folders, ``corpus:NAME``; or one folder that a stage wrote.
        settings: Sections ``tokens``, ``filter.max_file_bytes`` and ``pack`` count where music is read.
        vocabulary: By default the full one, or that of the tokens.
    Raises:
        InputError: There is no music, or the list is damaged.
        ShardError: The tokens are damaged.
    """
    if len(arguments) == 1:
        folder = Path(arguments[0])
        kind = format_of(folder)
        if kind == FILTERED:
            return _filtered_pieces(folder, settings, vocabulary or Vocabulary.default())
        if kind == SHARDS or (folder.is_dir() and any(folder.glob(f"*{SUFFIX}"))):
            return _stored_pieces(folder, vocabulary)
    return music_pieces(find_sources(arguments), Work(settings, vocabulary or Vocabulary.default()))


def music_pieces(sources: Sequence[Source], work: Work) -> Pieces:
    """The pieces in music files."""
    return Pieces(
        read=lambda start: process_sources(islice(sources, start, None), work),
        total=len(sources),
        key=f"{_key_of(sources)} {work.settings.filter.max_file_bytes}",
        vocabulary=work.vocabulary,
        sections=sections_of(work.settings, "tokens"),
        sources=sources,
    )


def _key_of(sources: Iterable[Source]) -> str:
    """A hash of the names and places of files."""
    digest = hashlib.sha256()
    for source in sources:
        place = os.path.abspath(source.place)  # noqa: PTH100 (a million of them)
        digest.update(f"{source.name}\0{place}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _filtered_pieces(folder: Path, settings: Settings, vocabulary: Vocabulary) -> Pieces:
    """The files that ``filter`` kept, read again."""
    manifest = read_manifest(folder, FilterManifest, command="meloformer filter")
    path = folder / LIST_FILE
    sources: list[Source] = []
    expected_sha256: list[bytes] = []
    number = 0
    try:
        for record in read_records(path):
            number += 1
            if record["keep"]:
                sources.append(Source(record["name"], record["path"]))
                expected_sha256.append(bytes.fromhex(record["sha256"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged in or behind line {number} ({error!r})", _FILTER_AGAIN) from None
    if (number, len(sources)) != (manifest.num_inputs, manifest.num_kept):
        found, wanted = f"{len(sources)} of {number}", f"{manifest.num_kept} of {manifest.num_inputs}"
        raise InputError(f"{path} keeps {found} files, its manifest says {wanted}", _FILTER_AGAIN)
    pieces = music_pieces(sources, Work(settings, vocabulary))

    def read(start: int) -> Generator[Result]:
        with closing(pieces.read(start)) as results:
            yield from _unchanged(results, islice(expected_sha256, start, None))

    content = hashlib.sha256(b"".join(expected_sha256)).hexdigest()
    sections = {"filter": manifest.settings["filter"], **pieces.sections}
    return replace(pieces, read=read, key=pieces.key + content, sections=sections, folder=folder)


def _unchanged(results: Iterable[Result], expected_sha256: Iterable[bytes]) -> Iterator[Result]:
    """Files with other bytes than ``filter`` saw become rejects: it did not judge them."""
    for result, expected in zip(results, expected_sha256, strict=True):
        if result.sha256 is None or result.sha256 == expected.hex():
            yield result
        else:
            message = f"the file has sha256 {result.sha256[:12]}..., filter saw {expected.hex()[:12]}..."
            yield Reject(result.name, "changed", message, result.sha256)


def _stored_pieces(folder: Path, vocabulary: Vocabulary | None) -> Pieces:
    """The documents of a folder of shards."""
    tokens = open_shards(folder)
    chosen = vocabulary or tokens.vocabulary
    sections = {name: fields for name, fields in tokens.manifest.settings.items() if name in ("filter", "tokens")}
    return Pieces(
        read=lambda start: _documents(tokens, chosen, start),
        total=tokens.manifest.num_documents,
        key=hashlib.sha256(tokens.manifest.model_dump_json().encode()).hexdigest(),
        vocabulary=chosen,
        sections=sections,
        folder=folder,
    )


def _documents(tokens: ShardFolder, vocabulary: Vocabulary, start: int) -> Generator[Result]:
    """Every document from one on with what is known of it, in the order in which they were written.

    Raises:
        ShardError: A shard is damaged, or ``documents.jsonl`` tells of other documents.
    """
    path = tokens.path / DOCUMENTS_FILE
    stored: dict[str, Iterator[tuple[tuple[str, int], np.ndarray]]] = {}
    number = 0
    try:
        for record in read_records(path):
            number += 1
            split = record["split"]
            if split not in stored:
                stored[split] = _stored_ids(tokens, split)
            place, ids = next(stored[split])
            if place != (record["shard"], record["index"]) or len(ids) != record["tokens"]:
                raise ValueError(f"the next document of {split} is {place}, {len(ids)} tokens")
            facts = PieceStatistics(**record["statistics"])
            piece = Piece(record["name"], record["sha256"], record["content_key"], facts, ids, record["recovered"])
            if number > start:
                yield _in_vocabulary(piece, place, tokens, vocabulary)
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise ShardError(
            f"{path} does not fit its shards in or behind line {number} ({error!r})", _TOKENIZE_AGAIN
        ) from None
    if number != tokens.manifest.num_documents:
        raise ShardError(f"{path} has {number} lines for {tokens.manifest.num_documents} documents", _TOKENIZE_AGAIN)


def _stored_ids(tokens: ShardFolder, split: Split) -> Iterator[tuple[tuple[str, int], np.ndarray]]:
    """Every document of a split, with its shard and its number there."""
    shards = tokens.manifest.splits[split].shards
    places = ((shard.file, index) for shard in shards for index in range(shard.num_documents))
    return zip(places, tokens.split(split), strict=True)


def _in_vocabulary(piece: Piece, place: tuple[str, int], tokens: ShardFolder, vocabulary: Vocabulary) -> Result:
    """The piece in another vocabulary; a reject where that lacks a token."""
    try:
        canonical = tokens.vocabulary.to_canonical(piece.ids)
    except VocabularyError as error:
        shard, index = place
        raise ShardError(f"{tokens.path / shard}, document {index}: {error.message}", _TOKENIZE_AGAIN) from None
    try:
        return replace(piece, ids=vocabulary.from_canonical(canonical))
    except VocabularyError as error:
        return piece.rejected("not-in-vocabulary", error.message)

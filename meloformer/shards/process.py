"""One file -> one piece, or one reject with a reason."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np

from meloformer.errors import RejectError, VocabularyError
from meloformer.midi.quality import PieceStatistics, content_key, statistics
from meloformer.midi.sources import Source, parse_source, read_bytes
from meloformer.settings import Settings
from meloformer.tokens.encode import encode_quantised
from meloformer.tokens.quantise import quantise
from meloformer.tokens.vocabulary import Vocabulary

FILES_PER_TASK = 8


@dataclass(frozen=True)
class Piece:
    """A file that was read and written in tokens."""

    name: str
    sha256: str
    """Of the file's bytes."""
    content_key: str
    """Equal for copies that differ in key, tempo or velocity only."""
    statistics: PieceStatistics
    ids: np.ndarray
    """(T,) uint16."""


@dataclass(frozen=True)
class Reject:
    """A file that was not kept."""

    name: str
    reason: str
    message: str


@dataclass(frozen=True)
class Work:
    """What is to be done with every file; it travels to the worker processes once."""

    settings: Settings
    vocabulary: Vocabulary


def process_source(source: Source, work: Work) -> Piece | Reject:
    """Read, quantise and encode one file. Whatever goes wrong with it is a reject."""
    settings = work.settings
    try:
        data = read_bytes(source, max_bytes=settings.filter.max_file_bytes)
        score = parse_source(source, data, sustain=settings.tokens.sustain)
        quantised = quantise(score, chords=settings.tokens.chords)
        facts = statistics(score, quantised)
        if not quantised.num_notes:
            return Reject(source.name, "no-notes", "the file has no notes")
        ids = encode_quantised(quantised, work.vocabulary)
    except RejectError as error:
        return Reject(source.name, error.reason, error.message)
    except VocabularyError as error:
        return Reject(source.name, "not-in-vocabulary", error.message)
    except Exception as error:  # noqa: BLE001 (one strange file must never end a run over a million)
        return Reject(source.name, "crashed", f"{type(error).__name__}: {error}"[:200])
    return Piece(source.name, hashlib.sha256(data).hexdigest(), content_key(quantised), facts, ids)


_worker_work: Work | None = None


def _start_worker(work: Work) -> None:
    global _worker_work
    _worker_work = work


def _process_in_worker(source: Source) -> Piece | Reject:
    assert _worker_work is not None
    return process_source(source, _worker_work)


def process_sources(sources: Iterable[Source], work: Work) -> Iterator[Piece | Reject]:
    """:func:`process_source` of every source, in their order, for any ``pack.workers``."""
    workers = work.settings.pack.workers
    if workers == 1:
        yield from (process_source(source, work) for source in sources)
        return
    with get_context("spawn").Pool(workers, _start_worker, (work,)) as pool:
        yield from pool.imap(_process_in_worker, sources, chunksize=FILES_PER_TASK)

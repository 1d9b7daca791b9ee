"""One file -> one piece, or one reject with a reason."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context, parent_process

import numpy as np

from meloformer.errors import MeloFormerError, RejectError, VocabularyError
from meloformer.midi.quality import PieceStatistics, content_key, statistics
from meloformer.midi.sources import Source, parse_source, read_bytes
from meloformer.settings import Settings
from meloformer.tokens.encode import encode_quantised
from meloformer.tokens.quantise import quantise
from meloformer.tokens.vocabulary import Vocabulary

FILES_PER_TASK = 8
TASKS_PER_WORKER = 4
"""Handed out ahead of the one that is waited for: what a worker has ready is bounded, however slow the writer is."""


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

    def rejected(self, reason: str, message: str) -> Reject:
        """This piece as one that was not kept; what is known of it stays known."""
        return Reject(self.name, reason, message, self.sha256, self.content_key, self.statistics)


@dataclass(frozen=True)
class Reject:
    """A file that was not kept."""

    name: str
    reason: str
    """In kebab-case; rejects are counted by it."""
    message: str
    sha256: str | None = None
    """``None`` where the file could not be read."""
    content_key: str | None = None
    statistics: PieceStatistics | None = None
    """``None`` where the file could not be written in tokens."""


Result = Piece | Reject


@dataclass(frozen=True)
class Work:
    """What is to be done with every file; it travels to the worker processes once."""

    settings: Settings
    vocabulary: Vocabulary


def process_source(source: Source, work: Work) -> Result:
    """Read, quantise and encode one file. Whatever goes wrong with it is a reject."""
    settings = work.settings
    sha256 = None
    try:
        data = read_bytes(source, max_bytes=settings.filter.max_file_bytes)
        sha256 = hashlib.sha256(data).hexdigest()
        score = parse_source(source, data, sustain=settings.tokens.sustain)
        quantised = quantise(score, chords=settings.tokens.chords)
        if not quantised.num_notes:
            raise RejectError("no-notes", "the file has no notes")
        ids = encode_quantised(quantised, work.vocabulary)
        return Piece(source.name, sha256, content_key(quantised), statistics(score, quantised), ids)
    except RejectError as error:
        reason, message = error.reason, error.message
    except VocabularyError as error:
        reason, message = "not-in-vocabulary", error.message
    except Exception as error:  # noqa: BLE001 (one strange file must never end a run over a million)
        reason, message = "crashed", f"{type(error).__name__}: {error}"[:200]
    return Reject(source.name, reason, message, sha256)


_worker_work: Work | None = None


def _start_worker(work: Work) -> None:
    global _worker_work
    _worker_work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker when its parent is gone, killed perhaps: it would wait for work without end."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _process_in_worker(sources: list[Source]) -> list[Result]:
    assert _worker_work is not None
    return [process_source(source, _worker_work) for source in sources]


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold SIGINT back while worker processes start, which inherit that they do not hear it.

    A terminal sends it to all; the parent alone decides, and a worker has no tale to tell of it.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def process_sources(sources: Iterable[Source], work: Work) -> Generator[Result]:
    """:func:`process_source` of every source, in their order, for any ``pack.workers``.

    Raises:
        MeloFormerError: A worker process died; names the files that it may have died of.
    """
    if work.settings.pack.workers == 1:
        yield from (process_source(source, work) for source in sources)
        return
    workers = work.settings.pack.workers
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (work,))
    waiting: deque[tuple[list[Source], Future[list[Result]]]] = deque()
    remaining = iter(sources)
    try:
        while True:
            while len(waiting) < workers * TASKS_PER_WORKER and (task := list(islice(remaining, FILES_PER_TASK))):
                with _interrupts_held():
                    future = pool.submit(_process_in_worker, task)
                waiting.append((task, future))
            if not waiting:
                return
            task, future = waiting.popleft()
            yield from _results(task, future)
    finally:
        pool.shutdown(cancel_futures=True)


def _results(task: list[Source], future: Future[list[Result]]) -> list[Result]:
    try:
        return future.result()
    except BrokenProcessPool:
        names = ", ".join(source.name for source in task)
        raise MeloFormerError(
            f"a worker process died; its file may be one of {names}, or a few after them",
            "find it with --workers 1 and move it away",
        ) from None

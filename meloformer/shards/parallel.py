"""Many files -> their results in order, read by several processes here or by the workers of a Dask cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from queue import SimpleQueue
from typing import Protocol

from meloformer.midi.score_formats import SCORE_SUFFIXES
from meloformer.midi.sources import Source
from meloformer.shards.isolation import IsolatedReader
from meloformer.shards.process import Result, Work

FILES_PER_TASK = 16
TASKS_PER_WORKER = 4
"""Handed out ahead of the one that is waited for: what a worker has ready is bounded, however slow the writer is."""


class Task(Protocol):
    """Some files that are being read."""

    def result(self) -> list[Result]:
        """Wait for their results."""
        ...


Submit = Callable[[list[Source]], Task]


def process_sources(sources: Iterable[Source], work: Work) -> Generator[Result]:
    """:func:`~meloformer.shards.process.process_source` of every source, in their order.

    The results are the same for any ``pack.workers`` and ``pack.scheduler``. A file that crashes its process, takes
    longer than ``pack.timeout_seconds`` or more memory than ``pack.worker_memory_mb`` is a reject.

    Raises:
        MeloFormerError: No process can be started, or the cluster cannot be reached.
    """
    settings = work.settings.pack
    readers: AbstractContextManager[tuple[Submit, int]]
    if settings.scheduler is None:
        readers = _local_readers(work, settings.num_workers)
    else:
        from meloformer.shards.cluster import cluster_readers

        readers = cluster_readers(work, settings.scheduler)
    waiting: deque[Task] = deque()
    with readers as (submit, num_readers):
        for task in _tasks(iter(sources)):
            waiting.append(submit(task))
            if len(waiting) >= num_readers * TASKS_PER_WORKER:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _tasks(sources: Iterator[Source]) -> Iterator[list[Source]]:
    """Several MIDI files at a time, which take milliseconds; a score, which takes seconds, alone."""
    while task := list(islice(sources, FILES_PER_TASK)):
        if any(source.path.suffix.lower() in SCORE_SUFFIXES for source in task):
            yield from ([source] for source in task)
        else:
            yield task


@contextmanager
def _local_readers(work: Work, workers: int) -> Iterator[tuple[Submit, int]]:
    """A thread for every worker process, which waits for it."""
    readers = [IsolatedReader(work) for _ in range(workers)]
    idle: SimpleQueue[IsolatedReader] = SimpleQueue()
    for reader in readers:
        idle.put(reader)

    def process(sources: list[Source]) -> list[Result]:
        reader = idle.get()
        try:
            return reader.process(sources)
        finally:
            idle.put(reader)

    threads = ThreadPoolExecutor(workers, thread_name_prefix="meloformer-reader")
    try:
        yield lambda sources: threads.submit(process, sources), workers
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for reader in readers:
            reader.close()
        threads.shutdown()

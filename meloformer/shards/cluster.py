"""The workers of a Dask cluster as readers. They must see the files under the same paths."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from meloformer.errors import MeloFormerError
from meloformer.midi.sources import Source
from meloformer.shards.isolation import IsolatedReader
from meloformer.shards.process import Result, Work
from meloformer.version import __version__

if TYPE_CHECKING:
    from meloformer.shards.parallel import Submit

CONNECT_SECONDS = 10
PATIENCE_SECONDS = 60
"""How long a cluster may be without any worker; one that is started meanwhile goes on."""
_of_thread = threading.local()


class _ClusterTask:
    def __init__(self, future: Any, client: Any, address: str) -> None:
        self._future, self._client, self._address = future, client, address

    def result(self) -> list[Result]:
        from distributed import CancelledError, KilledWorker
        from distributed import TimeoutError as NotYet
        from distributed.comm.core import CommClosedError

        without_workers = None
        try:
            while True:
                try:
                    return self._future.result(timeout=CONNECT_SECONDS)
                except NotYet:
                    if self._future.done():
                        raise
                now = time.monotonic()
                without_workers = None if num_threads(self._client) else without_workers or now
                if without_workers is not None and now - without_workers > PATIENCE_SECONDS:
                    raise CommClosedError("it has no workers any more")
        except (CancelledError, CommClosedError, KilledWorker, OSError, TimeoutError) as error:
            what = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            raise MeloFormerError(
                f"the cluster at {self._address} went away ({what})",
                "start it again and run the same command: it goes on where it was",
            ) from None


@contextmanager
def cluster_readers(work: Work, address: str) -> Iterator[tuple[Submit, int]]:
    """A function that hands files to the cluster, and the number of its threads.

    Args:
        work: What is to be done with every file.
        address: Of the scheduler, such as ``tcp://host:8786``.
    Raises:
        MeloFormerError: ``distributed`` is not installed, nobody answers, or there are no workers.
    """
    if "://" not in address:
        raise MeloFormerError(f"{address} is no address of a scheduler", "write tcp://HOST:PORT")
    try:
        from distributed import Client
    except ImportError:
        raise MeloFormerError("a cluster needs the package distributed", "pip install 'meloformer[cluster]'") from None
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is said in one line, here
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError, ImportError) as error:
        raise MeloFormerError(f"no scheduler answers at {address} ({str(error).splitlines()[0][:200]})") from None
    try:
        with suppress(TimeoutError):
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        threads = num_threads(client)
        if not threads:
            raise MeloFormerError(f"the cluster at {address} has no workers", f"dask worker {address}")

        def submit(sources: list[Source]) -> _ClusterTask:
            absolute = [replace(source, place=os.path.abspath(source.place)) for source in sources]  # noqa: PTH100
            future = client.submit(process_on_worker, __version__, work, absolute, pure=False)
            return _ClusterTask(future, client, address)

        yield submit, threads
    finally:
        with suppress(Exception):
            client.close(timeout=CONNECT_SECONDS)


def num_threads(client: Any) -> int:
    """Of all workers of a cluster."""
    workers: dict[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
    return sum(worker["nthreads"] for worker in workers.values())


def process_on_worker(version: str, work: Work, sources: list[Source]) -> list[Result]:
    """On a worker: read files in the child process of the thread that this runs in.

    Raises:
        MeloFormerError: The worker has another version of MeloFormer.
    """
    if version != __version__:
        raise MeloFormerError(f"a worker has MeloFormer {__version__}, this command {version}")
    if getattr(_of_thread, "work", None) != work:
        if hasattr(_of_thread, "reader"):
            _of_thread.reader.close()
        _of_thread.work, _of_thread.reader = work, IsolatedReader(work)
    process: Callable[[list[Source]], list[Result]] = _of_thread.reader.process
    return process(sources)

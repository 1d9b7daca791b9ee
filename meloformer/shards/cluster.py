"""The workers of a Dask cluster as readers. They must see the files under the same paths."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from meloformer.errors import MeloFormerError
from meloformer.midi.sources import Source
from meloformer.shards.isolation import IsolatedReader
from meloformer.shards.process import Result, Work
from meloformer.version import __version__

if TYPE_CHECKING:
    from meloformer.shards.parallel import Submit

CONNECT_SECONDS = 10
_of_thread = threading.local()


class _ClusterTask:
    def __init__(self, future: Any, address: str) -> None:
        self._future, self._address = future, address

    def result(self) -> list[Result]:
        from distributed import CancelledError, KilledWorker
        from distributed.comm.core import CommClosedError

        try:
            return self._future.result()
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
    try:
        from distributed import Client
    except ImportError:
        raise MeloFormerError("a cluster needs the package distributed", "pip install 'meloformer[cluster]'") from None
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError, ImportError) as error:
        raise MeloFormerError(f"no scheduler answers at {address} ({str(error).splitlines()[0][:200]})") from None
    try:
        with suppress(TimeoutError):
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        workers: dict[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
        threads = sum(worker["nthreads"] for worker in workers.values())
        if not threads:
            raise MeloFormerError(f"the cluster at {address} has no workers", f"dask worker {address}")

        def submit(sources: list[Source]) -> _ClusterTask:
            arguments = (__version__, work, sources)
            return _ClusterTask(client.submit(process_on_worker, *arguments, pure=False), address)

        yield submit, threads
    finally:
        with suppress(Exception):
            client.close(timeout=CONNECT_SECONDS)


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

"""A process of its own to read files in: one that crashes it, hangs it or eats its memory costs nothing but itself.

The child limits itself, by means that no native code can hold up: an alarm that ends it when a file takes too long,
and a limit on its memory. It sends every result as soon as it has it, so the parent knows of which file it died.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from meloformer.errors import MeloFormerError
from meloformer.midi.sources import Source
from meloformer.shards.process import NO_MEMORY, Reject, Result, Work, process_source

_CHILD = "from meloformer.shards.isolation import serve; serve()"
_READY = b"ready\n"
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_TRIES = 2
"""A child may die of something else than its file; one that kills two was not unlucky."""
RETIRES_ABOVE_MB = 220
"""A child that holds more after a file gives it back by ending; the next one starts afresh."""
_RETIRED = 75
"""Exit code of a child that ends between two files (sysexits.h: EX_TEMPFAIL, try again)."""
_TAIL_BYTES = 4096
"""Of what a child wrote to stderr."""


class IsolatedReader:
    """A child process that does what :func:`~meloformer.shards.process.process_source` does; a context manager.

    Args:
        work: What is to be done with every file. Its ``pack.timeout_seconds`` and ``pack.worker_memory_mb`` limit the
            child.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._child: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None
        self._last_words = ""
        self._closed = False
        self._busy = threading.Lock()

    def __enter__(self) -> IsolatedReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Of the child, where there is one."""
        return None if self._child is None else self._child.pid

    def process(self, sources: Sequence[Source]) -> list[Result]:
        """One result for every source, in order.

        Raises:
            MeloFormerError: No child can be started.
            EOFError: The reader was closed meanwhile.
        """
        with self._busy:
            return self._process(sources)

    def _process(self, sources: Sequence[Source]) -> list[Result]:
        results: list[Result] = []
        deaths = 0
        while len(results) < len(sources):
            before = len(results)
            died_of = self._ask(sources[before:], results)
            if len(results) > before:
                deaths = 0
            if died_of is None:
                continue
            deaths += 1
            reject = _reject(sources[len(results)], died_of, self._work, self._last_words)
            if reject.reason == "timeout" or deaths == _TRIES:
                results.append(reject)
                deaths = 0
        return results

    def close(self) -> None:
        """End the child, from any thread; what it was doing is lost."""
        self._closed = True
        child = self._child
        if child is not None:
            with suppress(OSError):
                child.kill()
        with self._busy:  # until it has noticed
            if self._child is not None:
                with suppress(EOFError):
                    self._end()

    def _ask(self, sources: Sequence[Source], results: list[Result]) -> int | None:
        """Append results as they come; the exit code of a child that died of a file, or ``None``."""
        if self._closed:
            raise EOFError
        is_fresh, before = self._child is None, len(results)
        child = self._child or self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            pickle.dump(list(sources), child.stdin)
            child.stdin.flush()
            accepted = child.stdout.read(1)
        except OSError:
            accepted = b""
        if not accepted:  # it had retired
            code = self._end()
            return code if is_fresh else None
        for _ in sources:
            try:
                results.append(pickle.load(child.stdout))
            except (EOFError, pickle.UnpicklingError):
                code = self._end()
                has_moved_on = not is_fresh or len(results) > before
                return None if code == _RETIRED and has_moved_on else code
        return None

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **_ONE_THREAD, "PYTHONPATH": os.pathsep.join(sys.path)}
        try:
            self._stderr = stderr = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the child)
            child = subprocess.Popen(
                [sys.executable, "-P", "-c", _CHILD],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
                start_new_session=True,  # what the terminal sends on Ctrl-C is for the parent to decide
            )
        except OSError as error:
            if self._stderr is not None:
                self._stderr.close()
                self._stderr = None
            raise MeloFormerError(f"a process that reads files does not start ({error})") from None
        self._child = child
        if self._closed:  # meanwhile, by another thread
            child.kill()
        assert child.stdin is not None
        assert child.stdout is not None
        with suppress(OSError):
            pickle.dump(self._work, child.stdin)
            child.stdin.flush()
        if child.stdout.readline() != _READY:
            code = self._end()
            raise MeloFormerError(f"a process that reads files does not start ({_ending(code)}: {self._last_words})")
        return child

    def _end(self) -> int:
        """Exit code of the child, once it is gone; keeps the last line that it wrote to stderr.

        Raises:
            EOFError: The reader was closed, so its end means nothing.
        """
        child, self._child = self._child, None
        assert child is not None
        for pipe in (child.stdin, child.stdout):
            with suppress(OSError):
                assert pipe is not None
                pipe.close()
        code = child.wait()
        if self._stderr is not None:
            size = self._stderr.seek(0, os.SEEK_END)
            self._stderr.seek(max(size - _TAIL_BYTES, 0))
            lines = self._stderr.read().decode("utf-8", "replace").strip().splitlines()
            self._last_words = lines[-1][:200] if lines else ""
            self._stderr.close()
            self._stderr = None
        if self._closed:
            raise EOFError
        return code


def _reject(source: Source, code: int, work: Work, last_words: str) -> Reject:
    if code == -_number_of("SIGALRM"):
        return Reject(source.name, "timeout", f"it takes longer than {work.settings.pack.timeout_seconds:g} seconds")
    if code == -_number_of("SIGKILL"):
        return Reject(source.name, "too-large", "the system killed its process, as it does when memory runs out")
    return Reject(source.name, "crashed", f"its process ended with {_ending(code)} {last_words}".rstrip())


def _number_of(name: str) -> int:
    """Of a signal that Windows does not have."""
    return int(getattr(signal, name, 2**31))


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def serve() -> None:
    """What the child does: read tasks from stdin, write one result after another to what was stdout."""
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between the results
    tasks = sys.stdin.buffer
    work: Work = pickle.load(tasks)
    _limit_memory(work.settings.pack.worker_memory_mb)
    results.write(_READY)
    results.flush()
    num_read = 0
    while True:
        try:
            sources: list[Source] = pickle.load(tasks)
        except EOFError:
            return
        try:
            results.write(b"+")
            results.flush()
            for source in sources:
                _end_after(work.settings.pack.timeout_seconds)
                result = process_source(source, work)
                _end_after(0)
                if isinstance(result, Reject) and result.message == NO_MEMORY and num_read:
                    os._exit(_RETIRED)  # others have taken some of it: a fresh child decides
                pickle.dump(result, results)
                results.flush()
                num_read += 1
                if _resident_mb() > RETIRES_ABOVE_MB:
                    os._exit(_RETIRED)
        except BrokenPipeError:  # the parent is gone
            os._exit(1)


def _end_after(seconds: float) -> None:
    """Let SIGALRM end this process, which no native code can prevent; 0 for never. Windows has no such thing."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _limit_memory(megabytes: int) -> None:
    """Let allocation fail past a limit, where the system has one for a process's data."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))


def _resident_mb() -> float:
    """Memory that this process holds; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

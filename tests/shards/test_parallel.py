"""Many files: their results in order for any number of workers, and no process outlives the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from meloformer.midi.sources import find_sources
from meloformer.shards import parallel
from meloformer.shards.parallel import process_sources
from meloformer.shards.process import Piece, Work, process_source
from meloformer.tokens.vocabulary import Vocabulary
from tests.shards.conftest import settings_with

pytestmark = pytest.mark.distributed
WORK = Work(settings_with("pack.workers=2"), Vocabulary.default())


def test_workers_give_the_same_results_in_the_same_order(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "FILES_PER_TASK", 2)
    monkeypatch.setattr(parallel, "TASKS_PER_WORKER", 1)
    sources = find_sources([music])
    alone = [process_source(source, WORK) for source in sources]
    together = list(process_sources(iter(sources), WORK))
    assert [result.name for result in together] == [source.name for source in sources]
    for a, b in zip(alone, together, strict=True):
        assert type(a) is type(b)
        if isinstance(a, Piece) and isinstance(b, Piece):
            assert np.array_equal(a.ids, b.ids)
            assert (a.sha256, a.content_key, a.statistics) == (b.sha256, b.content_key, b.statistics)
        else:
            assert a == b


def test_no_more_is_read_ahead_than_the_workers_need(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "FILES_PER_TASK", 2)
    taken = 0

    def endless() -> Iterator[parallel.Source]:
        nonlocal taken
        while True:
            taken += 1
            yield parallel.Source("one", str(music / "good/1.mid"))

    results = process_sources(endless(), WORK)
    for _ in range(5):
        next(results)
    results.close()
    assert taken <= 5 + 2 * 2 * (parallel.TASKS_PER_WORKER + 1)


RUN_WITHOUT_END = """
import sys
from itertools import repeat
from pathlib import Path
from meloformer.midi.sources import Source
from meloformer.settings_file import load_settings
from meloformer.shards.parallel import process_sources
from meloformer.shards.process import Work
from meloformer.tokens.vocabulary import Vocabulary

work = Work(load_settings(None, ["pack.workers=2"]), Vocabulary.default())
for number, _ in enumerate(process_sources(repeat(Source("one", sys.argv[1])), work)):
    if number == 100:
        threads = Path("/proc/self/task").glob("*/children")
        print(*(pid for thread in threads for pid in thread.read_text().split()), flush=True)
"""


@pytest.fixture
def endless_run(music: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process that reads one file for ever with two workers, and their ids; a session of its own."""
    script = tmp_path / "run.py"
    script.write_text(RUN_WITHOUT_END)
    repository = str(Path(parallel.__file__).parents[2])
    run = subprocess.Popen(
        [sys.executable, str(script), str(music / "good/1.mid")],
        env={**os.environ, "PYTHONPATH": repository},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with run:
        assert run.stdout is not None
        workers = [int(pid) for pid in run.stdout.readline().split()]
        yield run, workers
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)


def assert_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 20
    while left := [pid for pid in pids if is_running(pid)]:
        assert time.monotonic() < deadline, f"workers {left} still run"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # one that ended and that nobody waited for still has its number
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="child processes are found in /proc")


@needs_proc
def test_workers_end_when_their_parent_is_killed(endless_run: tuple[subprocess.Popen[str], list[int]]) -> None:
    run, workers = endless_run
    assert len(workers) == 2
    run.kill()
    assert_gone(workers)


@needs_proc
def test_an_interrupt_ends_the_workers_and_only_the_parent_speaks(
    endless_run: tuple[subprocess.Popen[str], list[int]],
) -> None:
    run, workers = endless_run
    assert all(os.getsid(pid) != os.getsid(run.pid) for pid in workers)  # they do not hear the terminal
    os.killpg(run.pid, signal.SIGINT)
    _, errors = run.communicate(timeout=30)
    assert_gone(workers)
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")

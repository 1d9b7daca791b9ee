"""A file that kills, hangs or bloats the process that reads it costs that one file."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from meloformer.errors import MeloFormerError
from meloformer.midi.sources import Source
from meloformer.shards.isolation import RETIRES_ABOVE_MB, IsolatedReader
from meloformer.shards.process import Piece, Reject, Result, Work
from meloformer.tokens.vocabulary import Vocabulary
from tests.shards.conftest import settings_with

pytestmark = pytest.mark.distributed

TROUBLE = """
import os, signal, sys, time

if sys.argv == ["-c"]:
    from meloformer.shards import process

    parse, died = process.parse_source, os.environ["DIED"]
    if "NEVER_RETIRE" in os.environ:
        from meloformer.shards import isolation

        isolation.RETIRES_ABOVE_MB = 10_000

    def parse_with_trouble(source, data, **named):
        trouble = source.name.partition(".")[0]
        if trouble == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif trouble == "abort":
            print("terminate called after throwing", file=sys.stderr)
            os.abort()
        elif trouble == "exit":
            os._exit(3)
        elif trouble == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif trouble == "unlucky" and not os.path.exists(died):
            open(died, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        elif trouble == "hang":
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
            time.sleep(1000)
        elif trouble == "bloat":
            bytearray(8 * 2**30)
        elif trouble == "takes":
            process.held = bytearray(150 * 2**20)
            raise process.RejectError("no-notes", "it took memory")
        elif trouble == "needs":
            bytearray(150 * 2**20)
        elif trouble == "print":
            os.write(1, b"from a library")
        elif trouble == "hold":
            process.held = b"x" * (300 * 2**20)
        return parse(source, data, **named)

    process.parse_source = parse_with_trouble
"""


@pytest.fixture
def trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes the name of a file decide what happens to the child process that reads it."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(TROUBLE)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("DIED", str(tmp_path / "died"))
    return tmp_path


def read(names: list[str], music: Path, *changes: str) -> list[Result]:
    sources = [Source(name, str(music / "good/1.mid")) for name in names]
    with IsolatedReader(Work(settings_with(*changes), Vocabulary.default())) as reader:
        results = reader.process(sources)
    assert [result.name for result in results] == names
    return results


@pytest.mark.usefixtures("trouble")
@pytest.mark.parametrize(
    ("name", "reason", "message"),
    [
        ("segfault", "crashed", "its process ended with SIGSEGV"),
        ("abort", "crashed", "its process ended with SIGABRT terminate called after throwing"),
        ("exit", "crashed", "its process ended with exit code 3"),
        ("killed", "too-large", "the system killed its process"),
        ("hang", "timeout", "it takes longer than 0.5 seconds"),
        ("bloat", "too-large", "it needs more memory than there is"),
    ],
)
def test_a_file_that_its_process_dies_of_is_a_reject_and_its_neighbours_are_not(
    music: Path, name: str, reason: str, message: str
) -> None:
    before, culprit, *after = read(
        ["before", f"{name}.mid", "after", "last"], music, "pack.timeout_seconds=0.5", "pack.worker_memory_mb=400"
    )
    assert isinstance(before, Piece)
    assert isinstance(culprit, Reject)
    assert culprit.reason == reason
    assert culprit.message.startswith(message)
    assert [type(result) for result in after] == [Piece, Piece]


@pytest.mark.usefixtures("trouble")
def test_every_culprit_of_a_task_is_found(music: Path) -> None:
    results = read(["segfault.1", "good", "segfault.2", "exit.3", "fine"], music)
    assert [isinstance(result, Piece) for result in results] == [False, True, False, False, True]


@pytest.mark.usefixtures("trouble")
def test_a_process_that_dies_of_something_else_costs_nothing(music: Path) -> None:
    assert all(isinstance(result, Piece) for result in read(["good", "unlucky", "fine"], music))


@pytest.mark.usefixtures("trouble")
@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux")
def test_whether_a_file_is_too_large_does_not_depend_on_those_before_it(
    music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEVER_RETIRE", "1")
    results = read(["takes", "needs", "takes"], music, "pack.worker_memory_mb=300")
    assert [isinstance(result, Piece) for result in results] == [False, True, False]
    assert [result.reason for result in results if isinstance(result, Reject)] == ["no-notes", "no-notes"]


@pytest.mark.usefixtures("trouble")
def test_what_a_library_prints_does_not_come_between_the_results(music: Path) -> None:
    assert all(isinstance(result, Piece) for result in read(["print", "fine"], music))


@pytest.mark.usefixtures("trouble")
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_a_process_that_holds_much_memory_is_replaced(music: Path) -> None:
    sources = [Source(name, str(music / "good/1.mid")) for name in ("good", "hold", "fine")]
    with IsolatedReader(Work(settings_with(), Vocabulary.default())) as reader:
        pids = []
        for source in sources:
            assert isinstance(reader.process([source])[0], Piece)
            pids.append(reader.pid)
    assert RETIRES_ABOVE_MB < 300
    assert pids[0] == pids[1] != pids[2]


def test_a_process_that_does_not_start_is_an_error_and_not_a_thousand_rejects(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nif sys.argv == ['-c']: raise SystemExit('no such luck')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MeloFormerError, match="does not start"):
        read(["good"], music)


@pytest.mark.usefixtures("trouble")
def test_closing_ends_a_process_that_hangs(music: Path) -> None:
    reader = IsolatedReader(Work(settings_with(), Vocabulary.default()))
    errors: list[BaseException] = []

    def process() -> None:
        try:
            reader.process([Source("hang", str(music / "good/1.mid"))])
        except EOFError as error:
            errors.append(error)

    thread = threading.Thread(target=process)
    thread.start()
    until = time.monotonic() + 20
    while reader.pid is None and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.3)
    pid = reader.pid
    assert pid is not None
    reader.close()
    thread.join(timeout=20)
    assert not thread.is_alive()
    assert len(errors) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)

"""One file: a piece or a reject, whatever happens; many files: in order, for any number of workers."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from meloformer.errors import MeloFormerError
from meloformer.midi.sources import Source, find_sources
from meloformer.shards import process
from meloformer.shards.process import Piece, Reject, Work, process_source, process_sources
from meloformer.tokens.encode import encode
from meloformer.tokens.vocabulary import TokenType, Vocabulary
from tests.shards.conftest import settings_with

WORK = Work(settings_with(), Vocabulary.default())


@pytest.fixture
def source(music: Path) -> Source:
    return Source("one", music / "good/1.mid")


def test_a_good_file_becomes_a_piece_that_knows_where_it_came_from(source: Source) -> None:
    piece = process_source(source, WORK)
    assert isinstance(piece, Piece)
    assert piece.name == "one"
    assert piece.sha256 == hashlib.sha256(source.path.read_bytes()).hexdigest()
    assert (Vocabulary.default().types[piece.ids] == TokenType.PITCH).sum() == piece.statistics.notes
    assert piece.ids.dtype == np.uint16


@pytest.mark.parametrize("error", [ValueError("odd"), RecursionError(), MemoryError(), AssertionError("x" * 1000)])
def test_any_exception_costs_that_one_file(source: Source, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_args: object, **_named: object) -> None:
        raise error

    monkeypatch.setattr(process, "parse_source", fail)
    reject = process_source(source, WORK)
    assert isinstance(reject, Reject)
    assert reject.reason == "crashed"
    assert reject.message.startswith(type(error).__name__)
    assert len(reject.message) <= 200
    assert reject.sha256 is not None


def test_an_interrupt_is_not_taken_for_a_bad_file(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_args: object, **_named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(process, "parse_source", interrupt)
    with pytest.raises(KeyboardInterrupt):
        process_source(source, WORK)


def test_a_large_file_is_not_even_read(source: Source) -> None:
    reject = process_source(source, Work(settings_with("filter.max_file_bytes=100"), Vocabulary.default()))
    assert isinstance(reject, Reject)
    assert (reject.reason, reject.sha256) == ("too-large", None)


def test_a_piece_that_a_pruned_vocabulary_cannot_write_is_a_reject(source: Source, music: Path) -> None:
    full = Vocabulary.default()
    piece = process_source(source, WORK)
    assert isinstance(piece, Piece)
    own = full.pruned(np.bincount(piece.ids, minlength=len(full)))
    assert isinstance(process_source(source, Work(settings_with(), own)), Piece)
    other = process_source(Source("other", music / "good/3.mid"), Work(settings_with(), own))
    assert isinstance(other, Reject)
    assert other.reason == "not-in-vocabulary"


def test_settings_reach_the_tokens(source: Source) -> None:
    plain = process_source(source, Work(settings_with("tokens.chords=false"), Vocabulary.default()))
    assert isinstance(plain, Piece)
    chords = plain.ids[Vocabulary.default().types[plain.ids] == TokenType.CHORD]
    assert set(chords.tolist()) == {Vocabulary.default().id_of("N")}
    with_chords = process_source(source, WORK)
    assert isinstance(with_chords, Piece)
    assert len(with_chords.ids) == len(plain.ids)
    assert not np.array_equal(with_chords.ids, plain.ids)
    assert len(encode_names(with_chords)) > 1


def encode_names(piece: Piece) -> set[str]:
    vocabulary = Vocabulary.default()
    return {vocabulary.names[i] for i in piece.ids if vocabulary.types[i] == TokenType.CHORD}


def test_workers_give_the_same_results_in_the_same_order(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "FILES_PER_TASK", 2)
    monkeypatch.setattr(process, "TASKS_PER_WORKER", 1)
    sources = find_sources([music])
    alone = list(process_sources(sources, WORK))
    together = list(process_sources(iter(sources), Work(settings_with("pack.workers=2"), Vocabulary.default())))
    assert [result.name for result in alone] == [source.name for source in sources]
    for a, b in zip(alone, together, strict=True):
        assert type(a) is type(b)
        if isinstance(a, Piece) and isinstance(b, Piece):
            assert np.array_equal(a.ids, b.ids)
            assert (a.sha256, a.content_key, a.statistics) == (b.sha256, b.content_key, b.statistics)
        else:
            assert a == b


def test_a_worker_that_dies_ends_the_run_and_names_its_files(source: Source) -> None:
    future: Future[list[Piece | Reject]] = Future()
    future.set_exception(BrokenProcessPool())
    with pytest.raises(MeloFormerError, match=r"a worker process died; its file may be one of one, or"):
        process._results([source], future)


RUN_WITHOUT_END = """
import multiprocessing, sys
from itertools import repeat
from pathlib import Path
from meloformer.midi.sources import Source
from meloformer.settings_file import load_settings
from meloformer.shards.process import Work, process_sources
from meloformer.tokens.vocabulary import Vocabulary

if __name__ == "__main__":
    work = Work(load_settings(None, ["pack.workers=2"]), Vocabulary.default())
    for number, _ in enumerate(process_sources(repeat(Source("one", Path(sys.argv[1]))), work)):
        if number == 50:
            print(*(child.pid for child in multiprocessing.active_children()), flush=True)
"""


@pytest.fixture
def endless_run(source: Source, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process that reads one file for ever with two workers, and their ids; a session of its own."""
    script = tmp_path / "run.py"
    script.write_text(RUN_WITHOUT_END)
    repository = str(Path(process.__file__).parents[2])
    run = subprocess.Popen(
        [sys.executable, str(script), str(source.path)],
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


@pytest.mark.distributed
def test_workers_end_when_their_parent_is_killed(endless_run: tuple[subprocess.Popen[str], list[int]]) -> None:
    run, workers = endless_run
    assert len(workers) == 2
    run.kill()
    assert_gone(workers)


@pytest.mark.distributed
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="signal masks are read from /proc")
def test_workers_are_deaf_to_interrupts_from_their_first_moment(
    endless_run: tuple[subprocess.Popen[str], list[int]],
) -> None:
    def blocks_interrupts(pid: int) -> bool:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        blocked = int(next(line for line in lines if line.startswith("SigBlk")).split()[1], 16)
        return bool(blocked & 1 << (signal.SIGINT - 1))

    run, workers = endless_run
    assert [blocks_interrupts(pid) for pid in workers] == [True, True]
    deadline = time.monotonic() + 20
    while blocks_interrupts(run.pid):  # until it has started the last worker
        assert time.monotonic() < deadline, "the parent stays deaf"
        time.sleep(0.02)


@pytest.mark.distributed
def test_an_interrupt_ends_the_workers_and_only_the_parent_speaks(
    endless_run: tuple[subprocess.Popen[str], list[int]],
) -> None:
    run, workers = endless_run
    os.killpg(run.pid, signal.SIGINT)  # what a terminal does: to all of them
    _, errors = run.communicate(timeout=30)
    assert_gone(workers)
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")


def test_encoding_a_piece_here_equals_the_public_function(source: Source) -> None:
    from meloformer.midi.read import read_midi

    piece = process_source(source, WORK)
    assert isinstance(piece, Piece)
    assert np.array_equal(piece.ids, encode(read_midi(source.path)))

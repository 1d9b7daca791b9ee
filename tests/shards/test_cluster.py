"""A real Dask cluster on the loopback writes the same bytes, also when one of its workers is killed midway."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from meloformer.errors import MeloFormerError
from meloformer.shards import cluster, parallel
from meloformer.shards.pipeline import pack_pieces
from meloformer.tokens.vocabulary import Vocabulary
from tests.shards.conftest import bytes_in, settings_with

pytestmark = pytest.mark.distributed
pytest.importorskip("distributed", reason="a cluster needs the extra meloformer[cluster]")
NUM_WORKERS = 2
SLOW_READER = """
import sys, time

if sys.argv == ["-c"]:
    from meloformer.shards import process

    parse = process.parse_source

    def parse_slowly(source, data, **named):
        time.sleep(0.2)
        return parse(source, data, **named)

    process.parse_source = parse_slowly
"""


@pytest.fixture(scope="module")
def dask_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """The address of a scheduler, and its two workers, which read slowly."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "sitecustomize.py").write_text(SLOW_READER)
    repository = str(Path(cluster.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{repository}"}
    facts = folder / "scheduler.json"

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", *arguments, "--scheduler-file", str(facts), "--host", "127.0.0.1"]
        with (folder / f"{arguments[0]}.log").open("ab") as log:
            return subprocess.Popen([*command, "--no-dashboard"], env=environment, cwd=folder, stdout=log, stderr=log)

    processes = [start("scheduler", "--port", "0")]
    try:
        until = time.monotonic() + 30
        while not facts.exists() or not facts.read_text():
            assert time.monotonic() < until, "no scheduler"
            time.sleep(0.05)
        workers = [start("worker", "--no-nanny", "--nthreads", "1") for _ in range(NUM_WORKERS)]
        processes += workers
        address = json.loads(facts.read_text())["address"]
        wait_for_workers(address, NUM_WORKERS)
        yield address, workers
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()


def wait_for_workers(address: str, count: int) -> None:
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=60)


@pytest.mark.filterwarnings("default")  # of distributed's own sockets
def test_a_cluster_writes_the_same_bytes_also_when_a_worker_is_killed(
    music: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dask_cluster: tuple[str, list[subprocess.Popen[bytes]]],
) -> None:
    address, workers = dask_cluster
    monkeypatch.setattr(parallel, "FILES_PER_TASK", 1)
    monkeypatch.setattr(parallel, "TASKS_PER_WORKER", 3)

    def kill_one(done: int, _total: int) -> None:
        if done == 5:
            workers[0].kill()

    pack_pieces([music], tmp_path / "here", settings_with("pack.val_share=0.3"))
    settings = settings_with("pack.val_share=0.3", f"pack.scheduler={address}")
    report = pack_pieces([music], tmp_path / "there", settings, progress=kill_one)
    assert workers[0].wait(timeout=20) != 0
    assert workers[1].poll() is None
    assert report.kept > 0
    assert bytes_in(tmp_path / "here") == bytes_in(tmp_path / "there")


@pytest.mark.filterwarnings("default")
def test_an_address_where_nobody_answers_is_one_clear_line(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        with pytest.raises(MeloFormerError, match=f"no scheduler answers at {address}"):
            pack_pieces([music], tmp_path / "out", settings_with(f"pack.scheduler={address}"))


def test_a_worker_with_another_version_is_refused() -> None:
    with pytest.raises(MeloFormerError, match=r"a worker has MeloFormer .*, this command 0\.0\.0"):
        cluster.process_on_worker("0.0.0", parallel.Work(settings_with(), Vocabulary.default()), [])

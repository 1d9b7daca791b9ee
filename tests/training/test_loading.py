"""Passes made ready ahead are the passes that would have been made in place."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from meloformer.errors import RankError
from meloformer.model.batch import Batch
from meloformer.model.layout import Layout
from meloformer.model.nested import map_nested, to_arrays, to_tensors
from meloformer.settings import ModelSettings, Settings
from meloformer.training.distributed import Ranks
from meloformer.training.loading import Pass, Rows, num_workers, prepared_passes
from meloformer.training.loop import train
from meloformer.training.plan import make_plan
from tests.cli.conftest import REPOSITORY
from tests.training.conftest import TINY
from tests.training.test_loop import losses_of, settings_with

CPU = torch.device("cpu")
PIPE_BYTES = 2**16
"""What a pipe holds before the one who writes has to wait."""


def tensors_of(value: object) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    map_nested(value, torch.Tensor, found.append)
    return found


def child_processes() -> set[int]:
    """Of this process, and theirs."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().rpartition(")")
        except OSError:  # it has just ended
            continue
        parents[int(name.split()[0])] = int(rest.split()[1])
    found = {os.getpid()}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def is_asleep(process: int) -> bool:
    """Whether all threads of a process wait for something, and go on doing so."""

    def states() -> set[str]:
        stats = (stat.read_text() for stat in Path(f"/proc/{process}/task").glob("*/stat"))
        return {stat.rpartition(")")[2].split()[0] for stat in stats}

    def seconds() -> str:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11]

    before = seconds()
    time.sleep(0.2)
    return states() == {"S"} and seconds() == before


def wait_until(is_so: Callable[[], bool], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_passes_come_in_the_same_order_from_workers_who_end_with_the_block_and_a_dead_one_is_told(
    tiny_shards: Path, tiny_settings: Settings
) -> None:
    plan = make_plan(tiny_shards, tiny_settings)
    model = ModelSettings.of_size("tiny", attention="sparse")
    rows = Rows(plan.training.num_rows - 3, 4, 2)
    with prepared_passes(plan.training, rows, model, CPU, workers=0) as passes:
        in_place = [next(passes) for _ in range(5)]
    before = child_processes()
    with prepared_passes(plan.training, rows, model, CPU, workers=2) as passes:
        for wanted in in_place:
            found = next(passes)
            assert found.layout is not None
            pairs = list(zip(tensors_of(found), tensors_of(wanted), strict=True))
            assert len(pairs) > 20
            assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)
        readers = child_processes() - before
        for reader in readers:
            os.kill(reader, signal.SIGINT)  # as Ctrl-C does to all processes of a terminal
        assert len(pickle.dumps(to_arrays(next(passes)))) > PIPE_BYTES
        wait_until(lambda: all(map(is_asleep, readers)))  # one of them in the middle of a message
        youngest = max(readers)
        os.kill(youngest, signal.SIGKILL)
        with pytest.raises(RankError, match="process that reads ahead has ended"):
            list(islice(passes, 100))
    wait_until(lambda: len(child_processes() - before) <= 1)  # multiprocessing's tracker of resources stays


@pytest.mark.slow
def test_a_run_with_workers_has_the_losses_of_one_without(tiny_shards: Path, tmp_path: Path) -> None:
    train(tiny_shards, tmp_path / "none", settings_with())
    train(tiny_shards, tmp_path / "one", settings_with("training.workers=1"))
    assert losses_of(tmp_path / "one") == losses_of(tmp_path / "none")


@pytest.mark.parametrize("attention", ["dense", "sparse", "flex"])
def test_every_layout_survives_the_way_between_processes(attention: str) -> None:
    settings = ModelSettings.of_size("tiny", attention=attention)
    batch = Batch.of([np.array([1, 20, 21, 2])] * 2)
    layout = Layout.of(batch, settings)
    again = to_tensors(to_arrays(Pass(batch, layout)), "cpu")
    assert type(again.layout) is Layout
    pairs = list(zip(tensors_of(again), tensors_of(Pass(batch, layout)), strict=True))
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)


def test_auto_chooses_for_the_device_of_the_model_wherever_the_layout_is_made() -> None:
    settings = ModelSettings.of_size("tiny")
    batch = Batch.of([np.array([1, 20, 21, 2])], length=1024)
    assert type(Layout.of(batch, settings).path).__name__ == "SparsePath"
    assert type(Layout.of(batch, settings, device=torch.device("cuda")).path).__name__ == "FlexPath"


def test_the_rows_of_all_ranks_are_those_of_one() -> None:
    def steps(ranks: int, batch_size: int, count: int = 3) -> list[list[int]]:
        found: list[list[int]] = [[] for _ in range(count)]
        for rank in range(ranks):
            rows = Rows(5, 6, batch_size, Ranks(rank, ranks))
            passes = iter(rows)
            for step in found:
                for _ in range(rows.passes_per_step):
                    ours = next(passes)
                    assert len(ours) <= batch_size
                    step += ours
        return found

    wanted = [list(range(start, start + 6)) for start in (5, 11, 17)]
    assert steps(1, 6) == steps(1, 2) == steps(2, 3) == steps(2, 2) == steps(4, 1) == steps(6, 9) == wanted


def test_workers_are_as_many_as_wished_and_by_default_leave_the_cores_to_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = torch.device("cuda")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(16)), raising=False)
    assert num_workers(3, CPU) == 3
    assert num_workers(0, cuda) == 0
    assert num_workers(None, CPU) == 1
    assert num_workers(None, cuda) == 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert num_workers(None, cuda, Ranks(0, 8)) == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0}, raising=False)
    assert num_workers(None, CPU) == 0
    assert num_workers(None, cuda) == 1


@pytest.mark.slow
def test_no_worker_outlives_a_run_that_is_killed(tiny_shards: Path, tmp_path: Path) -> None:
    words = [word for text in (*TINY, "training.workers=2", "training.steps=100000") for word in ("--set", text)]
    process = subprocess.Popen(
        [sys.executable, "-m", "meloformer", "train", str(tiny_shards), "--out", str(tmp_path / "run"), *words],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
    )
    until = time.monotonic() + 60
    while time.monotonic() < until and not ((tmp_path / "run/metrics.jsonl").is_file() and losses_of(tmp_path / "run")):
        time.sleep(0.1)
    process.kill()
    process.communicate(timeout=30)  # stderr ends when nobody has it any more

"""Passes made ready ahead are the passes that would have been made in place."""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from meloformer.errors import RankError
from meloformer.model.batch import Batch
from meloformer.model.layout import Layout
from meloformer.model.nested import map_nested, to_arrays, to_tensors
from meloformer.settings import ModelSettings
from meloformer.training.distributed import Ranks
from meloformer.training.loading import AHEAD, Pass, Rows, num_workers, prepared_passes
from meloformer.training.loop import train
from meloformer.training.plan import make_plan
from tests.training.conftest import Start
from tests.training.runs import losses_of, num_steps, settings_with, wait_until

CPU = torch.device("cpu")
PIPE_BYTES = 2**16
"""What a pipe holds before the one who writes has to wait."""
needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="processes are looked at in /proc")


def tensors_of(value: object) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    map_nested(value, torch.Tensor, found.append)
    return found


def child_processes() -> set[int]:
    """Of this process, and theirs; without multiprocessing's tracker of resources, which stays."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().rpartition(")")
            if "resource_tracker" in stat.with_name("cmdline").read_text():
                continue
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

    def ticks() -> int:
        """Of a processor, in programs and in the kernel."""
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    time.sleep(0.2)
    return states() == {"S"} and ticks() == before


Prepare = Callable[[int], AbstractContextManager[Iterator[Pass]]]


@pytest.fixture(scope="module")
def prepare(tiny_shards: Path) -> Prepare:
    """Passes over the same rows, made by so many workers."""
    plan = make_plan(tiny_shards, settings_with())
    rows = Rows(plan.training.num_rows - 3, 4, 2)
    model = ModelSettings.of_size("tiny", attention="sparse")
    return lambda workers: prepared_passes(plan.training, rows, model, CPU, workers=workers)


@dataclass
class Ahead:
    """Passes that two workers make, and the workers."""

    passes: Iterator[Pass]
    workers: set[int]


@pytest.fixture(scope="module")
def ahead(prepare: Prepare) -> Iterator[Ahead]:
    before = child_processes()
    with prepare(2) as passes:
        yield Ahead(passes, child_processes() - before)


def same(one: Pass, other: Pass) -> bool:
    pairs = list(zip(tensors_of(one), tensors_of(other), strict=True))
    return len(pairs) > 20 and all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)


@needs_proc
def test_passes_come_from_workers_in_the_order_in_which_they_would_be_made(prepare: Prepare, ahead: Ahead) -> None:
    with prepare(0) as passes:
        in_place = list(islice(passes, 5))
    made_ahead = list(islice(ahead.passes, 5))
    assert all(each.layout is not None for each in made_ahead)
    assert [[same(one, other) for other in in_place] for one in made_ahead] == np.eye(5, dtype=bool).tolist()


@needs_proc
def test_workers_leave_ctrl_c_to_the_one_who_started_them(ahead: Ahead) -> None:
    for worker in ahead.workers:
        os.kill(worker, signal.SIGINT)  # as Ctrl-C does to all processes of a terminal
    assert len(list(islice(ahead.passes, 3 * AHEAD))) == 3 * AHEAD  # more than was ready
    assert ahead.workers <= child_processes()


@needs_proc
def test_a_worker_that_dies_in_the_middle_of_a_message_is_told_and_none_is_left(prepare: Prepare) -> None:
    before = child_processes()
    with prepare(1) as passes:
        assert len(pickle.dumps(to_arrays(next(passes)))) > PIPE_BYTES
        (worker,) = child_processes() - before
        wait_until(lambda: is_asleep(worker), 60)  # with half a message in the pipe
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(RankError, match="process that reads ahead has ended"):
            list(islice(passes, 100))
    wait_until(lambda: child_processes() <= before, 60)


@needs_proc
def test_workers_end_with_the_block_though_they_have_more_to_do(prepare: Prepare) -> None:
    before = child_processes()
    with prepare(1) as passes:
        next(passes)
        assert child_processes() - before
    wait_until(lambda: child_processes() <= before, 60)


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


@needs_proc
@pytest.mark.slow
def test_no_worker_outlives_a_run_that_is_killed(tiny_shards: Path, tmp_path: Path, start_training: Start) -> None:
    before = child_processes()
    process = start_training(tiny_shards, tmp_path / "run", "training.workers=2", "training.steps=100000")
    wait_until(lambda: num_steps(tmp_path / "run") > 0, 300)
    assert len(child_processes() - before - {process.pid}) == 2
    process.kill()
    process.communicate(timeout=60)  # stderr ends when nobody has it any more
    assert process.returncode == -signal.SIGKILL

"""Several processes train as one does; none is left behind, and no step is lost."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from meloformer.errors import SettingsError
from meloformer.settings_file import load_settings
from meloformer.training.distributed import Ranks, command_to_go_on
from meloformer.training.loop import train
from tests.training.conftest import TINY, Start
from tests.training.runs import checkpoints, losses_of, num_steps, position_of, wait_until

pytestmark = pytest.mark.distributed
WITHOUT_SUMMARIES = "model.heads={track=2,onset=2}"
LONG = ("training.steps=100000", "training.checkpoint_every=100000", "training.eval_every=100000")
PATIENCE_SECONDS = 300
"""On two cores that have other work too."""


class Job:
    """Processes as torchrun starts them.

    Args:
        start: Starts one, told its variables.
        size: How many.
    """

    def __init__(self, start: Callable[..., subprocess.Popen[str]], size: int) -> None:
        self._start, self._size = start, size
        self.ranks, self._was_begun_again = self._started(), False

    def _started(self) -> list[subprocess.Popen[str]]:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = str(free.getsockname()[1])
        size = str(self._size)
        at = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
        return [self._start(**at, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(self._size)]

    def _is_begun_again(self, errors: str) -> bool:
        """Whether all were started anew, since someone took the port before the first rank did; once only."""
        if self._was_begun_again or "EADDRINUSE" not in errors:
            return False
        for rank in self.ranks:
            rank.kill()
        self.ranks, self._was_begun_again = self._started(), True
        return True

    def wait_for_steps(self, run: Path, count: int) -> None:
        wait_until(lambda: self.ranks[0].poll() is not None or num_steps(run) >= count, PATIENCE_SECONDS)
        if self.ranks[0].poll() is not None:
            errors = self.ranks[0].communicate()[1]
            assert self._is_begun_again(errors), errors
            self.wait_for_steps(run, count)

    def ended(self) -> list[tuple[int, str, str]]:
        """Exit code, stdout and stderr of every rank."""
        told = [self.ranks[0].communicate(timeout=PATIENCE_SECONDS)]
        if self._is_begun_again(told[0][1]):
            return self.ended()
        told += [rank.communicate(timeout=PATIENCE_SECONDS) for rank in self.ranks[1:]]
        return [(rank.returncode, *texts) for rank, texts in zip(self.ranks, told, strict=True)]


StartRanks = Callable[..., Job]


@pytest.fixture
def start_ranks(start_training: Start) -> StartRanks:
    """Starts so many ranks on shards, which end with the test."""

    def start(size: int, shards: Path, run: Path, *changes: str) -> Job:
        return Job(partial(start_training, shards, run, *changes), size)

    return start


def test_two_ranks_equal_one_with_accumulation_and_one_can_go_on_where_two_stopped(
    tiny_shards: Path, tmp_path: Path, start_ranks: StartRanks
) -> None:
    steps = ("training.steps=20", "training.eval_every=20", "training.checkpoint_every=20")
    train(tiny_shards, tmp_path / "one", load_settings(None, [*TINY, *steps, "training.accumulation=2"]))
    first, second = start_ranks(2, tiny_shards, tmp_path / "two", *steps).ended()
    assert first[0] == second[0] == 0, first[2] + second[2]
    assert losses_of(tmp_path / "two") == pytest.approx(losses_of(tmp_path / "one"), abs=1e-5)
    assert "validation loss" in first[1]
    assert second[1:] == ("", "")
    longer = load_settings(tmp_path / "two/settings.toml", ["training.steps=22"])
    for run in ("one", "two"):
        with pytest.warns(UserWarning, match="a step stays 4 rows, as the run began, and does not become 2"):
            assert train(tiny_shards, tmp_path / run, longer, resume=True).step == 22
    assert losses_of(tmp_path / "two") == pytest.approx(losses_of(tmp_path / "one"), abs=1e-5)
    position = position_of(tmp_path / "two")
    assert (position["step"], position["row"], position["rows_per_step"]) == (22, 88, 4)


@pytest.mark.slow
def test_a_signal_to_one_rank_ends_all_after_the_same_step_with_one_checkpoint(
    tiny_shards: Path, tmp_path: Path, start_ranks: StartRanks
) -> None:
    job = start_ranks(2, tiny_shards, tmp_path / "run", WITHOUT_SUMMARIES, *LONG)
    job.wait_for_steps(tmp_path / "run", 3)
    for _ in range(2):  # torchrun repeats what a terminal has sent already
        job.ranks[1].send_signal(signal.SIGTERM)
    first, second = job.ended()
    assert (first[0], second[0]) == (130, 130), first[2] + second[2]
    assert "torchrun --nproc-per-node 2 -m meloformer train" in first[2]
    assert "--resume" in first[2]
    assert second[1:] == ("", "")
    assert len(checkpoints(tmp_path / "run")) == 1
    position = position_of(tmp_path / "run")
    assert position["step"] == len(losses_of(tmp_path / "run"))
    assert position["row"] == 4 * position["step"]


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_job_with_one_line_and_no_step_is_lost(
    tiny_shards: Path, tmp_path: Path, start_ranks: StartRanks
) -> None:
    job = start_ranks(2, tiny_shards, tmp_path / "run", *LONG)
    job.wait_for_steps(tmp_path / "run", 3)
    job.ranks[1].kill()
    first, _ = job.ended()
    assert first[0] == 1
    (line,) = [line for line in first[2].splitlines() if line.startswith("error: ")]
    assert "another process of this run has ended; go on with: torchrun --nproc-per-node 2" in line
    assert "Traceback" not in first[2]
    assert position_of(tmp_path / "run")["step"] == len(losses_of(tmp_path / "run"))


def test_the_rows_of_a_step_are_shared_whatever_the_number_of_ranks() -> None:
    for size in (1, 2, 3, 5, 8):
        shares = [Ranks(rank, size).share(range(100, 108)) for rank in range(size)]
        assert [row for share in shares for row in share] == list(range(100, 108))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_ranks_without_a_row_and_devices_that_cannot_be_shared_are_refused() -> None:
    from meloformer.training.plan import refuse_idle_ranks

    refuse_idle_ranks(Ranks(0, 4), 4)
    with pytest.raises(SettingsError, match="5 processes cannot share the 4 rows of a step of this run; start 4 at"):
        refuse_idle_ranks(Ranks(0, 5), 4)
    with pytest.raises(SettingsError, match="2 processes cannot share device 'cuda:1'"):
        Ranks(0, 2).device("cuda:1")


def test_the_command_to_go_on_names_torchrun_where_there_are_several_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    said = [command_to_go_on(Path("my shards"), Path("runs/x"), Ranks(0, size)) for size in (1, 8)]
    assert said[0] == "meloformer train 'my shards' --out runs/x --resume"
    assert said[1] == "torchrun --nproc-per-node 8 -m meloformer train 'my shards' --out runs/x --resume"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert "--nproc-per-node 4 " in command_to_go_on(Path("s"), Path("r"), Ranks(0, 8))
    assert "on every node" in command_to_go_on(Path("s"), Path("r"), Ranks(0, 8))

"""Several processes train as one does; none is left behind, and no step is lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from meloformer.errors import SettingsError
from meloformer.settings_file import load_settings
from meloformer.training.distributed import Ranks, command_to_go_on
from meloformer.training.loop import train
from tests.cli.conftest import REPOSITORY
from tests.training.conftest import TINY
from tests.training.test_loop import losses_of

pytestmark = pytest.mark.distributed
WITHOUT_SUMMARIES = "model.heads={track=2,onset=2}"
LONG = ("training.steps=100000", "training.checkpoint_every=100000", "training.eval_every=100000")


def start_ranks(size: int, shards: Path, run: Path, *changes: str, resume: bool = False) -> list[subprocess.Popen[str]]:
    """Start the program as torchrun does."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    words = [word for text in (*TINY, *changes) for word in ("--set", text)]
    command = [sys.executable, "-m", "meloformer", "train", str(shards), "--out", str(run), *words]
    environment = os.environ | {
        "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "localhost", "MASTER_PORT": str(port),
    }  # fmt: skip
    return [
        subprocess.Popen(
            [*command, *(["--resume"] if resume else [])],
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]


def ended(ranks: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of every rank."""
    told = [rank.communicate(timeout=120) for rank in ranks]
    return [(rank.returncode, *texts) for rank, texts in zip(ranks, told, strict=True)]


def wait_for_steps(run: Path, count: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if (run / "metrics.jsonl").is_file() and len(losses_of(run)) >= count:
            return
        time.sleep(0.05)
    raise TimeoutError(f"{run} took no {count} steps")


def position_of(run: Path) -> dict[str, int]:
    (state,) = (run / "checkpoints").glob("step-*/state.json")
    return json.loads(state.read_text())["position"]


def test_two_ranks_equal_one_with_accumulation_and_one_can_go_on_where_two_stopped(
    tiny_shards: Path, tmp_path: Path
) -> None:
    steps = ("training.steps=20", "training.eval_every=20", "training.checkpoint_every=20")
    train(tiny_shards, tmp_path / "one", load_settings(None, [*TINY, *steps, "training.accumulation=2"]))
    first, second = ended(start_ranks(2, tiny_shards, tmp_path / "two", *steps))
    assert first[0] == second[0] == 0, first[2] + second[2]
    assert losses_of(tmp_path / "two") == pytest.approx(losses_of(tmp_path / "one"), abs=1e-5)
    assert "validation loss" in first[1]
    assert second[1:] == ("", "")
    longer = load_settings(tmp_path / "two/settings.toml", ["training.steps=22"])
    for run in ("one", "two"):
        with pytest.warns(UserWarning, match="a step stays 4 rows, as the run began, and does not become 2"):
            assert train(tiny_shards, tmp_path / run, longer, resume=True).step == 22
    assert losses_of(tmp_path / "two") == pytest.approx(losses_of(tmp_path / "one"), abs=1e-5)
    assert position_of_newest(tmp_path / "two") == {"step": 22, "row": 88, "rows_per_step": 4}


def position_of_newest(run: Path) -> dict[str, int]:
    position = json.loads((run / "checkpoints/step-000022/state.json").read_text())["position"]
    return {name: position[name] for name in ("step", "row", "rows_per_step")}


@pytest.mark.slow
def test_a_signal_to_one_rank_ends_all_after_the_same_step_with_one_checkpoint(
    tiny_shards: Path, tmp_path: Path
) -> None:
    ranks = start_ranks(2, tiny_shards, tmp_path / "run", WITHOUT_SUMMARIES, *LONG)
    wait_for_steps(tmp_path / "run", 3)
    for _ in range(2):  # torchrun repeats what a terminal has sent already
        ranks[1].send_signal(signal.SIGTERM)
    first, second = ended(ranks)
    assert (first[0], second[0]) == (130, 130), first[2] + second[2]
    assert "torchrun --nproc-per-node 2 -m meloformer train" in first[2]
    assert "--resume" in first[2]
    assert second[1:] == ("", "")
    position = position_of(tmp_path / "run")
    assert position["step"] == len(losses_of(tmp_path / "run"))
    assert position["row"] == 4 * position["step"]


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_job_with_one_line_and_no_step_is_lost(tiny_shards: Path, tmp_path: Path) -> None:
    ranks = start_ranks(2, tiny_shards, tmp_path / "run", *LONG)
    wait_for_steps(tmp_path / "run", 3)
    ranks[1].kill()
    first, _ = ended(ranks)
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

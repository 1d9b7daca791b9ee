"""What only a process of its own can show: pipes and signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from meloformer.midi.read import read_midi
from meloformer.tokens.quantise import quantise
from tests.cli.conftest import REPOSITORY, Run


def test_a_closed_pipe_is_no_error(songs: Path, tmp_path: Path) -> None:
    command = f"{sys.executable} -m meloformer midi2txt {songs / 'song00.mid'} | head -n 1"
    done = subprocess.run(command, shell=True, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "hid 1 grid=12\n"
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_text_goes_through_a_pipe(songs: Path, tmp_path: Path) -> None:
    meloformer = f"{sys.executable} -m meloformer"
    command = f"{meloformer} midi2txt {songs / 'song00.mid'} - | {meloformer} txt2midi - {tmp_path / 'back.mid'}"
    done = subprocess.run(command, shell=True, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert quantise(read_midi(tmp_path / "back.mid")) == quantise(read_midi(songs / "song00.mid"))


def test_an_interrupted_run_is_saved_and_says_how_to_go_on(meloformer: Run, songs: Path, tmp_path: Path) -> None:
    assert meloformer("pack", songs).returncode == 0
    arguments = ["train", "shards", "--size", "tiny", "--seq-len", "128", "--steps", "100000", "--out", "run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "meloformer", *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    until = time.monotonic() + 60
    while time.monotonic() < until and not (metrics.is_file() and metrics.read_text().count("\n") > 2):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "meloformer train shards --out run --resume" in errors
    assert "Traceback" not in errors
    assert output == ""
    assert len(list((tmp_path / "run" / "checkpoints").glob("step-*/state.json"))) == 1

"""``bench`` on a small model: what it prints, what it writes, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from meloformer.bench import compare, memory_report
from meloformer.bench.fits import Fits
from meloformer.errors import OutOfMemoryError
from meloformer.settings import Settings
from tests.cli.conftest import Run

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = ("--size", "tiny", "--device", "cpu")


def json_of(run: Run, *arguments: str | Path) -> dict[str, Any]:
    done = run("bench", *SMALL, *arguments, "--json", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_all_of_it_at_once(meloformer: Run) -> None:
    told = json_of(meloformer, "--seq-len", "128", "--repeats", "2", "--gpu-mem", "2", "--price", "2", "--gpus", "1,4")
    assert told["gpu_mem_gib"] == 2
    assert not told["interrupted"]
    (memory,) = told["memory"]
    assert sum(memory["parts"].values()) == memory["predicted_bytes"] < memory["needed_bytes"]
    assert [fits["checkpointing"] for fits in told["fits"]] == ["none", "ffn", "attention", "full"]
    (recommended,) = told["recommended"]
    assert recommended["step_tokens"] == 131_072
    assert recommended["seq_len"] == 128
    (measured,) = told["throughput"]
    assert measured["tokens_per_second"] == pytest.approx(measured["tokens"] / measured["step_seconds"], rel=1e-3)
    assert measured["weights_bytes"] == 4 * measured["parameters"]
    one, four = told["training_time"][:2]
    assert (one["gpus"], four["gpus"]) == (1, 4)
    assert four["tokens_per_second"] == pytest.approx(4 * 0.9 * one["tokens_per_second"])
    assert four["cost"] == pytest.approx(4 * 2 * four["hours"])
    assert "extrapolated" in four["basis"]


def test_every_combination_has_a_row_and_a_table_fits_into_eighty_columns(meloformer: Run) -> None:
    arguments = ("--predict", "--seq-len", "1024,4096", "--batch-size", "1,2", "--checkpointing", "none,full")
    told = json_of(meloformer, *arguments)
    assert len(told["memory"]) == 8
    assert (told["recommended"][0]["seq_len"], told["recommended"][0]["batch_size"]) == (4096, 2)
    assert "throughput" not in told
    shown = meloformer("bench", *SMALL, *arguments, "--quiet").stdout
    assert "EXTRAPOLATION" in shown
    assert "No GPU here" in shown
    assert max(len(line) for line in shown.splitlines()) <= 80


def test_a_throughput_can_be_stated(meloformer: Run) -> None:
    told = json_of(meloformer, "--predict", "--tokens-per-second", "1000", "--songs", "1000", "--epochs", "3.6")
    stated = told["training_time"][0]
    assert "stated" in stated["basis"]
    assert stated["hours"] == pytest.approx(1000 * 4614 * 3.6 / 1000 / 3600)
    assert [each["basis"] for each in told["training_time"] if "hope" in each["basis"]] == [
        "small, published hope",
        "base, published hope",
        "large, published hope",
    ]


def test_the_recommended_settings_train(meloformer: Run, songs: Path, tmp_path: Path) -> None:
    assert meloformer("pack", songs).returncode == 0
    steps = ("--set", "bench.target_seq_len=1024", "--set", "bench.target_step_tokens=4096")
    done = meloformer("bench", *SMALL, "--predict", "--gpu-mem", "0.8", *steps, "--out", "gpu.toml")
    assert done.returncode == 0, done.stderr
    assert "train --config gpu.toml" in done.stderr
    trained = meloformer("train", "--config", "gpu.toml", "--steps", "1", "--out", "run")
    assert trained.returncode == 0, trained.stderr
    settings = (tmp_path / "run" / "settings.toml").read_text()
    assert "seq_len = 1024" in settings
    assert 'precision = "bf16"' in settings


def test_pictures_and_markdown(meloformer: Run, tmp_path: Path) -> None:
    done = meloformer("bench", *SMALL, "--predict", "--plot", "memory.png", "--markdown", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "memory.png").read_bytes()[:4] == b"\x89PNG"
    assert "| tiny, 4,096 x 1 |" in done.stdout
    assert "\n\n**what fits into 32 GiB, predicted**\n\n|" in done.stdout


def test_settings_side_by_side_and_one_that_needs_too_much(meloformer: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def peak(settings: Settings, *_others: object) -> int:
        if settings.model.checkpointing == "attention":
            raise OutOfMemoryError("too much")
        return {"none": 4000, "full": 1000}[settings.model.checkpointing]

    monkeypatch.setattr(compare, "peak_step_bytes", peak)
    arguments = ("--seq-len", "256", "--repeats", "3", "--compare", "checkpointing=none,attention,full")
    none, attention, full = json_of(meloformer, *arguments)["compare"]
    assert none["time_ratio"] == none["measured_ratio"] == none["predicted_ratio"] == 1
    assert attention["problem"] == "out of memory"
    assert attention["seconds"] == []
    assert attention["predicted_ratio"] < 0.7
    assert full["measured_ratio"] == 0.25
    assert len(full["seconds"]) == 3
    shown = meloformer("bench", *SMALL, *arguments, "--quiet").stdout
    assert "out of memory" in shown
    assert max(len(line) for line in shown.splitlines()) <= 80


@pytest.mark.parametrize("as_json", [False, True])
def test_an_interrupt_prints_what_is_known(meloformer: Run, monkeypatch: pytest.MonkeyPatch, as_json: bool) -> None:
    found: list[Fits] = []

    class Interrupted(Fits):
        @classmethod
        def of(cls, settings: Settings, gpu_bytes: float) -> Fits:
            if len(found) == 2:
                raise KeyboardInterrupt
            found.append(Fits.of(settings, gpu_bytes))
            return found[-1]

    monkeypatch.setattr(memory_report, "Fits", Interrupted)
    done = meloformer("bench", *SMALL, "--predict", *(["--json"] if as_json else []), "--quiet")
    assert done.returncode == 130
    assert "what was known by then is printed" in done.stderr
    if as_json:
        told = json.loads(done.stdout)
        assert told["interrupted"]
        assert [each["checkpointing"] for each in told["fits"]] == ["none", "ffn"]
    else:
        assert "memory of a training step" in done.stdout
        assert f"{found[1].longest_seq_len:,}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--compare", "chekpointing=none,full"), "did you mean checkpointing"),
        (("--compare", "checkpointing=none,half"), "model.checkpointing"),
        (("--seq-len", "1024,long"), "no list of whole numbers"),
        (("--seq-len", "1024,"), "an empty place"),
        (("--gpu-mem", "-3"), "bench.gpu_mem"),
        (("--gpus", "0,8"), "bench.gpus"),
        (("--out", "gpu.json"), "write --out gpu.toml"),
        (("--plot", "picture.txt"), "write --plot picture.png"),
        (("--shards", "nowhere"), "nowhere"),
        (("--out", "gpu.toml", "--gpu-mem", "0.5"), "tiny does not fit into 0.5 GiB"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(meloformer: Run, arguments: tuple[str, ...], said: str) -> None:
    done = meloformer("bench", *SMALL, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert said in line

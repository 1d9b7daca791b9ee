"""Short runs: what they left, and what goes wrong in the middle of them."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from meloformer.model.weights import load
from meloformer.settings import Settings
from meloformer.settings_file import load_settings
from meloformer.shards.format import Shard
from meloformer.training.loss import Evaluation
from tests.training.conftest import TINY

GOLDEN = json.loads(Path(__file__).with_name("golden_loss.json").read_text())
TIMES = ("tokens_per_second", "data_wait")


def settings_with(*changes: str) -> Settings:
    return load_settings(None, [*TINY, *changes])


def records_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses_of(run: Path) -> list[float]:
    return [record["loss"] for record in records_of(run) if "loss" in record]


def without_times(run: Path) -> list[dict[str, Any]]:
    return [{name: record[name] for name in record if name not in TIMES} for record in records_of(run)]


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load(run).state_dict()


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def position_of(run: Path) -> dict[str, Any]:
    """Where the newest checkpoint stands."""
    return json.loads((run / "checkpoints" / checkpoints(run)[-1] / "state.json").read_text())["position"]


def wait_until(is_so: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, f"waited {seconds:g} s in vain"
        time.sleep(0.05)


def num_steps(run: Path) -> int:
    """Lines of the log that end; 0 where there is none yet."""
    log = run / "metrics.jsonl"
    return log.read_text().count("\n") if log.is_file() else 0


class SignalAt:
    """Sends a signal to this process when a step, or the validation after it, is done."""

    def __init__(self, step: int, *, after_validation: bool = False, number: int = signal.SIGINT) -> None:
        self.step = step
        self.after_validation = after_validation
        self.number = number

    def on_start(self, total_steps: int, first_step: int) -> None:  # noqa: ARG002
        if self.step == first_step == 0:
            os.kill(os.getpid(), self.number)

    def on_step(self, step: int, metrics: dict[str, float]) -> None:  # noqa: ARG002
        if step == self.step and not self.after_validation:
            os.kill(os.getpid(), self.number)

    def on_evaluation(self, step: int, validation: Evaluation) -> None:  # noqa: ARG002
        if step == self.step and self.after_validation:
            os.kill(os.getpid(), self.number)

    def on_damage(self, message: str) -> None: ...


def damage(shards: Path, documents: Sequence[int]) -> None:
    """Turn over a byte in the middle of the frames of some training documents."""
    path = shards / "train-00000.hid.zst"
    shard, data = Shard(path), bytearray(path.read_bytes())
    for number in documents:
        data[shard.offsets[number] + (shard.offsets[number + 1] - shard.offsets[number]) // 2] ^= 0xFF
    path.write_bytes(data)


class DamageAt(SignalAt):
    """Damages documents when a step is done, and keeps what is told of them."""

    def __init__(self, step: int, shards: Path, documents: Sequence[int]) -> None:
        super().__init__(-1)
        self.at, self.shards, self.documents = step, shards, documents
        self.told: list[str] = []

    def on_step(self, step: int, metrics: dict[str, float]) -> None:  # noqa: ARG002
        if step == self.at:
            damage(self.shards, self.documents)

    def on_damage(self, message: str) -> None:
        self.told.append(message)

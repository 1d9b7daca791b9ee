"""How fast a training step runs on this machine, and how much memory it takes."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from meloformer.bench.memory import peak_step_bytes
from meloformer.bench.workload import Workload
from meloformer.model.device import choose_device
from meloformer.settings import Settings


@dataclass(frozen=True)
class StepMeasurement:
    """A training step: forward, backward, optimiser. Bytes are bytes, times are seconds."""

    device: str
    parameters: int
    tokens: int
    """Targets in one step."""
    first_step_seconds: float
    """The first step, with everything that is set up once; the first step of all when ``warmup`` is 0."""
    step_seconds: float
    """Median over the repeats, wall clock."""
    step_seconds_min: float
    step_seconds_max: float
    cpu_seconds: float
    """Median process CPU time of a step; on several cores more than its wall time."""
    weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    peak_bytes: int
    """Most memory in use above what was there before the model. On a CPU: growth of the largest resident set of a
    process that does nothing else; on CUDA: the allocator's peak."""

    @property
    def activations_bytes(self) -> int:
        """What the peak holds beside weights, gradients and optimiser: activations, logits and workspace."""
        return max(self.peak_bytes - self.weights_bytes - self.gradients_bytes - self.optimizer_bytes, 0)

    @property
    def tokens_per_second(self) -> float:
        """Targets by the median step."""
        return self.tokens / self.step_seconds

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        derived = {
            "activations_bytes": self.activations_bytes,
            "tokens_per_second": round(self.tokens_per_second, 1),
        }
        return {**asdict(self), **derived}


def measure_step(settings: Settings, shards: Path | None = None) -> StepMeasurement:
    """Take training steps of one model on one batch, and measure.

    Args:
        settings: ``model``; ``bench`` for shape, repeats, device and seed; ``training`` for the optimiser.
        shards: Where the music comes from; ``None`` for music made by rule.
    Raises:
        SettingsError: The device is not there.
        InputError, ShardError: The shards cannot be used.
        MeloFormerError: The measured step was killed.
    """
    chosen = settings.bench
    device = choose_device(chosen.device)
    peak_bytes = peak_step_bytes(settings, shards, device)
    workload = Workload(settings, shards, device)
    walls: list[float] = []
    processes: list[float] = []
    for _ in range(chosen.warmup + chosen.repeats):
        wall, process = time.perf_counter(), time.process_time()
        workload.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        walls.append(time.perf_counter() - wall)
        processes.append(time.process_time() - process)
    measured = walls[chosen.warmup :]
    return StepMeasurement(
        device=_device_name(device),
        parameters=workload.model.parameter_counts()["total"],
        tokens=workload.batch.num_targets,
        first_step_seconds=walls[0],
        step_seconds=statistics.median(measured),
        step_seconds_min=min(measured),
        step_seconds_max=max(measured),
        cpu_seconds=statistics.median(processes[chosen.warmup :]),
        weights_bytes=workload.weights_bytes,
        gradients_bytes=workload.weights_bytes,
        optimizer_bytes=workload.optimizer_bytes,
        peak_bytes=peak_bytes,
    )


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"

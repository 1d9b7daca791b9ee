"""How fast a training step runs on this machine, and how much memory it takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from meloformer.bench.flops import PeakSpeed, StepWork, peak_speed, step_work
from meloformer.bench.memory import capped, peak_step_bytes
from meloformer.bench.workload import Workload
from meloformer.model.device import choose_device
from meloformer.model.layout import Layout
from meloformer.settings import Settings


@dataclass(frozen=True)
class StepMeasurement:
    """A training step: forward, backward, optimiser. Bytes are bytes, times are seconds."""

    device: str
    precision: str
    """``fp32``, or the dtype of autocast."""
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
    work: StepWork
    peak_speed: PeakSpeed

    @property
    def activations_bytes(self) -> int:
        """What the peak holds beside weights, gradients and optimiser: activations, logits and workspace."""
        return max(self.peak_bytes - self.weights_bytes - self.gradients_bytes - self.optimizer_bytes, 0)

    @property
    def setup_seconds(self) -> float:
        """What the first step took longer than the median one: compilation of kernels, on CUDA."""
        return max(self.first_step_seconds - self.step_seconds, 0.0)

    @property
    def tokens_per_second(self) -> float:
        """Targets by the median step."""
        return self.tokens / self.step_seconds

    def utilisation(self) -> dict[str, float]:
        """Model FLOP utilisation in each convention of :class:`~meloformer.bench.flops.StepWork`."""
        return {name: flop / self.step_seconds / self.peak_speed.flops for name, flop in asdict(self.work).items()}

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        derived = {
            "activations_bytes": self.activations_bytes,
            "setup_seconds": self.setup_seconds,
            "tokens_per_second": round(self.tokens_per_second, 1),
            "model_flops_utilisation": {name: round(share, 5) for name, share in self.utilisation().items()},
        }
        return {**asdict(self), "peak_speed": self.peak_speed._asdict(), **derived}


def measure_step(
    settings: Settings, shards: Path | None = None, on_progress: Callable[[int, int], None] | None = None
) -> StepMeasurement:
    """Take training steps of one model on one batch, and measure.

    Args:
        settings: ``model``; ``bench`` for shape, repeats, device and seed; ``training`` for optimiser and precision.
        shards: Where the music comes from; ``None`` for music made by rule.
        on_progress: Told how many steps were taken, of how many.
    Raises:
        SettingsError: The device is not there.
        InputError, ShardError: The shards cannot be used.
        OutOfMemoryError: There is not enough memory.
    """
    chosen = settings.bench
    device = choose_device(chosen.device)
    peak_bytes = peak_step_bytes(settings, shards, device)
    walls: list[float] = []
    processes: list[float] = []
    with capped(settings, device):
        workload = Workload(settings, shards, device)
        for done in range(chosen.warmup + chosen.repeats):
            wall, process = timed_step(workload)
            walls.append(wall)
            processes.append(process)
            if on_progress is not None:
                on_progress(done + 1, chosen.warmup + chosen.repeats)
    measured = walls[chosen.warmup :]
    dtype = workload.precision.dtype or torch.float32
    layout = Layout.of(workload.batch, settings.model, torch.float32)
    return StepMeasurement(
        device=device_name(device),
        precision=str(dtype).rpartition(".")[2],
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
        work=step_work(workload.batch, layout, settings.model, len(workload.model.vocabulary)),
        peak_speed=peak_speed(device, dtype),
    )


def timed_step(workload: Workload) -> tuple[float, float]:
    """Take a step. Returns wall seconds until the device is done, and CPU seconds of the process."""
    wall, process = time.perf_counter(), time.process_time()
    workload.step()
    if workload.model.device.type == "cuda":
        torch.cuda.synchronize(workload.model.device)
    return time.perf_counter() - wall, time.process_time() - process


def device_name(device: torch.device) -> str:
    """What a reader wants to know of it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"

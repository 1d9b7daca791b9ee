"""How fast a training step runs on this machine, and how much memory it takes."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch

from meloformer.bench.music import practice_piece
from meloformer.model.batch import Batch
from meloformer.model.device import choose_device
from meloformer.model.meloformer import MeloFormer
from meloformer.settings import Settings
from meloformer.tokens.encode import encode
from meloformer.training.loss import target_losses
from meloformer.training.optimizer import make_optimizers


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
    """Most memory in use above what the process had before the model was made. On a CPU: growth of the largest
    resident set; on CUDA: the allocator's peak."""

    @property
    def tokens_per_second(self) -> float:
        """Targets by the median step."""
        return self.tokens / self.step_seconds

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {**asdict(self), "tokens_per_second": round(self.tokens_per_second, 1)}


def measure_step(settings: Settings) -> StepMeasurement:
    """Run training steps of ``settings.model`` on made-up music of the shape in ``settings.bench``.

    Raises:
        SettingsError: The device is not there.
    """
    chosen = settings.bench
    device = choose_device(chosen.device)
    torch.manual_seed(chosen.seed)
    batch = _music(chosen.seq_len, chosen.batch_size, chosen.seed, device)
    before = _memory_in_use(device)
    with torch.device(device):
        model = MeloFormer(settings.model)
    optimizers = make_optimizers(model, settings.training)
    walls: list[float] = []
    processes: list[float] = []
    for _ in range(chosen.warmup + chosen.repeats):
        wall, process = time.perf_counter(), time.process_time()
        loss = target_losses(model(batch), batch).mean()
        loss.backward()
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        walls.append(time.perf_counter() - wall)
        processes.append(time.process_time() - process)
    measured = walls[chosen.warmup :]
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return StepMeasurement(
        device=_device_name(device),
        parameters=model.parameter_counts()["total"],
        tokens=batch.num_targets,
        first_step_seconds=walls[0],
        step_seconds=statistics.median(measured),
        step_seconds_min=min(measured),
        step_seconds_max=max(measured),
        cpu_seconds=statistics.median(processes[chosen.warmup :]),
        weights_bytes=weights,
        gradients_bytes=weights,
        optimizer_bytes=sum(_state_bytes(optimizer) for optimizer in optimizers.values()),
        peak_bytes=_memory_peak(device) - before,
    )


def _music(seq_len: int, batch_size: int, seed: int, device: torch.device) -> Batch:
    rows = []
    for row in range(batch_size):
        bars = 16
        ids = encode(practice_piece(seed + row, num_bars=bars))
        while len(ids) < seq_len:
            bars *= 2
            ids = encode(practice_piece(seed + row, num_bars=bars))
        rows.append(ids[:seq_len])
    return Batch.of(rows, device=device)


def _memory_in_use(device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    return _memory_peak(device)


def _memory_peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): kilobytes on Linux, bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _state_bytes(optimizer: torch.optim.Optimizer) -> int:
    return sum(
        value.numel() * value.element_size()
        for values in optimizer.state.values()
        for value in values.values()
        if isinstance(value, torch.Tensor)
    )


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"

"""The most memory that a training step needs.

On CUDA the allocator keeps the count. On a CPU the operating system does, for the whole process: what the process did
before would count too, and so does memory that was freed but not given back. So there the step is taken in a process
of its own, which does nothing else.
"""

from __future__ import annotations

import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import torch

from meloformer.bench.workload import Workload
from meloformer.errors import MeloFormerError
from meloformer.settings import Settings

NUM_STEPS = 2
"""From the second step on the optimiser has its state."""


def peak_step_bytes(settings: Settings, shards: Path | None, device: torch.device) -> int:
    """Most memory in use during a training step, above what was in use before there was a model.

    Args:
        settings: See :class:`~meloformer.bench.workload.Workload`.
        shards: Where the music comes from.
        device: Where the step is taken.
    Raises:
        MeloFormerError: The process was killed, as systems do when memory is short.
    """
    if device.type == "cuda":
        return _peak_on_cuda(settings, shards, device)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        try:
            return alone.submit(_peak_in_this_process, settings, shards, device.type).result()
        except BrokenProcessPool:
            raise MeloFormerError(
                "the measured step was killed, most likely because memory ran out",
                "try a smaller --seq-len, --batch-size or --size",
            ) from None


def _peak_on_cuda(settings: Settings, shards: Path | None, device: torch.device) -> int:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    workload = Workload(settings, shards, device)
    for _ in range(NUM_STEPS):
        workload.step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _peak_in_this_process(settings: Settings, shards: Path | None, device_type: str) -> int:
    forget_largest_resident_bytes()
    before = largest_resident_bytes()
    workload = Workload(settings, shards, torch.device(device_type))
    for _ in range(NUM_STEPS):
        workload.step()
    return largest_resident_bytes() - before


def forget_largest_resident_bytes() -> None:
    """On Linux: the peak starts again from what is in use now (proc(5))."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def largest_resident_bytes() -> int:
    """The most memory that this process has had in RAM.

    Linux's ``ru_maxrss`` is passed on from the process that started this one, so ``VmHWM`` comes first (proc(5)).
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes on macOS, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

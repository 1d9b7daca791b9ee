"""The most memory that a training step needs.

On CUDA the allocator keeps the count. On a CPU the operating system does, for the whole process: what the process did
before would count too, and so does memory that was freed but not given back. So there the step is taken in a process
of its own, which does nothing else.
"""

from __future__ import annotations

import gc
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from meloformer.bench.fits import GIB
from meloformer.bench.workload import Workload
from meloformer.errors import MeloFormerError, OutOfMemoryError
from meloformer.settings import Settings

NUM_STEPS = 2
"""From the second step on the optimiser has its state."""


def peak_step_bytes(settings: Settings, shards: Path | None, device: torch.device) -> int:
    """Most memory in use during a training step, above what was in use before there was a model.

    Args:
        settings: See :class:`~meloformer.bench.workload.Workload`; on CUDA ``bench.gpu_mem`` is the most there is.
        shards: Where the music comes from.
        device: Where the step is taken.
    Raises:
        OutOfMemoryError: There is not enough.
        InputError, ShardError, SettingsError: The workload cannot be made.
    """
    if device.type == "cuda":
        with capped(settings, device):
            return _peak_on_cuda(settings, shards, device)
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_report_peak, args=(theirs, settings, shards, device.type), daemon=True)
    process.start()
    theirs.close()
    try:
        found = ours.recv()
    except EOFError:
        raise _shortage(settings) from None
    finally:
        process.kill()
        process.join()
    if isinstance(found, MeloFormerError):
        raise found
    return found


@contextmanager
def capped(settings: Settings, device: torch.device) -> Iterator[None]:
    """Inside, PyTorch's allocator gives no more than ``bench.gpu_mem`` on a CUDA device, and a lack of memory is an
    ``OutOfMemoryError``. What was freed is given back before and after."""
    cap, on_cuda = settings.bench.gpu_mem, device.type == "cuda"
    index = torch.cuda.current_device() if on_cuda and device.index is None else device.index
    if on_cuda:
        _give_back()
        if cap is not None:
            share = min(cap * GIB / torch.cuda.get_device_properties(index).total_memory, 1.0)
            torch.cuda.set_per_process_memory_fraction(share, index)
    try:
        yield
    except torch.OutOfMemoryError:
        raise _shortage(settings) from None
    finally:
        if on_cuda:
            torch.cuda.set_per_process_memory_fraction(1.0, index)
            _give_back()


def _give_back() -> None:
    gc.collect()
    torch.cuda.empty_cache()


def _shortage(settings: Settings) -> OutOfMemoryError:
    shape = f"{settings.model.size}, {settings.bench.seq_len:,} tokens x {settings.bench.batch_size}"
    return OutOfMemoryError(
        f"a step of {shape} was stopped, most likely because memory ran out",
        "try a smaller --seq-len, --batch-size or --size, or --set model.checkpointing=full",
    )


def _peak_on_cuda(settings: Settings, shards: Path | None, device: torch.device) -> int:
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    workload = Workload(settings, shards, device)
    for _ in range(NUM_STEPS):
        workload.step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _report_peak(answer: Connection, settings: Settings, shards: Path | None, device_type: str) -> None:
    """In a process of its own: send the peak, or the error that a user can fix."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the one that waits ends this one
    try:
        answer.send(_peak_in_this_process(settings, shards, device_type))
    except MeloFormerError as error:
        answer.send(error)
    except (MemoryError, torch.OutOfMemoryError):
        answer.send(_shortage(settings))
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # of PyTorch's allocator for the CPU
            raise
        answer.send(_shortage(settings))


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

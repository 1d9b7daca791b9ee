"""Throughput of several devices together: every one takes steps of its own, and all share their gradients."""

from __future__ import annotations

import statistics
import tempfile
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch
from torch import distributed

from meloformer.bench.throughput import timed_step
from meloformer.bench.workload import Workload
from meloformer.errors import MeloFormerError, OutOfMemoryError
from meloformer.settings import Settings

PATIENCE = timedelta(minutes=10)
"""For the slowest to compile its kernels."""


def several_devices(settings: Settings, device: torch.device) -> list[int]:
    """Of ``bench.gpus``, the numbers of devices above one that are here."""
    here = torch.cuda.device_count() if device.type == "cuda" else 1
    return [number for number in settings.bench.gpus if 1 < number <= here]


def measure_together(settings: Settings, shards: Path | None, devices: list[str]) -> float:
    """Tokens a second of data-parallel steps, the same number of rows on each device.

    Args:
        settings: As for one step.
        shards: Where the music comes from.
        devices: Such as ``["cuda:0", "cuda:1"]``; a process for each.
    Returns:
        Targets of all devices by the median step of the slowest.
    Raises:
        MeloFormerError: A process failed, the first in a way that a user can fix.
        OutOfMemoryError: A device has not enough memory.
    """
    context = get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        pipes = [context.Pipe(duplex=False) for _ in devices]
        processes = [
            context.Process(target=_work, args=(theirs, settings, shards, rank, devices, meeting), daemon=True)
            for rank, (_, theirs) in enumerate(pipes)
        ]
        try:
            for process, (_, theirs) in zip(processes, pipes, strict=True):
                process.start()
                theirs.close()
            answers = _answers([ours for ours, _ in pipes])
        finally:
            for process in processes:
                if process.pid is not None:
                    process.kill()
                    process.join()
    return sum(tokens for tokens, _ in answers) / max(seconds for _, seconds in answers)


def _answers(pipes: list[Connection]) -> list[tuple[int, float]]:
    """Of every process, in any order; the first error ends it, for the others would wait for the one that failed."""
    answers: list[tuple[int, float]] = []
    waiting = list(pipes)
    while waiting:
        for pipe in wait(waiting):
            assert isinstance(pipe, Connection)
            try:
                answer = pipe.recv()
            except EOFError:
                raise MeloFormerError("a process that measured several devices ended early", "try --gpus 1") from None
            if isinstance(answer, MeloFormerError):
                raise answer
            answers.append(answer)
            waiting.remove(pipe)
    return answers


def _work(
    answer: Connection, settings: Settings, shards: Path | None, rank: int, devices: list[str], meeting: str
) -> None:
    device = torch.device(devices[rank])
    backend = "nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group(backend, init_method=meeting, rank=rank, world_size=len(devices), timeout=PATIENCE)
    try:
        workload = Workload(settings, shards, device)
        for parameter in workload.model.parameters():
            parameter.register_post_accumulate_grad_hook(_share)
        seconds: list[float] = []
        for turn in range(settings.bench.warmup + settings.bench.repeats):
            distributed.barrier()
            wall, _ = timed_step(workload)
            if turn >= settings.bench.warmup:
                seconds.append(wall)
        answer.send((workload.batch.num_targets, statistics.median(seconds)))
    except MeloFormerError as error:
        answer.send(error)
    except torch.OutOfMemoryError:
        answer.send(OutOfMemoryError("a step on several devices ran out of memory", "try a smaller --batch-size"))
    finally:
        distributed.destroy_process_group()


def _share(parameter: torch.Tensor) -> None:
    """Mean of the gradients of all devices, as soon as a weight has its own."""
    assert parameter.grad is not None
    distributed.all_reduce(parameter.grad)
    parameter.grad /= distributed.get_world_size()

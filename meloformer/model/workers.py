"""Tasks side by side on the cores that PyTorch may use.

Many small operations one after another, each shared between threads, leave the threads waiting for each other: with two
threads, attention over tiles took a quarter to two thirds more CPU time than with one. Here each thread works through
operations of its own. PyTorch lets go of Python's lock while it computes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, partial
from threading import Barrier
from typing import TypeVar

import torch

Result = TypeVar("Result")
PENDING_OF_A_WORKER = 2
"""Tasks that are begun or done and not yet taken: enough that no thread waits."""


def num_threads(device: torch.device) -> int:
    """How many tasks run at once: on a CPU, as many as PyTorch has threads."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def side_by_side(tasks: Sequence[Callable[[], Result]], device: torch.device) -> Iterator[Result]:
    """Run all tasks, without gradients and without autocast; those that take longest had better come first.

    Yields:
        Their results in the same order. Which thread runs a task changes nothing of its result. Tasks begin when those
        before them are done with, so that only some results for each thread take memory at a time.
    """
    workers, is_inference = num_threads(device), torch.is_inference_mode_enabled()
    alone = partial(_on_its_own, device.type, is_inference)
    if workers == 1 or len(tasks) == 1:
        for task in tasks:
            yield alone(task)
        return
    pool, begun = _pool(workers), deque[Future[Result]]()
    try:
        for task in tasks:
            if len(begun) == PENDING_OF_A_WORKER * workers:
                yield begun.popleft().result()
            begun.append(pool.submit(alone, task))
        while begun:
            yield begun.popleft().result()
    finally:
        for future in begun:
            future.cancel()


def _on_its_own(device_type: str, is_inference: bool, task: Callable[[], Result]) -> Result:
    """Every thread has switches of its own; these are what the calling thread would see inside a function's pass."""
    with torch.inference_mode(is_inference), torch.no_grad(), torch.autocast(device_type, enabled=False):
        return task()


@lru_cache(maxsize=1)
def _pool(workers: int) -> ThreadPoolExecutor:
    """Threads that use one core each.

    ``torch.set_num_threads`` tells the calling thread, and what every other thread begins with when it first asks. So
    all are started here and ask before they are told, and then the number is set back.
    """
    started = Barrier(workers + 1)

    def use_one_core() -> None:
        torch.get_num_threads()
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(workers, "attention", initializer=use_one_core)
    for _ in range(workers):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(workers)
    return pool


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked process has none of the threads

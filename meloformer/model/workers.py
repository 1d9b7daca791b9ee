"""Tasks side by side on the cores that PyTorch may use.

Many small operations one after another, each shared between threads, leave the threads waiting for each other: with two
threads, attention over tiles took a quarter to two thirds more CPU time than with one. Here each thread works through
operations of its own. PyTorch lets go of Python's lock while it computes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Barrier
from typing import TypeVar

import torch

Result = TypeVar("Result")


def num_workers(device: torch.device) -> int:
    """How many tasks run at once: on a CPU, as many as PyTorch has threads."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def side_by_side(tasks: Sequence[Callable[[], Result]], device: torch.device) -> list[Result]:
    """Run all tasks, without gradients or autocast; those that take longest had better come first.

    Returns:
        Their results in the same order. Which thread runs a task changes nothing of its result.
    """
    workers = num_workers(device)
    if workers == 1 or len(tasks) == 1:
        with torch.autocast(device.type, enabled=False):  # as in threads of their own
            return [task() for task in tasks]
    futures = [_pool(workers).submit(_without_gradients, task) for task in tasks]
    return [future.result() for future in futures]


def _without_gradients(task: Callable[[], Result]) -> Result:
    with torch.no_grad():  # every thread has its own switch
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


os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked process has none of the threads

"""Passes made ready: rows read and augmented, their attributes and their layout, ahead in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from meloformer.errors import MeloFormerError, RankError
from meloformer.interruption import end_with_the_parent, stop_signals
from meloformer.model.batch import Batch
from meloformer.model.layout import Layout
from meloformer.model.nested import to_arrays, to_tensors
from meloformer.settings import ModelSettings
from meloformer.shards.batches import BatchLoader, Damage
from meloformer.training.distributed import ALONE, Ranks

AHEAD = 4
"""Passes that a worker has ready."""
MOST_WORKERS = 4
"""By default. A pass of 16,384 tokens is made ready in some 0.1 s (docs/benchmarks.md)."""


@dataclass(frozen=True)
class Pass:
    """What one forward and backward pass needs, on the device of the model."""

    batch: Batch
    layout: Layout | None = None
    """``None``: the model makes it."""
    damage: Damage = field(default_factory=dict)
    """Documents that had to be left out."""


class PassesOfRows(Dataset[Pass | MeloFormerError]):
    """Numbers of rows -> a pass, with arrays for tensors; an error comes back as a value, whole from any process.

    Args:
        loader: Of the rows.
        settings: Of the model.
        device: Where the model is; passes are made on the CPU.
    """

    def __init__(self, loader: BatchLoader, settings: ModelSettings, device: torch.device) -> None:
        self._loader, self._settings, self._device = loader, settings, device

    def __getitem__(self, rows: list[int]) -> Pass | MeloFormerError:  # pyright: ignore[reportIncompatibleMethodOverride]
        try:
            ids, damage = self._loader.read(rows)
            batch = Batch.of(list(ids), self._loader.vocabulary)
            layout = Layout.of(batch, self._settings, device=self._device)
        except MeloFormerError as error:
            return error
        return to_arrays(Pass(batch, layout, damage))


class Rows:
    """The rows of every pass of this rank, without end.

    Args:
        first: Row that the run goes on from.
        rows_per_step: Of all ranks together.
        batch_size: Most rows in a pass.
        ranks: Which of them are ours.
    """

    def __init__(self, first: int, rows_per_step: int, batch_size: int, ranks: Ranks = ALONE) -> None:
        self._first, self._per_step, self._batch_size, self._ranks = first, rows_per_step, batch_size, ranks
        self.passes_per_step = len(range(0, len(ranks.share(range(rows_per_step))), batch_size))

    def __iter__(self) -> Iterator[list[int]]:
        for start in count(self._first, self._per_step):
            ours = self._ranks.share(range(start, start + self._per_step))
            for place in range(0, len(ours), self._batch_size):
                yield list(ours[place : place + self._batch_size])


def num_workers(wished: int | None, device: torch.device, ranks: Ranks = ALONE) -> int:
    """How many processes make passes ready for each rank.

    By default one on a CPU, whose cores are needed for the training, and on a GPU as many as each rank has cores to
    spare, up to ``MOST_WORKERS``.
    """
    if wished is not None:
        return wished
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if ranks.size > 1 else 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if device.type == "cpu":
        return 1 if cores // ranks_here > 1 else 0
    return max(min(cores // ranks_here - 1, MOST_WORKERS), 1)


@contextmanager
def prepared_passes(
    loader: BatchLoader, rows: Iterable[list[int]], settings: ModelSettings, device: torch.device, *, workers: int
) -> Iterator[Iterator[Pass]]:
    """The passes over some rows, in their order, whatever the number of workers.

    Args:
        loader: Of the rows.
        rows: Numbers of the rows of every pass.
        settings: Of the model.
        device: Where the model is.
        workers: Processes that work ahead; 0 is none, and a pass is made when it is asked for.
    Yields:
        An iterator, which raises ``RankError`` where a worker has died, and ``MeloFormerError`` for what it could not
        make. The workers end with the block.
    """
    ahead: dict[str, Any] = {}
    if workers:
        # Not fork: the threads of PyTorch do not survive it. Not forkserver: only the parent of a process hears that it
        # has died, and whoever waits for the second half of a message has to hear it.
        processes = multiprocessing.get_context("spawn")
        ahead = {"multiprocessing_context": processes, "prefetch_factor": AHEAD, "worker_init_fn": _settle}
    passes = DataLoader(
        PassesOfRows(loader, settings, device),
        batch_size=None,
        sampler=rows,
        num_workers=workers,
        collate_fn=_as_it_is,
        generator=torch.Generator(),  # else the seeds of the workers are drawn from the run's own
        **ahead,
    )
    with stop_signals() as stop:  # a process that is half started would complain
        iterator: Any = iter(passes)
    try:
        if stop.is_set():
            raise KeyboardInterrupt
        yield _told(iterator, device)
    finally:
        if workers:
            # What ends them by itself is the end of the iterator, which a traceback may keep alive.
            iterator._shutdown_workers()


def _told(iterator: Iterator[Pass | MeloFormerError], device: torch.device) -> Iterator[Pass]:
    while True:
        try:
            made = next(iterator)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise RankError(
                f"a process that reads ahead has ended ({str(error).splitlines()[0]})",
                "is there memory enough? try --set training.workers=1, or 0",
            ) from None
        if isinstance(made, MeloFormerError):
            raise made
        yield to_tensors(made, device)


def _settle(_worker: int) -> None:
    """Ctrl-C reaches every process of a terminal, but when to end is for the one that trains; or for its death."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    end_with_the_parent()  # a worker notices by itself too, but then waits for somebody to read what it has made ready


def _as_it_is(made: Any) -> Any:
    return made

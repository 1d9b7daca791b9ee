"""Several processes that train one model: each works through its share of the rows of a step.

``torchrun`` starts the processes and tells each its number. ``DistributedDataParallel`` shares their gradients; what is
agreed on beside that (counts, requests to stop, damage) goes over gloo, on the CPU.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from meloformer.errors import RankError, SettingsError
from meloformer.model.device import choose_device
from meloformer.model.meloformer import MeloFormer
from meloformer.model.visibility import READS_SUMMARIES

Item = TypeVar("Item")
Value = TypeVar("Value")
PATIENCE = timedelta(minutes=30)
"""How long the other ranks wait for the first, which validates, samples and saves alone."""
_SIGNS_OF_LOSS = ("gloo", "nccl", "connection reset", "connection closed", "broken pipe")
"""In what PyTorch says where another process has gone; it has no error of its own for that over gloo."""


class AnotherRankTellsError(Exception):
    """This process ends with an error that another one tells."""


@dataclass(frozen=True)
class Ranks:
    """Which of the processes of a run this is; by default the only one."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Only the first prints, writes and validates."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """What of the items this rank works on: a stretch, as the passes of one process would be."""
        return items[len(items) * self.rank // self.size : len(items) * (self.rank + 1) // self.size]

    def device(self, wished: str) -> torch.device:
        """Each rank on a machine has a CUDA device of its own.

        Raises:
            SettingsError: There is no such device, or one for all ranks was named.
        """
        if self.size == 1 or wished == "cpu":
            return choose_device(wished)
        if wished not in ("auto", "cuda"):
            raise SettingsError(f"{self.size} processes cannot share device {wished!r}", "use --device cuda or cpu")
        if wished == "auto" and not torch.cuda.is_available():
            return torch.device("cpu")
        device = choose_device(f"cuda:{os.environ.get('LOCAL_RANK', self.rank)}")
        torch.cuda.set_device(device)
        return device

    def summed(self, *values: float) -> list[float]:
        """The sums over all ranks, on every rank.

        Raises:
            RankError: Another rank has gone.
        """
        if self.size == 1:
            return list(values)
        table = torch.tensor(values, dtype=torch.float64)
        with watching():
            dist.all_reduce(table)
        return table.tolist()

    def any(self, *flags: bool) -> list[bool]:
        """Whether each flag is set on some rank."""
        return [total > 0 for total in self.summed(*map(float, flags))]

    def gathered(self, value: Value) -> list[Value]:
        """The values of all ranks, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Value | None] = [None] * self.size
        with watching():
            dist.all_gather_object(values, value)
        return cast("list[Value]", values)

    def replicated(self, model: MeloFormer) -> nn.Module:
        """The model, with gradients that are the mean over all ranks.

        Without heads that read summaries, the weights that make these have no gradient, on any rank.
        """
        if self.size == 1:
            return model
        reads_summaries = any(family in READS_SUMMARIES for family in model.settings.heads)
        return DistributedDataParallel(model, find_unused_parameters=not reads_summaries, gradient_as_bucket_view=True)


ALONE = Ranks()


def only_here(network: nn.Module) -> AbstractContextManager[object]:
    """Inside, gradients of :meth:`Ranks.replicated` are added up on each rank, and not yet over the ranks."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


@contextmanager
def watching() -> Iterator[None]:
    """Tell of a rank that has gone by its name.

    Raises:
        RankError: One has.
    """
    try:
        yield
    except RuntimeError as error:
        said = str(error).lower()
        if isinstance(error, dist.DistError) or any(sign in said for sign in _SIGNS_OF_LOSS):
            raise RankError("another process of this run has ended") from error
        raise


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` started; alone where it did not.

    Raises:
        AnotherRankTellsError: Instead of any error, on all ranks but the first that has one.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    store, rank, size = next(rendezvous("env://"))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield Ranks(rank, size)
    except Exception as error:
        with suppress(RuntimeError):  # the store may have gone with the rank that had it
            if store.add("errors told", 1) > 1:
                raise AnotherRankTellsError from error
        raise
    dist.destroy_process_group()


def command_to_go_on(shards: Path, run: Path, ranks: Ranks) -> str:
    """What to type to go on with a run."""
    arguments = ["train", str(shards), "--out", str(run), "--resume"]
    here = int(os.environ.get("LOCAL_WORLD_SIZE", ranks.size))
    if ranks.size == 1:
        return shlex.join(["meloformer", *arguments])
    command = shlex.join(["torchrun", "--nproc-per-node", str(here), "-m", "meloformer", *arguments])
    return command if here == ranks.size else f"{command}  (on every node, with the options of torchrun as before)"

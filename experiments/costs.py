"""What a step of one variant costs beside that of another: by CPU time, side by side, the median of several rounds.

The same time is so many steps as this says, and not what a clock says while the variant trains: other programs on the
machine slow a process down by a quarter although it counts CPU time, and a run would not be the same again.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from experiments.results import digest_of, machine
from experiments.train import Run
from meloformer.files import make_folder, write_text
from meloformer.settings import Settings
from meloformer.shards.store import open_shards
from meloformer.training.plan import make_plan
from meloformer.training.state import COMPUTED_BY

ROUNDS = 7
"""After one that does not count. In each every variant takes one step, on the same rows as the others."""
NOISE = 0.08
"""Costs that are nearer to each other are equal: that of one and the same work came out up to 7 % apart."""


@dataclass(frozen=True)
class Candidate:
    """A variant that may be measured."""

    settings: Settings
    plain: bool

    @property
    def key(self) -> str:
        """Equal where a step costs the same; unlike the result that depends on how attention is computed, and where."""
        chosen = self.settings
        how = {**chosen.model.model_dump(mode="json", include=set(COMPUTED_BY)), "device": chosen.training.device}
        return f"{digest_of(chosen, plain=self.plain)} {json.dumps(how, sort_keys=True)}"


class Session(NamedTuple):
    """Steps that were taken side by side."""

    where: str
    """On what, and on which data."""
    seconds: dict[str, float]
    """Key of a candidate -> what a step costs."""


def read_costs(path: Path) -> list[Session]:
    """What was measured before."""
    return [Session(**one) for one in json.loads(path.read_text(encoding="utf-8"))] if path.is_file() else []


def measure_costs(path: Path, shards: Path, groups: Sequence[list[Candidate]]) -> list[Session]:
    """Measure every group of candidates that was not measured side by side yet, and keep it in a file.

    Args:
        path: A JSON file.
        shards: What ``pack`` wrote.
        groups: The variants of each experiment; the first is what the others are compared with.
    Returns:
        All sessions on this machine and these shards.
    Raises:
        InputError, ShardError: The shards are missing or damaged.
        OutputError: The file cannot be written.
    """
    where = f"{machine()}, {open_shards(shards).split('train').fingerprint}"
    sessions = read_costs(path)
    lacking: dict[str, Candidate] = {}
    for group in groups:
        keys = {one.key for one in group}
        if not any(keys <= session.seconds.keys() for session in sessions if session.where == where):
            lacking |= {one.key: one for one in group}
    if lacking:
        make_folder(path.parent)
        sessions = [*sessions, Session(where, _measured(shards, lacking))]
        write_text(path, json.dumps([session._asdict() for session in sessions], indent=1) + "\n")
    return [session for session in sessions if session.where == where]


def relative_cost(first: Candidate, other: Candidate, sessions: Sequence[Session]) -> float:
    """How long a step of ``other`` takes where one of ``first`` takes 1; 1 within the noise.

    Raises:
        ValueError: They were not measured side by side.
    """
    for _, seconds in reversed(sessions):
        if first.key in seconds and other.key in seconds:
            cost = seconds[other.key] / seconds[first.key]
            return 1.0 if abs(cost - 1) < NOISE else cost
    raise ValueError("they were not measured side by side")


def _measured(shards: Path, candidates: dict[str, Candidate]) -> dict[str, float]:
    runs = {
        key: Run.started(make_plan(shards, one.settings), one.settings, plain=one.plain)
        for key, one in candidates.items()
    }
    seconds: dict[str, list[float]] = {key: [] for key in runs}
    for _ in range(ROUNDS + 1):
        for key, run in runs.items():
            started = run.clock()
            run.take_step(0.5)
            seconds[key].append(run.clock() - started)
    return {key: round(statistics.median(found[1:]), 4) for key, found in seconds.items()}

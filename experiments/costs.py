"""What a step of one variant costs beside that of another: by CPU time, side by side, the median of several rounds.

The same time is so many steps as this says, and not what a clock says while the variant trains: other programs on the
machine slow a process down by a quarter although it counts CPU time, and a run would not be the same again.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from experiments.results import digest_of
from experiments.train import Run
from meloformer.files import write_text
from meloformer.settings import Settings
from meloformer.training.plan import make_plan

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
    def digest(self) -> str:
        """Equal for equal settings, whatever the seed."""
        return digest_of(self.settings, plain=self.plain)


Sessions = list[dict[str, float]]
"""Of all that were measured side by side, digest -> seconds of a step."""


def read_costs(path: Path) -> Sessions:
    """What was measured before."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def measure_costs(path: Path, shards: Path, groups: Iterable[list[Candidate]]) -> Sessions:
    """Measure every group of candidates that was not measured side by side yet, and keep it in a file.

    Args:
        path: A JSON file.
        shards: What ``pack`` wrote.
        groups: The variants of each experiment; the first is what the others are compared with.
    Raises:
        InputError, ShardError: The shards are missing or damaged.
    """
    sessions = read_costs(path)
    lacking: dict[str, Candidate] = {}
    for group in groups:
        digests = {one.digest for one in group}
        if not any(digests <= session.keys() for session in sessions):
            lacking |= {one.digest: one for one in group}
    if lacking:
        sessions = [*sessions, _measured(shards, lacking)]
        write_text(path, json.dumps(sessions, indent=1) + "\n")
    return sessions


def relative_cost(first: str, other: str, sessions: Sessions) -> float:
    """How long a step of ``other`` takes where one of ``first`` takes 1; 1 within the noise.

    Raises:
        ValueError: They were not measured side by side.
    """
    for session in reversed(sessions):
        if first in session and other in session:
            cost = session[other] / session[first]
            return 1.0 if abs(cost - 1) < NOISE else cost
    raise ValueError(f"{first} and {other} were not measured side by side")


def _measured(shards: Path, candidates: dict[str, Candidate]) -> dict[str, float]:
    runs = {
        digest: Run.started(make_plan(shards, one.settings), one.settings, plain=one.plain)
        for digest, one in candidates.items()
    }
    seconds: dict[str, list[float]] = {digest: [] for digest in runs}
    for _ in range(ROUNDS + 1):
        for digest, run in runs.items():
            started = run.clock()
            run.take_step(0.5)
            seconds[digest].append(run.clock() - started)
    return {digest: round(statistics.median(found[1:]), 4) for digest, found in seconds.items()}

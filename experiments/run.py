"""Run experiments: every variant with every seed, one result a line.

    python -m experiments.run NAME... --shards DIR --results FILE [--seeds 0,1,2] [--steps N] [--same-time] [--jobs N]

What FILE holds already is not run again, so a run that was interrupted goes on with the same command. Of equal settings
in several experiments one is run, and its result is written for all. With --same-time each run has two ends: as many
steps as the others, and as many as take as long as those of the first variant, see ``experiments/costs.py``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import torch

from experiments.config import Experiment, load_experiment, names
from experiments.costs import Candidate, measure_costs, relative_cost
from experiments.results import (
    SAME_RESULT,
    SAME_RUN,
    Record,
    identity,
    is_same,
    of_equal,
    read_results,
    to_record,
    write_result,
)
from experiments.train import Budget, train_variant
from meloformer.errors import MeloFormerError, RankError
from meloformer.interruption import end_with_the_parent
from meloformer.settings import Settings
from meloformer.shards.store import open_shards

SECONDS_BETWEEN_LINES = 20.0


class Options(argparse.Namespace):
    """What was asked for."""

    names: list[str]
    shards: Path
    results: Path
    seeds: list[int]
    steps: int | None
    same_time: bool
    variants: list[str] | None
    overrides: list[str] | None
    curve_every: int | None
    jobs: int


@dataclass(frozen=True)
class Task:
    """A run that is wanted: one variant, one seed, and one result for each end."""

    shards: Path
    settings: Settings
    plain: bool
    wanted: list[tuple[Budget, Record]]
    """Every end, and the identity of its result; two may be at one place."""
    curve_every: int | None

    @property
    def label(self) -> str:
        """Its name."""
        return label_of(self.wanted[0][1])

    @property
    def run(self) -> str:
        """Equal for tasks that one run does."""
        return json.dumps([self.wanted[0][1][name] for name in SAME_RUN])

    def without(self, found: list[Record]) -> Task:
        """The same with those ends only whose results are not there."""
        left = [(budget, own) for budget, own in self.wanted if not any(is_same(own, each) for each in found)]
        return replace(self, wanted=left)


def label_of(record: Record) -> str:
    """The name of a run."""
    return f"{record['experiment']}, {record['variant']}, seed {record['seed']}"


def tasks_of(experiments: list[Experiment], options: Options) -> Iterator[Task]:
    """All runs; every variant of all experiments with the first seed, then with the next."""
    variants = {
        one.name: [name for name in one.variants if options.variants is None or name in options.variants]
        for one in experiments
    }
    costs = _costs(experiments, variants, options) if options.same_time else {}
    data = open_shards(options.shards).split("train").fingerprint
    for seed, experiment in product(options.seeds, experiments):
        for name in variants[experiment.name]:
            own = _candidate(experiment, name, options, seed)
            steps = options.steps or experiment.steps
            same = identity(experiment.name, name, own.settings, data, plain=own.plain)
            ends = _ends(steps, costs.get((experiment.name, name)))
            wanted = [(Budget(steps=last), {**same, "rise": steps, "steps": last, **end}) for last, end in ends]
            yield Task(options.shards, own.settings, own.plain, wanted, options.curve_every)


def _ends(steps: int, cost: float | None) -> list[tuple[int, Record]]:
    """After how many steps a run ends, and why: as many as all take; and as many as take as long, where costs count."""
    ends: list[tuple[int, Record]] = [(steps, {"budget": {"steps": steps}})]
    if cost is not None:
        as_long = {"budget": {"time_of_steps": steps}, "cost": round(cost, 3)}
        ends.append((max(round(steps / cost), 1), as_long))
    return ends


def _candidate(experiment: Experiment, variant: str, options: Options, seed: int = 0) -> Candidate:
    """A variant with what the command sets for all."""
    overrides = [*(options.overrides or []), f"training.seed={seed}"]
    return Candidate(experiment.settings_of(variant, overrides), experiment.variants[variant].plain)


def _costs(
    experiments: list[Experiment], variants: dict[str, list[str]], options: Options
) -> dict[tuple[str, str], float]:
    """(experiment, variant) -> what a step costs where one of the first variant costs 1."""
    candidates = {
        one.name: {
            name: _candidate(one, name, options)
            for name in dict.fromkeys([next(iter(one.variants)), *variants[one.name]])
        }
        for one in experiments
    }
    groups = [[*own.values()] for own in candidates.values()]
    sessions = measure_costs(options.results.with_suffix(".costs.json"), options.shards, groups)
    return {
        (experiment, name): relative_cost(next(iter(own.values())), one, sessions)
        for experiment, own in candidates.items()
        for name, one in own.items()
    }


def run_experiments(experiments: list[Experiment], options: Options) -> int:
    """Run what the file of results lacks; how many runs that were. One that fails does not end the others.

    Raises:
        MeloFormerError: Some runs failed, or a process of several has ended by itself.
    """
    torch.set_num_threads(1)
    there = read_results(options.results)
    tasks: dict[str, Task] = {}
    for task in tasks_of(experiments, options):
        lacks = _taken_over(task.without(there), there, options.results)
        if not lacks.wanted:
            say(f"{task.label}: is there already")
        elif lacks.run in tasks:
            other = tasks[lacks.run]
            say(f"{task.label}: has the settings of {other.label}")
            tasks[lacks.run] = replace(other, wanted=[*other.wanted, *lacks.wanted])
        else:
            tasks[lacks.run] = lacks
    failed = 0
    for task, records in _trained([*tasks.values()], options.jobs):
        try:
            for record in records():
                _keep(record, options.results)
        except MeloFormerError as error:
            failed += 1
            say(f"{task.label}: {error}")
    if failed:
        raise MeloFormerError(f"{failed} of {len(tasks)} runs failed", "the same command tries them again")
    return len(tasks)


def _trained(tasks: list[Task], jobs: int) -> Iterator[tuple[Task, Callable[[], Iterable[Record]]]]:
    """Every task, and what gives its records or raises what went wrong; of several jobs those first that end first."""
    if jobs == 1:
        yield from ((task, partial(outcomes, task)) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")  # the threads of PyTorch do not survive a fork
    with ProcessPoolExecutor(jobs, context, initializer=_settle) as pool:
        running: dict[Future[list[Record]], Task] = {pool.submit(all_outcomes, task): task for task in tasks}
        try:
            for future in as_completed(running):
                if isinstance(future.exception(), BrokenProcessPool):
                    raise RankError(
                        "a process that trained a variant has ended", "is there memory enough? try --jobs 1"
                    )
                yield running[future], future.result
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _settle() -> None:
    """One thread for every run, whose CPU time is then its own; and no run outlives the one that keeps its results."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, which sends it to the parent, too
    end_with_the_parent()


def _taken_over(task: Task, there: list[Record], results: Path) -> Task:
    """Write the results that another variant of equal settings has; the task without them."""
    left = []
    for budget, wanted in task.wanted:
        equal = next((each for each in there if is_same(each, wanted, SAME_RESULT)), None)
        if equal is None:
            left.append((budget, wanted))
        else:
            write_result(results, of_equal(equal, wanted))
            say(f"{label_of(wanted)}: has the settings of {label_of(equal)}")
    return replace(task, wanted=left)


def outcomes(task: Task) -> Iterator[Record]:
    """Train, and tell what became of every end."""
    ends = list(dict.fromkeys(budget for budget, _ in task.wanted))
    told = Teller(task.label)
    rise = Budget(steps=task.wanted[0][1]["rise"])
    for outcome in train_variant(
        task.shards, task.settings, ends, plain=task.plain, rise=rise, curve_every=task.curve_every, told=told
    ):
        for budget, record in task.wanted:
            if budget == outcome.budget:
                yield {**record, **to_record(outcome)}


def all_outcomes(task: Task) -> list[Record]:
    """:func:`outcomes` in a process of its own."""
    return list(outcomes(task))


def _keep(record: Record, results: Path) -> None:
    write_result(results, record)
    loss = record["prediction"]["model"]["nats_per_note"]
    why = "the same steps" if "steps" in record["budget"] else "the same time"
    told = f"{loss:.4f} nats a note after {record['steps']:,} steps and {record['seconds']:,.0f} s"
    say(f"{label_of(record)}, {why}: {told}")


class Teller:
    """Says now and then how far a variant is."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._last = time.monotonic()

    def __call__(self, step: int, done: float, loss: float) -> None:
        """After a step."""
        if time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            say(f"{self._label}: step {step:,}, {done:.0%}, loss {loss:.3f}")


def say(text: str) -> None:
    """To the terminal, at once."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.run", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"of {', '.join(names())}")
    parser.add_argument("--shards", type=Path, required=True, help="what pack wrote")
    parser.add_argument("--results", type=Path, required=True, help="JSON lines; what is there is not run again")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="the same steps for all; 0: what the experiment says, the default")
    parser.add_argument("--same-time", action="store_true", help="also as long as the first variant's steps take")
    parser.add_argument("--variants", type=lambda text: text.split(","), help="only these, of one experiment")
    parser.add_argument("--set", dest="overrides", action="append", metavar="SECTION.FIELD=VALUE", help="for all")
    parser.add_argument("--curve-every", type=int, metavar="STEPS", help="write down losses on the way, so often")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, in processes of one thread each")
    options = parser.parse_args(arguments, namespace=Options())
    numbers = (options.steps, options.curve_every, options.jobs - 1)
    if any(number is not None and number < 0 for number in numbers) or options.curve_every == 0:
        parser.error("--curve-every is above 0, --jobs at least 1, --steps at least 0")
    try:
        experiments = [load_experiment(name) for name in options.names]
        unknown = set(options.variants or ()) - set(experiments[0].variants)
        if unknown or (options.variants and len(experiments) > 1):
            parser.error(
                f"{' '.join(options.names)} has no variant {', '.join(sorted(unknown)) or 'of one name for all'}"
            )
        run_experiments(experiments, options)
    except MeloFormerError as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        for child in multiprocessing.active_children():  # the pool would wait for what they train
            child.terminate()
        raise SystemExit("interrupted; the same command goes on with what is missing") from None


if __name__ == "__main__":
    main()

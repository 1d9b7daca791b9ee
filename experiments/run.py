"""Run an experiment: every variant with every seed, one result a line.

    python -m experiments.run NAME --shards DIR --results FILE [--seeds 0,1,2] [--steps N | --minutes M]

What FILE holds already is not run again, so a run that was interrupted goes on with the same command.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from experiments.config import Experiment, load_experiment, names
from experiments.train import Budget, Outcome, train_variant
from meloformer.errors import MeloFormerError
from meloformer.settings import Settings
from meloformer.shards.store import open_shards
from meloformer.training.state import COMPUTED_BY

SECONDS_BETWEEN_LINES = 20.0


class Options(argparse.Namespace):
    """What was asked for."""

    name: str
    shards: Path
    results: Path
    seeds: list[int]
    steps: int | None
    minutes: float | None
    variants: list[str] | None
    overrides: list[str] | None


def identity(experiment: Experiment, variant: str, settings: Settings, budget: Budget, data: str) -> dict[str, Any]:
    """What makes a result the one that is asked for; how attention is computed and on what device does not count."""
    record = {
        "plain": experiment.variants[variant].plain,
        "model": settings.model.model_dump(mode="json", exclude=set(COMPUTED_BY)),
        "training": settings.training.model_dump(mode="json", exclude={"device", "seed", "steps", "epochs"}),
    }
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]
    return {
        "experiment": experiment.name,
        "variant": variant,
        "seed": settings.training.seed,
        "budget": budget.to_dict(),
        "seq_len": settings.training.seq_len,
        "data": data,
        "settings": digest,
    }


def read_results(path: Path) -> list[dict[str, Any]]:
    """The results in a file; a line that was cut off is none."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def write_result(path: Path, record: dict[str, Any]) -> None:
    """Append one, behind whole lines only."""
    text = path.read_bytes() if path.is_file() else b""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write((b"" if not text or text.endswith(b"\n") else b"\n") + json.dumps(record).encode() + b"\n")


def to_record(outcome: Outcome) -> dict[str, Any]:
    """What is kept of a variant."""
    return {
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 2),
        "parameters": outcome.parameters,
        "targets": outcome.targets,
        "training_loss": round(outcome.training_loss, 5),
        "evaluation_seconds": round(outcome.evaluation_seconds, 2),
        "prediction": outcome.prediction.to_dict(),
        "machine": f"{torch.get_num_threads()} threads, {platform.machine()}, torch {torch.__version__}",
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }


def run_experiment(experiment: Experiment, options: Options, budget: Budget) -> int:
    """Run what the file of results lacks; how many that were."""
    data = open_shards(options.shards).split("train").fingerprint
    done = [{name: each.get(name) for name in IDENTITY} for each in read_results(options.results)]
    count = 0
    for seed in options.seeds:
        for variant in options.variants or experiment.variants:
            settings = experiment.settings_of(variant, [*(options.overrides or []), f"training.seed={seed}"])
            wanted = identity(experiment, variant, settings, budget, data)
            if wanted in done:
                say(f"{variant}, seed {seed}: is there already")
                continue
            outcome = train_variant(
                options.shards,
                settings,
                budget,
                plain=experiment.variants[variant].plain,
                told=Teller(f"{variant}, seed {seed}"),
            )
            write_result(options.results, {**wanted, **to_record(outcome)})
            count += 1
            say(
                f"{variant}, seed {seed}: {outcome.prediction.model.per_note:.4f} nats a note after {outcome.steps:,} "
                f"steps and {outcome.seconds:,.0f} s"
            )
    return count


IDENTITY = ("experiment", "variant", "seed", "budget", "seq_len", "data", "settings")


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
    parser.add_argument("name", help=f"one of {', '.join(names())}")
    parser.add_argument("--shards", type=Path, required=True, help="what pack wrote")
    parser.add_argument("--results", type=Path, required=True, help="JSON lines; what is there is not run again")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="the same steps for all; by default what the experiment says")
    parser.add_argument("--minutes", type=float, help="the same time for all instead")
    parser.add_argument("--variants", type=lambda text: text.split(","), help="only these")
    parser.add_argument("--set", dest="overrides", action="append", metavar="SECTION.FIELD=VALUE", help="for all")
    options = parser.parse_args(arguments, namespace=Options())
    if options.steps is not None and options.minutes is not None:
        parser.error("give --steps or --minutes, not both")
    try:
        experiment = load_experiment(options.name)
        unknown = set(options.variants or ()) - set(experiment.variants)
        if unknown:
            parser.error(f"{options.name} has no variant {', '.join(sorted(unknown))}")
        steps = None if options.minutes is not None else options.steps or experiment.steps
        run_experiment(experiment, options, Budget(steps, options.minutes))
    except MeloFormerError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()

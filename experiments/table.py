"""Write the results of experiments into ``docs/experiments.md``, between the marks of each.

python -m experiments.table [FILE...]

Without files those in ``experiments/measured/``.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.measure import table, write_section
from experiments.config import Experiment, load_experiment, names
from experiments.results import Record, read_results

PAGE = Path(__file__).resolve().parents[1] / "docs" / "experiments.md"
MEASURED = Path(__file__).parent / "measured"
COLUMNS = ("variant", "parameters", "seeds", "same steps: nats a note", "to the first", "far")
COLUMNS_OF_TIME = ("a step costs", "same time: steps", "nats a note", "to the first")
NOTHING = "Not run yet."


def with_spread(values: Sequence[float], places: int = 3) -> str:
    """Mean and, of several, half the distance from the smallest to the largest."""
    mean = f"{round(statistics.fmean(values), places) + 0.0:.{places}f}"  # no -0.000
    return f"{mean} ± {(max(values) - min(values)) / 2:.{places}f}" if len(values) > 1 else mean


def section(experiment: Experiment, results: Sequence[Record]) -> str:
    """All results of an experiment: a table for each number of steps, length of rows and data."""
    own = [record for record in results if record["experiment"] == experiment.name]
    groups: dict[tuple[int, int, str], list[Record]] = {}
    for record in own:
        (steps,) = record["budget"].values()
        groups.setdefault((record["seq_len"], steps, record["data"]), []).append(record)
    parts = [_group(experiment, key[1], groups[key]) for key in sorted(groups)]
    return "\n\n".join(parts) or NOTHING


def _group(experiment: Experiment, steps: int, records: list[Record]) -> str:
    in_steps, in_time = ([r for r in records if name in r["budget"]] for name in ("steps", "time_of_steps"))
    far_from = max(_far(record)["from"] for record in records)
    columns = (*COLUMNS, *(COLUMNS_OF_TIME if in_time else ()))
    time = ", and in the time that the first takes for them" if in_time else ""
    head = (
        f"**After {steps:,} steps{time}.** Rows of {records[0]['seq_len']:,} tokens, data `{records[0]['data']}`, "
        f"{records[0]['machine']}, {max(record['date'] for record in records)}. *far*: nats a note where at least "
        f"{far_from:,} tokens of the piece were read before."
    )
    by_steps, by_time = (
        {variant: [r for r in found if r["variant"] == variant] for variant in experiment.variants}
        for found in (in_steps, in_time)
    )
    rows = [
        [f"`{variant}`", f"{own[0]['parameters']:,}", *cells, *(time_cells if in_time else ())]
        for variant, cells, time_cells in zip(by_steps, _step_cells(by_steps), _time_cells(by_time), strict=True)
        if (own := by_steps[variant] + by_time[variant])
    ]
    return "\n\n".join(part for part in (head, table(columns, rows), _curves(by_steps)) if part)


def _curves(by_variant: dict[str, list[Record]]) -> str:
    """Losses on the way to the same steps where they were written down: of the first seed, which all variants have."""
    seed = min((record["seed"] for own in by_variant.values() for record in own), default=None)
    curves = {
        variant: {point["steps"]: point["nats_per_note"] for point in record["curve"]}
        for variant, own in by_variant.items()
        for record in own
        if record["seed"] == seed and record["curve"]
    }
    if not curves:
        return ""
    steps = sorted({step for curve in curves.values() for step in curve})
    rows = [
        [f"`{variant}`", *(f"{curve[step]:.3f}" if step in curve else "" for step in steps)]
        for variant, curve in curves.items()
    ]
    head = f"On the way, seed {seed}, on the first rows of the validation split, before the learning rate falls:"
    return f"{head}\n\n{table(('after steps', *(f'{step:,.0f}' for step in steps)), rows)}"


def _step_cells(by_variant: dict[str, list[Record]]) -> Iterator[list[str]]:
    """Of every variant what it has after the same steps."""
    for records, losses in _losses(by_variant):
        far = with_spread([_far(record)["nats_per_note"] for record in records]) if records else ""
        yield [str(len(records)), *losses, far]


def _time_cells(by_variant: dict[str, list[Record]]) -> Iterator[list[str]]:
    """Of every variant what it has after the same time."""
    for records, losses in _losses(by_variant):
        cost = f"{records[0]['cost']:.2f}" if records else ""
        yield [cost, f"{records[0]['steps']:,}" if records else "", *losses]


def _losses(by_variant: dict[str, list[Record]]) -> Iterator[tuple[list[Record], list[str]]]:
    """Of every variant its results; what it pays for a note, and by how much more that is than with the first."""
    first = {record["seed"]: _per_note(record) for record in next(iter(by_variant.values()))}
    for records in by_variant.values():
        behind = [_per_note(record) - first[record["seed"]] for record in records if record["seed"] in first]
        paid = [_per_note(record) for record in records]
        yield records, [with_spread(values) if values else "" for values in (paid, behind)]


def _per_note(record: Record) -> float:
    return record["prediction"]["model"]["nats_per_note"]


def _far(record: Record) -> Record:
    """The bin of the farthest tokens that notes were predicted in."""
    return [one for one in record["prediction"]["by_tokens"] if one["notes"]][-1]


def latest(results: Sequence[Record]) -> list[Record]:
    """Of several results of one variant, seed, budget, length and data the last one: that of the settings of today."""
    kept = {
        json.dumps([r[name] for name in ("experiment", "variant", "seed", "budget", "seq_len", "data")]): r
        for r in results
    }
    return list(kept.values())


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.table", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("results", nargs="*", type=Path, help="what experiments.run wrote")
    parser.add_argument("--page", type=Path, default=PAGE, help="by default docs/experiments.md")
    args = parser.parse_args(arguments)
    paths = args.results or sorted(MEASURED.glob("*.jsonl"))
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        parser.error(f"there are no results at {', '.join(missing)}")
    if not args.page.is_file():
        parser.error(f"there is no page {args.page}")
    results = latest([record for path in paths for record in read_results(path)])
    for name in names():
        write_section(args.page, name, section(load_experiment(name), results))


if __name__ == "__main__":
    main()

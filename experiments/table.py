"""Write the results of experiments into ``docs/experiments.md``, between the marks of each.

python -m experiments.table [FILE...]

Without files those in ``experiments/measured/``.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import table, write_section
from experiments.config import Experiment, load_experiment, names
from experiments.results import Record, read_results

PAGE = Path(__file__).resolve().parents[1] / "docs" / "experiments.md"
MEASURED = Path(__file__).parent / "measured"
COLUMNS = ("variant", "seeds", "nats a note", "to the first", "far", "steps", "a step costs", "parameters")
NOTHING = "Not run yet."


def with_spread(values: Sequence[float], places: int = 3) -> str:
    """Mean and, of several, half the distance from the smallest to the largest."""
    mean = f"{round(statistics.fmean(values), places) + 0.0:.{places}f}"  # no -0.000
    return f"{mean} ± {(max(values) - min(values)) / 2:.{places}f}" if len(values) > 1 else mean


def section(experiment: Experiment, results: Sequence[Record]) -> str:
    """All results of an experiment: a table for each budget, length of rows and data."""
    own = [record for record in results if record["experiment"] == experiment.name]
    groups: dict[str, list[Record]] = {}
    for record in own:
        key = json.dumps([record["seq_len"], record["budget"], record["data"]], sort_keys=True)
        groups.setdefault(key, []).append(record)
    parts = [_group(experiment, groups[key]) for key in sorted(groups)]
    return "\n\n".join(parts) or NOTHING


def _group(experiment: Experiment, records: list[Record]) -> str:
    (name, amount), *_ = records[0]["budget"].items()
    same = f"steps: {amount:,}" if name == "steps" else f"time: that of {amount:,} steps of the first"
    far_from = max(_far(record)["from"] for record in records)
    head = (
        f"**The same {same}.** Rows of {records[0]['seq_len']:,} tokens, data `{records[0]['data']}`, "
        f"{records[0]['machine']}, {max(record['date'] for record in records)}. *far*: nats a note where at least "
        f"{far_from:,} tokens of the piece were read before."
    )
    by_variant = {variant: [r for r in records if r["variant"] == variant] for variant in experiment.variants}
    first = {record["seed"]: _per_note(record) for record in next(iter(by_variant.values()))}
    rows = [_row(variant, own, first) for variant, own in by_variant.items() if own]
    parts = [head, table(COLUMNS, rows), _curves(by_variant) if name == "steps" else ""]
    return "\n\n".join(part for part in parts if part)


def _curves(by_variant: dict[str, list[Record]]) -> str:
    """Losses on the way to the same steps where they were written down: of the first seed, which all variants have."""
    seed = min(record["seed"] for own in by_variant.values() for record in own)
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


def _row(variant: str, records: list[Record], first: dict[int, float]) -> list[str]:
    behind = [_per_note(record) - first[record["seed"]] for record in records if record["seed"] in first]
    return [
        f"`{variant}`",
        str(len(records)),
        with_spread([_per_note(record) for record in records]),
        with_spread(behind) if behind else "",
        with_spread([_far(record)["nats_per_note"] for record in records]),
        f"{statistics.fmean(record['steps'] for record in records):,.0f}",
        f"{records[0]['cost']:.2f}" if "cost" in records[0] else "",
        f"{records[0]['parameters']:,}",
    ]


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

"""Let models write music, and measure it all against the same corpus.

    python -m experiments.music NAME=WEIGHTS... --shards DIR --results FILE [--num 50] [--bars 32] [--seeds 0,1,2]

WEIGHTS is a run, a file of weights or ``packaged``. One result a line, as ``meloformer evaluate --json`` has it; what
FILE holds is not measured again. The table of all is printed; ``--write`` puts it into ``docs/model.md``, too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import experiments.families  # noqa: F401 (models that are tried may have heads of these families)
from benchmarks.measure import table, tell
from experiments.results import Record, read_results, write_result
from experiments.run import say
from experiments.table import with_spread
from meloformer.errors import MeloFormerError
from meloformer.evaluation.evaluate import evaluate_run
from meloformer.evaluation.structure import PIECE_METRICS, READINGS
from meloformer.evaluation.tables import METRIC_NAMES
from meloformer.model.weights import sha256_of, weights_of
from meloformer.settings import Settings
from meloformer.settings_file import load_settings
from meloformer.shards.store import open_shards

PAGE = Path(__file__).resolve().parents[1] / "docs" / "model.md"


class Options(argparse.Namespace):
    """What was asked for."""

    models: list[tuple[str, Path]]
    shards: Path
    results: Path
    num: int
    bars: int
    seeds: list[int]
    overrides: list[str] | None
    write: bool


class Row(NamedTuple):
    """A figure of a set of pieces."""

    label: str
    of: Callable[[Record], float | None]
    """From the pieces of a report, generated or held out."""
    shown: Callable[[list[float]], str] = with_spread
    """From what the seeds gave."""


def rows_of(record: Record) -> list[Row]:
    """All figures that reports like this one have."""
    rows = [Row("similarity error, %", lambda one: 100 * one["similarity_error"])]
    rows += [Row(METRIC_NAMES[name], _at(name, "mean")) for name in PIECE_METRICS]
    rows += [Row(f"overlap of {name}", _at("overlap", name)) for name in record["generated"]["overlap"]]
    return rows + [
        Row(f"longest copy, {name}", _at("copies", name, "longest"), lambda runs: f"{max(runs):.0f}")
        for name in READINGS
    ]


def _at(*keys: str) -> Callable[[Record], float | None]:
    def of(record: Record) -> float | None:
        found: Any = record
        for key in keys:
            found = found[key]
        return found

    return of


def music_table(results: list[Record]) -> str:
    """Figures by model, beside real music that nobody trained on; ± is half of what lies between the seeds."""
    names = list(dict.fromkeys(record["model"] for record in results))
    held_out = results[0]["report"].get("held_out")
    rows = []
    for row in rows_of(results[0]["report"]):
        cells = [row.label]
        for name in names:
            found = [row.of(record["report"]["generated"]) for record in results if record["model"] == name]
            known = [value for value in found if value is not None]
            cells.append(row.shown(known) if known else "")
        real = row.of(held_out) if held_out else None
        rows.append([*cells, "" if real is None else row.shown([real])])
    return table(["", *names, "held-out music"], rows)


def measure(options: Options) -> list[Record]:
    """A report for every model and seed; those that the file of results holds are taken from there.

    Raises:
        MeloFormerError: Weights or shards are missing or damaged, or a setting is wrong.
    """
    wanted, data = [], open_shards(options.shards).split("train").fingerprint
    for name, weights in options.models:
        model = {"model": name, "weights": sha256_of(weights_of(weights)), "data": data}
        for seed in options.seeds:
            given = {"evaluation.num": options.num, "generation.bars": options.bars, "generation.seed": seed}
            settings = load_settings(None, options.overrides, given)
            asked = {**model, "settings": _asked(settings)}
            found = next((one for one in read_results(options.results) if asked.items() <= one.items()), None)
            if found is None:
                report = evaluate_run(weights, options.shards, settings).to_dict()
                found = json.loads(json.dumps({**asked, "report": report}))
                write_result(options.results, found)
            error = found["report"]["generated"]["similarity_error"]
            say(f"{name}, seed {seed}: similarity error {100 * error:.2f} %")
            wanted.append(found)
    return wanted


def _asked(settings: Settings) -> dict[str, Any]:
    """What a report depends on, beside the model."""
    return {
        "generation": settings.generation.model_dump(mode="json", exclude={"device"}),
        "evaluation": settings.evaluation.model_dump(mode="json", exclude={"device"}),
    }


def _named(text: str) -> tuple[str, Path]:
    name, _, weights = text.partition("=")
    if not weights:
        raise argparse.ArgumentTypeError(f"{text} is not of the form NAME=WEIGHTS")
    return name, Path(weights)


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.music", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="+", type=_named, metavar="NAME=WEIGHTS")
    parser.add_argument("--shards", type=Path, required=True, help="what pack wrote")
    parser.add_argument("--results", type=Path, required=True, help="JSON lines; what is there is not measured again")
    parser.add_argument("--num", type=int, default=50, help="pieces of a model and seed")
    parser.add_argument("--bars", type=int, default=32)
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--set", dest="overrides", action="append", metavar="SECTION.FIELD=VALUE", help="for all")
    parser.add_argument("--write", action="store_true", help="put the table into docs/model.md, too")
    options = parser.parse_args(arguments, namespace=Options())
    try:
        tell(music_table(measure(options)), "music", write=options.write, page=PAGE)
    except MeloFormerError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()

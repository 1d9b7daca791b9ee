"""Train the model that the package brings along, or its rival, the plain transformer of the same width and depth.

    python -m experiments.packaged SHARDS --out FILE.safetensors --minutes 75 [--plain] [--set SECTION.FIELD=VALUE]

Both have the same music, rows and time, which on a CPU is CPU time. With ``--set training.init=FILE.safetensors`` they
go on from what this wrote before, on longer rows perhaps. The rival is written as a MeloFormer whose heads read the
whole document and that has no summaries, which computes the same; so it can be asked for music, too.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

import experiments.families  # noqa: F401 (the rival's heads are one of them)
from experiments.plain import PlainTransformer, as_meloformer
from experiments.results import Record, to_record
from experiments.run import Teller, say
from experiments.train import Budget, train_variant
from meloformer.errors import InputError, MeloFormerError
from meloformer.files import make_folder, write_text
from meloformer.model.weights import save_weights
from meloformer.settings_file import load_settings

RECIPE = ("model.size=tiny", "training.seq_len=4096", "training.batch_size=1")


class Options(argparse.Namespace):
    """What was asked for."""

    shards: Path
    out: Path
    minutes: float
    plain: bool
    overrides: list[str] | None


def train_packaged(options: Options) -> None:
    """Train for so many minutes; writes the weights in 16 bits, and beside them what came out as JSON.

    Raises:
        InputError, ShardError: The shards cannot be read.
        OutputError: There cannot be a folder for the weights.
        SettingsError: A setting is unknown or out of range.
    """
    settings = load_settings(None, options.overrides, {}, recipe=RECIPE)
    before = None if settings.training.init is None else _told_beside(settings.training.init)
    make_folder(options.out.parent)  # before the work begins
    told = Teller("plain" if options.plain else "ours")
    budget = Budget(minutes=options.minutes)
    (outcome,) = train_variant(options.shards, settings, [budget], plain=options.plain, told=told)
    model = outcome.model
    if isinstance(model, PlainTransformer):
        model = as_meloformer(model)
    save_weights(model.half(), options.out)
    record = to_record(outcome)
    if before is not None:  # steps, time and tokens are those of the weights from their very beginning
        record |= {name: before[name] + record[name] for name in ("steps", "seconds", "targets")}
    write_text(options.out.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
    say(f"{outcome.prediction.model.per_note:.4f} nats a note after {outcome.steps:,} steps")


def _told_beside(weights: Path) -> Record:
    beside = weights.with_suffix(".json")
    if not beside.is_file():
        raise InputError(f"there is no {beside}, which tells how {weights} was trained", "name what this program wrote")
    return json.loads(beside.read_text(encoding="utf-8"))


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.packaged", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("shards", type=Path, help="what pack wrote")
    parser.add_argument("--out", type=Path, required=True, help="weights; what came out stands beside them as JSON")
    parser.add_argument("--minutes", type=float, required=True, help="of CPU time, on CUDA of time")
    parser.add_argument("--plain", action="store_true", help="the rival")
    parser.add_argument("--set", dest="overrides", action="append", metavar="SECTION.FIELD=VALUE")
    options = parser.parse_args(arguments, namespace=Options())
    torch.set_num_threads(1)  # CPU time is then that of the training
    try:
        train_packaged(options)
    except MeloFormerError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()

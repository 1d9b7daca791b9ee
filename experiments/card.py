"""Write what the model of the package was trained on, and its losses, into its card, ``docs/model.md``.

python -m experiments.card SHARDS --ours FILE.json --plain FILE.json

The two files are those that ``experiments/packaged.py`` writes beside the weights.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from benchmarks.measure import table, write_section
from experiments.music import PAGE
from experiments.results import Record
from meloformer.errors import MeloFormerError
from meloformer.shards.manifest import DOCUMENTS_FILE
from meloformer.shards.records import read_records
from meloformer.shards.store import open_shards


class Source(NamedTuple):
    """Where music comes from."""

    what: str
    licence: str


_CORPUS = "public domain; encodings distributed with music21"
SOURCES = {
    "openscore_lieder": Source("[OpenScore Lieder](https://github.com/OpenScore/Lieder)", "CC0 1.0"),
    "easyrpg_rtp": Source("[EasyRPG RTP](https://github.com/EasyRPG/RTP)", "CC BY 4.0"),
    "freedoom": Source("[Freedoom](https://github.com/freedoom/freedoom)", "BSD 3-Clause"),
    "pianobooster": Source("[PianoBooster](https://github.com/pianobooster/PianoBooster)", "CC BY"),
    "corpus:bach": Source("music21's corpus, chorales of J. S. Bach", _CORPUS),
    "corpus:haydn": Source("music21's corpus, string quartets of Haydn", _CORPUS),
    "corpus:mozart": Source("music21's corpus, string quartets of Mozart", _CORPUS),
    "corpus:beethoven": Source("music21's corpus, string quartets of Beethoven", _CORPUS),
}
"""Folder of the names of documents -> what it is. Music of other sources is refused: its licence is not known."""


def data_table(shards: Path) -> str:
    """Documents, tokens and notes by source.

    Raises:
        InputError, ShardError: The shards are missing or damaged.
        MeloFormerError: A document is of a source that is not among ``SOURCES``.
    """
    open_shards(shards)
    counts = {name: [0, 0, 0] for name in SOURCES}
    for document in read_records(shards / DOCUMENTS_FILE):
        parts = PurePosixPath(document["name"]).parts
        source = next((part for part in parts if part in counts), None)
        if source is None:
            raise MeloFormerError(f"{document['name']} is of no source whose licence is known here")
        for place, amount in enumerate((1, document["tokens"], document["statistics"]["notes"])):
            counts[source][place] += amount
    rows = [
        [SOURCES[name].what, SOURCES[name].licence, *(f"{amount:,}" for amount in found)]
        for name, found in counts.items()
        if found[0]
    ]
    totals = [f"{sum(found[place] for found in counts.values()):,}" for place in range(3)]
    return table(["source", "licence", "pieces", "tokens", "notes"], [*rows, ["all", "", *totals]], num_words=2)


def loss_table(models: dict[str, Record]) -> str:
    """Losses in nats by model, and what they were trained."""
    unigram = next(iter(models.values()))["prediction"]["unigram"]
    losses = [*(one["prediction"]["model"] for one in models.values()), unigram]
    rows = [[f"a {unit}", *(f"{one[f'nats_per_{unit}']:.3f}" for one in losses)] for unit in ("note", "token")]
    rows += [[kind, *(f"{one['by_type'][kind]:.3f}" for one in losses)] for kind in unigram["by_type"]]
    rows += [
        [label, *(f"{one[name]:,}" for one in models.values()), ""]
        for label, name in (("weights", "parameters"), ("steps", "steps"), ("tokens predicted", "targets"))
    ]
    rows.append(["minutes of CPU time", *(f"{one['seconds'] / 60:.0f}" for one in models.values()), ""])
    return table(["", *models, "unigram"], rows)


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.card", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("shards", type=Path, help="what pack wrote")
    parser.add_argument("--ours", type=Path, required=True, metavar="FILE.json", help="what came of the model")
    parser.add_argument("--plain", type=Path, required=True, metavar="FILE.json", help="what came of its rival")
    parser.add_argument("--page", type=Path, default=PAGE, help="by default docs/model.md")
    options = parser.parse_args(arguments)
    missing = [str(path) for path in (options.ours, options.plain) if not path.is_file()]
    if missing:
        parser.error(f"there is no {' and no '.join(missing)}")
    models = {name: json.loads(getattr(options, name).read_text(encoding="utf-8")) for name in ("ours", "plain")}
    try:
        write_section(options.page, "data", data_table(options.shards))
    except MeloFormerError as error:
        raise SystemExit(f"error: {error}") from None
    write_section(options.page, "losses", loss_table(models))


if __name__ == "__main__":
    main()

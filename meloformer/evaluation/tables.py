"""A report as tables of text, for the terminal and for the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from meloformer.evaluation.evaluate import Report
from meloformer.evaluation.plots import LABELS, label_of
from meloformer.evaluation.prediction import DistanceBin, Prediction
from meloformer.evaluation.structure import READINGS, SetFigures, Spread

MAX_INSTRUMENTS = 12


class Table(NamedTuple):
    """A title, names of columns, and rows of text."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


METRIC_NAMES = {
    "pitch_class_entropy_1_bar": "pitch-class entropy, 1 bar",
    "pitch_class_entropy_4_bars": "pitch-class entropy, 4 bars",
    "pitch_class_entropy_16_bars": "pitch-class entropy, 16 bars",
    "groove_consistency": "groove consistency",
    "chord_share": "notes in the chord",
    "empty_bar_share": "empty bars",
    "polyphony": "polyphony",
    "range_semitones": "range, semitones",
    "notes_per_bar": "notes a bar",
    "instruments": "instruments",
    "passing_instruments": "passing instruments among them",
    "instrument_changes": "instruments that change, a bar",
}
"""By the names of ``structure.PIECE_METRICS``."""


def sets_of(report: Report) -> dict[str, SetFigures]:
    """All sets of pieces: those compared, then the corpus."""
    sets: dict[str, SetFigures] = {name: comparison.figures for name, comparison in report.compared.items()}
    return sets if report.corpus is None else {**sets, "corpus": report.corpus}


def tables_of(report: Report) -> list[Table]:
    """All tables of a report, in order."""
    tables = [] if report.prediction is None else prediction_tables(report.prediction, report.split)
    if report.compared:
        tables += [_music_table(report), _instrument_table(report)]
    return tables


def prediction_tables(prediction: Prediction, split: str) -> list[Table]:
    """Losses in all, by kind of token and by distance."""
    model, unigram = prediction.model, prediction.unigram
    rows = [("a note", f"{model.per_note:.3f}", f"{unigram.per_note:.3f}", f"{model.num_notes:,}")]
    num_targets = int(model.num_targets.sum())
    rows.append(("a token", f"{model.per_token:.3f}", f"{unigram.per_token:.3f}", f"{num_targets:,}"))
    counted = {
        name: int(count) for name, count in zip(model.by_type, model.num_targets[model.num_targets > 0], strict=True)
    }
    rows += [
        (f"  {name}", f"{nats:.3f}", f"{unigram.by_type[name]:.3f}", f"{counted[name]:,}")
        for name, nats in model.by_type.items()
    ]  # fmt: skip
    columns = ("", "model", "unigram", "predicted")
    tables = [Table(f"loss in nats, {split} split", columns, rows)]
    for unit, bins in (("tokens", prediction.by_tokens), ("bars", prediction.by_bars)):
        columns = (f"{unit} read before", "model", "unigram", "saved", "notes")
        tables.append(Table(f"nats a note, by {unit} of the piece read before", columns, _distance_rows(bins)))
    return tables


def _distance_rows(bins: Sequence[DistanceBin]) -> list[tuple[str, ...]]:
    return [
        (
            label_of(one),
            f"{one.model.per_note:.3f}",
            f"{one.unigram.per_note:.3f}",
            f"{one.saved:.1%}",
            f"{one.model.num_notes:,}",
        )
        for one in bins
        if one.model.num_notes
    ]


def _music_table(report: Report) -> Table:
    sets = sets_of(report)
    rows = [
        (label, *(f"{getattr(figures, name):,}" for figures in sets.values()))
        for label, name in (("pieces", "num_pieces"), ("bars", "num_bars"), ("notes", "num_notes"))
    ]
    for name, label in METRIC_NAMES.items():
        rows.append((label, *(_with_deviation(each.metrics[name]) for each in sets.values())))
    behind = [""] * (len(sets) - len(report.compared))
    compared = report.compared.values()
    rows.append(("similarity error", *(f"{100 * each.similarity_error:.2f} %" for each in compared), *behind))
    for kind in next(iter(compared)).overlap:
        rows.append((f"overlap of {kind}", *(_shown(each.overlap[kind]) for each in compared), *behind))
    for reading in READINGS:
        cells = (str(int(each.copies[reading].max())) for each in compared)
        rows.append((f"longest copy, {reading}", *cells, *behind))
    return Table("music, mean ± deviation between pieces", ("", *(LABELS[name] for name in sets)), rows)


def _with_deviation(spread: Spread) -> str:
    """``-`` where no piece has it."""
    return "-" if math.isnan(spread.mean) else f"{_shown(spread.mean)} ± {_shown(spread.deviation)}"


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _instrument_table(report: Report) -> Table:
    """The commonest instruments of the first set, beside the corpus."""
    first = next(iter(report.compared.values())).figures
    in_corpus = {one.program: one for one in report.corpus.instruments} if report.corpus else {}
    rows = []
    for one in first.instruments[:MAX_INSTRUMENTS]:
        other = in_corpus.get(one.program)
        beside = (f"{other.polyphony:.2f}", f"{other.lowest:.0f}-{other.highest:.0f}") if other else ("-", "-")
        rows.append(
            (one.name, f"{one.pieces:,}", f"{one.polyphony:.2f}", f"{one.lowest:.0f}-{one.highest:.0f}", *beside)
        )
    left_out = len(first.instruments) - MAX_INSTRUMENTS
    if left_out > 0:
        rows.append((f"... and {left_out} more", *[""] * 5))
    columns = ("", "pieces", "polyphony", "pitches", "polyphony, training split", "pitches, training split")
    return Table("instruments: notes at once, median lowest and highest pitch", columns, rows)

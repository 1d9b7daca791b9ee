"""A report as one HTML page that needs nothing beside it."""

from __future__ import annotations

from functools import partial
from html import escape
from pathlib import Path

from meloformer.evaluation.distributions import DISTRIBUTIONS
from meloformer.evaluation.evaluate import Report
from meloformer.evaluation.plots import (
    draw_copies,
    draw_distance,
    draw_distribution,
    draw_similarity,
    draw_types,
    svg_of,
)
from meloformer.evaluation.tables import Table, sets_of, tables_of
from meloformer.files import write_text

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d232b; max-width: 1180px; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.05rem; margin: 0 0 .4rem; }
.facts { color: #5b6470; margin: .2rem 0 1.6rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 500px), 1fr)); gap: 1.2rem; }
section { border: 1px solid #e2e5ea; border-radius: 8px; padding: 1rem 1.1rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { text-align: right; padding: .18rem .5rem; border-bottom: 1px solid #eef0f3; }
th:first-child, td:first-child { text-align: left; white-space: pre-wrap; } th { color: #5b6470; font-weight: 600; }
svg { width: 100%; height: auto; } .note { color: #5b6470; font-size: 13px; margin: .5rem 0 0; }
"""
NOTES = {
    "similarity": "How alike two bars are that lie so many bars apart: real music repeats itself. The similarity "
    "error is the mean distance between a curve and that of the training split.",
    "copies": "Held-out music shows what is common property. The dashed line stands at 32 notes.",
    "distance": "What was read before helps where the model's curve falls against the baseline's, which shows how "
    "hard the same notes are without any context.",
}


def write_page(report: Report, path: Path) -> None:
    """Write the page.

    Raises:
        OutputError: The path cannot be written.
    """
    write_text(path, page_of(report))


def page_of(report: Report) -> str:
    """The page as text."""
    sections = [_section(title, svg, NOTES.get(note, "")) for title, svg, note in _pictures(report)]
    sections += [_section(table.title, _table(table)) for table in tables_of(report)]
    facts = f"shards {report.shards}, {report.split} split, rows of {report.seq_len:,} tokens"
    if report.rejected:
        facts += f"; {len(report.rejected)} files could not be read"
    title = f"Evaluation of {report.run}"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n"
        f'<p class="facts">{escape(facts)}</p>\n<div class="grid">\n{"".join(sections)}</div></body></html>\n'
    )


def _pictures(report: Report) -> list[tuple[str, str, str]]:
    """Title, SVG and the key of a note for every picture."""
    found: list[tuple[str, str, str]] = []
    if report.prediction is not None:
        prediction = report.prediction
        by_tokens, by_bars = (
            svg_of(partial(draw_distance, bins=bins, unit=unit))
            for bins, unit in ((prediction.by_tokens, "tokens"), (prediction.by_bars, "whole bars"))
        )
        found += [
            ("Loss by tokens read before", by_tokens, "distance"),
            ("Loss by bars read before", by_bars, "distance"),
            ("Loss by kind of token", svg_of(partial(draw_types, prediction=prediction)), ""),
        ]
    if report.compared:
        sets = sets_of(report)
        found.append(("Similarity of bars", svg_of(partial(draw_similarity, sets=sets)), "similarity"))
        found += [
            (name.capitalize(), svg_of(partial(draw_distribution, sets=sets, kind=name)), "") for name in DISTRIBUTIONS
        ]
        found.append(("Copies from the training split", svg_of(partial(draw_copies, report=report)), "copies"))
    return found


def _section(title: str, content: str, note: str = "") -> str:
    below = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title[:1].upper() + title[1:])}</h2>{content}{below}</section>\n"


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = ("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"

"""What became of a folder, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from meloformer.cli import console

if TYPE_CHECKING:
    from meloformer.shards.pipeline import Report


def show_report(report: Report, out: Path, *, as_json: bool, quiet: bool) -> None:
    """Print counts, splits and the reasons of the rejects; they add up to the number of inputs.

    Raises:
        InputError: There were files, and none was kept.
    """
    from meloformer.errors import InputError

    if as_json:
        console.json_result({"out": str(out), **report.to_dict()})
    else:
        _show_tables(report, out, quiet=quiet)
    if report.inputs and not report.kept:
        told = next(path for path in (out / "rejects.jsonl", out / "manifest.jsonl") if path.is_file())
        raise InputError(f"none of {report.inputs:,} files was kept", f"{told} says why, file by file")


def _show_tables(report: Report, out: Path, *, quiet: bool) -> None:
    if report.resumed:
        console.say(f"went on behind {report.resumed:,} files that an interrupted run had done", quiet=quiet)
    if report.discarded:
        whose = "an interrupted run with other settings or files"
        console.say(f"threw away what {whose} had done, {report.discarded:,} files", quiet=quiet)
    rows: list[tuple[object, ...]] = [("kept", report.kept)]
    if report.recovered:
        rows.append(("  of them recovered from damage", report.recovered))
    rows += [(f"rejected: {reason}", count) for reason, count in report.reasons().items()]
    rows.append(("all inputs", report.inputs))
    console.table("files", ("", "count"), rows)
    if report.splits:
        console.table(
            "documents",
            ("split", "documents", "tokens"),
            [(name, counts.num_documents, counts.num_tokens) for name, counts in report.splits.items()],
        )
    if report.num_notes:
        facts = f"{report.num_tokens:,} tokens, {report.num_notes:,} notes, {report.tokens_per_note:.2f} tokens a note"
        console.result(facts)
    console.say(f"wrote {out}", quiet=quiet)

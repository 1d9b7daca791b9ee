"""Folder -> filtered list, tokens or shards: read every piece, judge it, write it, and account for every one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from meloformer.errors import OutputError
from meloformer.files import write_text
from meloformer.midi.quality import reject_reason
from meloformer.midi.sources import find_sources
from meloformer.settings import FilterSettings, PackSettings, Settings
from meloformer.shards.inputs import Pieces, open_pieces
from meloformer.shards.manifest import (
    FILES_OF,
    FILTERED,
    LIST_FILE,
    MANIFEST_FILE,
    FilterManifest,
    Split,
    sections_of,
)
from meloformer.shards.output import output_folder
from meloformer.shards.process import Piece, Reject, Result, Work, process_sources
from meloformer.shards.report import Progress, Report
from meloformer.shards.writing import write_line, write_shards
from meloformer.tokens.vocabulary import Vocabulary


def filter_pieces(
    arguments: Sequence[str | Path], out: Path, settings: Settings, *, progress: Progress | None = None
) -> Report:
    """Judge every file and write ``manifest.jsonl``: a line per file with what it is and why it was kept or not.

    Args:
        arguments: As :func:`~meloformer.midi.sources.find_sources` takes them.
        out: The folder to write.
        settings: Its sections ``filter``, ``tokens`` and ``pack.workers`` count.
        progress: Told of every file done.
    Raises:
        InputError: There is no music.
        OutputError: ``out`` cannot be written.
    """
    report = Report()
    sources = find_sources(arguments)
    path_of = {source.name: str(source.path.resolve()) for source in sources}
    with (
        closing(process_sources(sources, Work(settings, Vocabulary.default()))) as results,
        output_folder(out, FILTERED, FILES_OF[FILTERED]) as folder,
    ):
        with (folder / LIST_FILE).open("w", encoding="utf-8") as lines:
            for result in report.counted(_judged(results, settings.filter), len(sources), progress):
                write_line(lines, _list_record(result, path_of[result.name]))
        manifest = FilterManifest(
            num_inputs=report.inputs,
            num_kept=report.kept,
            rejects=dict(report.rejects.most_common()),
            settings=sections_of(settings, "filter", "tokens"),
        )
        write_text(folder / MANIFEST_FILE, manifest.model_dump_json(indent=1) + "\n")
    return report


def tokenize_pieces(
    arguments: Sequence[str | Path],
    out: Path,
    settings: Settings,
    vocabulary: Vocabulary | None = None,
    *,
    progress: Progress | None = None,
) -> Report:
    """Write every piece that can be written as tokens, unjudged, into one split called ``all``.

    Args and errors as for :func:`pack_pieces`.
    """
    pieces = open_pieces(arguments, settings, vocabulary)
    return _write(pieces, pieces.results, out, settings, lambda _: "all", progress)


def pack_pieces(
    arguments: Sequence[str | Path],
    out: Path,
    settings: Settings,
    vocabulary: Vocabulary | None = None,
    *,
    progress: Progress | None = None,
) -> Report:
    """Judge, tokenise and split every piece into train, val and test shards.

    Args:
        arguments: Files, folders, ``corpus:NAME``; or one folder that ``filter``, ``tokenize`` or ``pack`` wrote. What
            ``filter`` or ``pack`` kept is not judged again, and what was tokenised keeps its tokens: there the
            sections ``filter`` and ``tokens`` are those of that folder.
        out: The folder to write. The bytes in it are the same for any number of workers.
        settings: Its sections ``filter``, ``tokens`` and ``pack`` count.
        vocabulary: By default the full one, or that of the tokens.
        progress: Told of every file done.
    Raises:
        InputError: There is no music, or the list of files is damaged.
        OutputError: ``out`` cannot be written.
        ShardError: The tokens are damaged.
    """
    pieces = open_pieces(arguments, settings, vocabulary)
    results = pieces.results
    if not pieces.judged:
        results = _judged(results, settings.filter)
        pieces = replace(pieces, sections=sections_of(settings, "filter") | pieces.sections)
    return _write(pieces, results, out, settings, lambda key: split_of(key, settings.pack), progress)


def split_of(key: str, settings: PackSettings) -> Split:
    """The side that a content key falls on, whatever else the corpus holds."""
    position = int(key[:12], 16) / 16**12
    if position < settings.test_share:
        return "test"
    return "val" if position < settings.test_share + settings.val_share else "train"


def _write(
    pieces: Pieces,
    results: Iterable[Result],
    out: Path,
    settings: Settings,
    split_for: Callable[[str], Split],
    progress: Progress | None,
) -> Report:
    """Write shards of ``results``, which come from ``pieces``."""
    if pieces.folder is not None and out.resolve() == pieces.folder.resolve():
        raise OutputError(f"{out} is the input, so it is not replaced", "choose another --out")
    report = Report()
    with closing(pieces.results):
        write_shards(
            report.counted(results, pieces.total, progress),
            report,
            out,
            settings=settings.pack,
            sections=pieces.sections | sections_of(settings, "pack"),
            vocabulary=pieces.vocabulary,
            split_of=split_for,
        )
    return report


def _judged(results: Iterable[Result], settings: FilterSettings) -> Iterator[Result]:
    """Pieces that break a rule, or repeat an earlier piece, become rejects."""
    first_with: dict[str, str] = {}
    for result in results:
        if isinstance(result, Reject):
            yield result
            continue
        broken = reject_reason(result.statistics, settings)
        if broken is None and not settings.keep_duplicates:
            earlier = first_with.setdefault(result.content_key, result.name)
            if earlier != result.name:
                broken = "duplicate", f"the same notes as {earlier}"
        yield result if broken is None else result.rejected(*broken)


def _list_record(result: Result, path: str) -> dict[str, Any]:
    """A line of ``manifest.jsonl``: what is known of a file, and whether it is kept."""
    record: dict[str, Any] = {"name": result.name, "path": path, "keep": isinstance(result, Piece)}
    if isinstance(result, Reject):
        record |= {"reason": result.reason, "message": result.message}
    facts = None if result.statistics is None else asdict(result.statistics)
    return record | {"sha256": result.sha256, "content_key": result.content_key, "statistics": facts}

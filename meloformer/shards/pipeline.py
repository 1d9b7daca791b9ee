"""Folder -> filtered list, tokens or shards: read every piece, judge it, write it, and account for every one."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from meloformer.errors import InputError, OutputError, SettingsError
from meloformer.midi.quality import reject_reason
from meloformer.midi.sources import find_sources
from meloformer.settings import FilterSettings, PackSettings, Settings
from meloformer.shards.inputs import Pieces, music_pieces, open_pieces
from meloformer.shards.manifest import FILES_OF, FILTERED, FORMAT_VERSION, SHARDS, Sections, Split, sections_of
from meloformer.shards.output import GrowingFolder, growing_folder
from meloformer.shards.process import Reject, Result, Work
from meloformer.shards.report import Progress, Report
from meloformer.shards.writing import FilteredList, Output, ShardSet, short_key
from meloformer.tokens.vocabulary import Vocabulary
from meloformer.version import __version__

COMMIT_SECONDS = 1.0
"""What a killed run has to do again; a commit takes some milliseconds."""


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
    sections = sections_of(settings, "filter", "tokens")
    pieces = music_pieces(find_sources(arguments), Work(settings, Vocabulary.default()))
    _warn_of_idle_patterns(pieces, settings.filter.exclude)
    job = _Job(FILTERED, pieces, FilteredList(sections), sections, judge=settings.filter)
    return _run(job, out, progress)


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
    sections = pieces.sections | sections_of(settings, "pack")
    _warn_of_ignored(pieces, settings)
    output = ShardSet(settings.pack, sections, pieces.vocabulary, lambda _: "all")
    return _run(_Job(SHARDS, pieces, output, sections), out, progress)


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
    sections = pieces.sections | sections_of(settings, "pack")
    _warn_of_ignored(pieces, settings)
    if not pieces.judged:
        _warn_of_idle_patterns(pieces, settings.filter.exclude)
        sections = sections_of(settings, "filter") | sections
    output = ShardSet(settings.pack, sections, pieces.vocabulary, lambda key: split_of(key, settings.pack))
    return _run(_Job(SHARDS, pieces, output, sections, judge=None if pieces.judged else settings.filter), out, progress)


def split_of(key: str, settings: PackSettings) -> Split:
    """The side that a content key falls on, whatever else the corpus holds."""
    position = int(key[:12], 16) / 16**12
    if position < settings.test_share:
        return "test"
    return "val" if position < settings.test_share + settings.val_share else "train"


def _warn_of_ignored(pieces: Pieces, settings: Settings) -> None:
    """Say where settings were given that an earlier stage has settled.

    Raises:
        SettingsError: Pieces are to be excluded that it has kept.
    """
    if pieces.judged and not set(settings.filter.exclude) <= set(pieces.sections["filter"].get("exclude", ())):
        raise SettingsError(
            f"filter.exclude has no effect: {pieces.folder} was judged without it", "give --exclude where it is made"
        )
    for name, given in (("filter", settings.filter), ("tokens", settings.tokens)):
        settled = pieces.folder is not None and (name == "filter" or not pieces.sources) and name in pieces.sections
        if settled and given.model_fields_set and given.model_dump(mode="json") != pieces.sections[name]:
            warnings.warn(f"settings of {name} have no effect: {pieces.folder} was made with its own", stacklevel=3)


def _warn_of_idle_patterns(pieces: Pieces, patterns: Iterable[str]) -> None:
    """Say which patterns leave nothing out: one that is misspelt keeps what was not to be kept."""
    for pattern in patterns:
        if pieces.sources and not any(_fits(source.name, pattern) for source in pieces.sources):
            warnings.warn(f"no name fits {pattern!r} of filter.exclude", stacklevel=3)


@dataclass(frozen=True)
class _Job:
    """What a stage does."""

    kind: str
    """The ``format`` of what it writes."""
    pieces: Pieces
    output: Output
    sections: Sections
    """Settings that the output depends on."""
    judge: FilterSettings | None = None
    """The rules to judge by; ``None`` where everything is kept."""

    def key(self) -> str:
        """Equal for jobs that write the same bytes, as far as that can be told without reading the input."""
        facts = (self.kind, FORMAT_VERSION, __version__, self.sections, self.judge is not None)
        vocabulary = self.pieces.vocabulary.sha256
        return hashlib.sha256(json.dumps([*facts, vocabulary, self.pieces.key]).encode()).hexdigest()


def _run(job: _Job, out: Path, progress: Progress | None) -> Report:
    """Do a job, from where an earlier run of it was interrupted.

    Raises:
        KeyboardInterrupt: It was interrupted; what is done is kept.
    """
    pieces = job.pieces
    if pieces.folder is not None and out.resolve() == pieces.folder.resolve():
        raise OutputError(f"{out} is the input, so it is not replaced", "choose another --out")
    with growing_folder(out, job.kind, FILES_OF[job.kind], job.key()) as folder:
        try:
            report, kept = _restored(job, folder)
            try:
                with closing(pieces.read(folder.done)) as read:
                    results = read if job.judge is None else _judged(read, pieces, folder.done, job.judge, kept)
                    _write_all(results, job, folder, report, progress)
                if not report.kept and out.is_dir() and any(out.iterdir()):
                    reasons = ", ".join(f"{reason} {count}" for reason, count in report.reasons().items())
                    raise InputError(f"none of {report.inputs:,} files is kept ({reasons}), so {out} is not replaced")
                job.output.finish(report)
            finally:
                job.output.close()
        except KeyboardInterrupt:
            done = f"{folder.done:,} of {pieces.total:,} files are done and kept"
            raise KeyboardInterrupt(f"interrupted; {done}; to go on:") from None
    return report


def _restored(job: _Job, folder: GrowingFolder) -> tuple[Report, dict[bytes, str]]:
    """What an earlier run has done, and the short content keys and names of what it kept where pieces are judged."""
    kept: dict[bytes, str] = {}
    report = Report(resumed=folder.done, discarded=folder.discarded)
    try:
        job.output.restore(folder.path, report, None if job.judge is None else kept)
        if report.inputs == folder.done:
            return report, kept
        job.output.close()
    except (ValueError, KeyError, TypeError):  # its records are damaged
        pass
    folder.begin_anew()
    report = Report()
    job.output.restore(folder.path, report, None)
    return report, {}


def _write_all(
    results: Iterable[Result], job: _Job, folder: GrowingFolder, report: Report, progress: Progress | None
) -> None:
    """Write every result, commit now and then, and at the end or when interrupted."""
    total, last_commit, is_between = job.pieces.total, time.monotonic(), True
    try:
        for result in results:
            is_between = False
            job.output.add(result, job.pieces.path(report.inputs))
            report.count(result)
            is_between = True
            if time.monotonic() - last_commit > COMMIT_SECONDS:
                folder.commit(report.inputs, job.output.sync())
                last_commit = time.monotonic()
            if progress is not None:
                progress(report.inputs, total)
    except KeyboardInterrupt:
        if is_between:
            folder.commit(report.inputs, job.output.sync())
        raise
    folder.commit(report.inputs, job.output.sync())


def _judged(
    results: Iterable[Result], pieces: Pieces, done: int, settings: FilterSettings, kept: dict[bytes, str]
) -> Iterator[Result]:
    """Pieces that break a rule, or repeat an earlier piece, become rejects.

    Args:
        results: To be judged, in the order of ``pieces``.
        pieces: Where they come from.
        done: How many an earlier run of this job has done.
        settings: The rules.
        kept: Short content key -> name of the pieces that it kept.
    """
    for index, result in enumerate(results, done):
        if isinstance(result, Reject):
            yield result
            continue
        pattern = next((each for each in settings.exclude if _fits(result.name, each)), None)
        if pattern is None:
            broken = reject_reason(result.statistics, settings)
        else:
            broken = "excluded", f"its name fits {pattern!r} of filter.exclude"
        if broken is None and result.recovered is not None and not settings.keep_recovered:
            broken = "recovered", result.recovered
        if broken is None and not settings.keep_duplicates:
            # the name that is in memory already: a million copies of names are 100 MB
            name = pieces.sources[index].name if pieces.sources else result.name
            earlier = kept.setdefault(short_key(result.content_key), name)
            if earlier != name:
                broken = "duplicate", f"the same notes as {earlier}"
        yield result if broken is None else result.rejected(*broken)


def _fits(name: str, pattern: str) -> bool:
    """Whether a file's name fits, with or without folders before it, or a folder's; ``[`` stands for itself."""
    wanted = "*/" + pattern.replace("[", "[[]").removesuffix("/")
    return any(fnmatchcase(f"/{name}", each) for each in (wanted, f"{wanted}/*"))

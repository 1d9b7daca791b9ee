"""From what a user names (files, folders, ``corpus:bach``) to pieces that can be read, one by one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from meloformer.errors import InputError, RejectError
from meloformer.midi.read import Sustain, parse_midi
from meloformer.midi.score import Score
from meloformer.midi.score_formats import SCORE_SUFFIXES, parse_score

MIDI_SUFFIXES = (".mid", ".midi", ".kar", ".rmi")
CORPUS = "corpus:"


@dataclass(frozen=True)
class Source:
    """One file that may hold a piece."""

    name: str
    """Unique in one run: the path below the folder that was named."""
    path: Path


def find_sources(arguments: Sequence[str | Path]) -> list[Source]:
    """Every piece below what a user named, sorted by name.

    Args:
        arguments: Files, folders (searched to any depth; files whose suffix is not of music are passed over), and
            ``corpus:NAME`` for a folder, ``corpus:NAME/WORK`` for a work of music21's bundled corpus.
    Raises:
        InputError: A path does not exist or cannot be read, or nothing below it is a MIDI or score file.
    """
    found: dict[str, Source] = {}
    for argument in arguments:
        sources = list(_sources_of(str(argument)))
        for source in sources:
            found.setdefault(source.name if len(arguments) == 1 else f"{argument}/{source.name}", source)
        if not sources:
            kinds = " ".join((*MIDI_SUFFIXES, *SCORE_SUFFIXES))
            raise InputError(f"there is no music in {argument} (looked for {kinds})")
    return [Source(name, found[name].path) for name in sorted(found)]


def _sources_of(argument: str) -> Iterator[Source]:
    if argument.startswith(CORPUS):
        yield from _corpus_sources(argument.removeprefix(CORPUS))
        return
    path = Path(argument)
    if not path.exists():
        raise InputError(f"there is no file or folder {argument}")
    if path.is_file():
        yield Source(path.name, path)
        return

    def refuse(error: OSError) -> None:
        raise InputError(f"cannot read the folder {error.filename}: {error.strerror}")

    for folder, subfolders, names in os.walk(path, onerror=refuse, followlinks=True):
        subfolders[:] = [name for name in subfolders if not _leads_back(Path(folder, name), path)]
        for name in names:
            if name.lower().endswith((*MIDI_SUFFIXES, *SCORE_SUFFIXES)) and not name.startswith("."):
                file = Path(folder, name)
                yield Source(file.relative_to(path).as_posix(), file)


def _leads_back(folder: Path, root: Path) -> bool:
    """Whether a folder is a link to one of those between it and ``root``, so that a walk would never end."""
    if not folder.is_symlink():
        return False
    target = folder.resolve()
    between = [parent for parent in folder.parents if parent == root or root in parent.parents]
    return any(parent.resolve() == target for parent in between)


def _corpus_sources(name: str) -> Iterator[Source]:
    from music21 import corpus
    from music21.corpus.corpora import CoreCorpus

    folder, _, work = name.partition("/")
    root = Path(next(iter(CoreCorpus().getPaths()))).parents[0]
    paths = [Path(path) for path in corpus.getComposer(folder)] if folder else []
    wanted = [path for path in paths if path.suffix.lower() in SCORE_SUFFIXES and (not work or path.stem == work)]
    if not wanted:
        raise InputError(
            f"music21's corpus has nothing called {name!r}", "try corpus:bach, corpus:palestrina or corpus:bach/bwv66.6"
        )
    for path in wanted:
        try:
            relative = path.relative_to(root.parent).as_posix()
        except ValueError:
            relative = f"{folder}/{path.name}"
        yield Source(relative, path)


def read_bytes(source: Source, *, max_bytes: int) -> bytes:
    """The bytes of a source.

    Raises:
        RejectError: ``too-large`` past ``max_bytes``; ``unreadable`` where the file cannot be opened.
    """
    try:
        size = source.path.stat().st_size
        if size > max_bytes:
            raise RejectError("too-large", f"the file has {size:,} bytes, more than {max_bytes:,}")
        return source.path.read_bytes()
    except OSError as error:
        raise RejectError("unreadable", f"the file cannot be opened: {error.strerror or error}") from None


def parse_source(source: Source, data: bytes, *, sustain: Sustain = "ignore") -> Score:
    """The score in ``data``, the bytes of ``source``, whose suffix says what they are.

    Raises:
        RejectError: The content is no music that can be read.
    """
    if source.path.suffix.lower() in SCORE_SUFFIXES:
        return parse_score(source.path)
    return parse_midi(data, sustain=sustain)

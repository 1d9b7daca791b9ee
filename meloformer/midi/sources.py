"""From what a user names (files, folders, ``corpus:bach``) to pieces that can be read, one by one."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from meloformer.errors import InputError, RejectError
from meloformer.midi.read import Sustain, parse_midi
from meloformer.midi.score import Score
from meloformer.midi.score_formats import SCORE_SUFFIXES, parse_abc, parse_score

MIDI_SUFFIXES = (".mid", ".midi", ".kar", ".rmi")
CORPUS = "corpus:"
_TUNE_NAME = re.compile(r"(.+\.abc)#(\d+)", re.IGNORECASE)
_TUNE_START = re.compile(rb"^X:", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Source:
    """One file that may hold a piece. There may be millions of them in memory."""

    name: str
    """Unique in one run: the path below the folder that was named; ``book.abc#12`` is the twelfth tune of a book."""
    place: str
    """The path of the file, as text: a ``Path`` takes several times the memory."""

    @property
    def path(self) -> Path:
        """The path of the file."""
        return Path(self.place)

    @property
    def tune(self) -> int | None:
        """Number of the tune in a book of several, from 1; ``None`` where the piece is the whole file."""
        match = _TUNE_NAME.fullmatch(self.name)
        return int(match[2]) if match else None


def find_sources(arguments: Sequence[str | Path]) -> list[Source]:
    """Every piece below what a user named, sorted by name.

    Args:
        arguments: Files, folders (searched to any depth; files whose suffix is not of music are passed over),
            ``book.abc#12`` for one tune of a book, ``corpus:NAME`` for a folder and ``corpus:NAME/WORK`` for a work of
            music21's bundled corpus.

    Raises:
        InputError: A path does not exist or cannot be read, or nothing below it is a MIDI or score file.
    """
    names = list(dict.fromkeys(str(argument) for argument in arguments))
    last_parts = Counter(_last_part(name) for name in names)
    found: list[Source] = []
    for name in names:
        sources = list(_sources_of(name))
        if not sources:
            kinds = " ".join((*MIDI_SUFFIXES, *SCORE_SUFFIXES))
            raise InputError(f"there is no music in {name} (looked for {kinds})")
        if len(names) > 1:
            is_unique = last_parts[_last_part(name)] == 1
            sources = [_renamed(source, name, is_unique=is_unique) for source in sources]
        found += sources
    if len(names) > 1:  # one file may lie below two of them
        found = list({(os.path.abspath(source.place), source.tune): source for source in reversed(found)}.values())  # noqa: PTH100 (links stay apart)
    found.sort(key=lambda source: source.name)
    return found


def _last_part(argument: str) -> str:
    """The last part of a path; of ``.`` and ``..`` that of what they stand for."""
    name = Path(argument).name
    return name if name not in ("", "..") else Path(argument).resolve().name


def _renamed(source: Source, argument: str, *, is_unique: bool) -> Source:
    """The source under a name that begins with what the user named: its last part, or all of it where that is taken."""
    if argument.startswith(CORPUS):
        return replace(source, name=f"{CORPUS}{source.name}")
    if Path(argument).is_dir():
        return replace(source, name=f"{_last_part(argument) if is_unique else argument}/{source.name}")
    return source if is_unique else replace(source, name=str(Path(argument).parent / source.name))


def _sources_of(argument: str) -> Iterator[Source]:
    if argument.startswith(CORPUS):
        yield from _corpus_sources(argument.removeprefix(CORPUS))
        return
    if not argument:
        raise InputError("one of the names is empty", "is it a variable that is not set?")
    path = Path(argument)
    tune_name = _TUNE_NAME.fullmatch(argument)
    if tune_name and not path.exists() and Path(tune_name[1]).is_file():
        path, number = Path(tune_name[1]), int(tune_name[2])
        wanted = [source for source in _tunes_of(path.name, str(path)) if source.tune == number]
        if not wanted:
            raise InputError(f"{path} has no tune number {number}")
        yield from wanted
        return
    if not path.exists():
        raise InputError(f"there is no file or folder {argument}")
    if not path.is_dir():
        yield from _tunes_of(path.name, str(path))
        return

    root = str(path)
    unreadable: list[str] = []

    def note(error: OSError) -> None:
        if error.filename == root:
            raise InputError(f"cannot read the folder {root}: {error.strerror}")
        unreadable.append(str(error.filename))

    for folder, subfolders, names in os.walk(root, onerror=note, followlinks=True):
        subfolders[:] = [name for name in subfolders if not _leads_back(Path(folder, name), path)]
        below = "" if folder == root else Path(folder).relative_to(path).as_posix() + "/"
        for name in names:
            if name.lower().endswith((*MIDI_SUFFIXES, *SCORE_SUFFIXES)) and not name.startswith("."):
                yield from _tunes_of(below + name, f"{folder}{os.sep}{name}")
    for folder in unreadable:  # nobody knows what is in it: it is accounted for as one
        yield Source(f"{Path(folder).relative_to(path).as_posix()}/", folder)


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
        yield from _tunes_of(relative, str(path))


def _tunes_of(name: str, place: str) -> list[Source]:
    """The file, or every tune of an ABC file that holds several (each begins with its own ``X:`` line)."""
    if not name.lower().endswith(".abc"):
        return [Source(name, place)]
    try:
        count = len(_TUNE_START.findall(Path(place).read_bytes()))
    except OSError:
        count = 1  # reading it will say why it cannot be read
    width = len(str(count))
    if count < 2:
        return [Source(name, place)]
    return [Source(f"{name}#{tune:0{width}}", place) for tune in range(1, count + 1)]


def read_bytes(source: Source, *, max_bytes: int) -> bytes:
    """The bytes of a source; of a tune in a book only its own, after what stands before the first.

    Raises:
        RejectError: ``too-large`` past ``max_bytes``; ``unreadable`` where the file cannot be opened.
    """
    try:
        facts = source.path.stat()
        if not stat.S_ISREG(facts.st_mode):
            what = "a folder that cannot be read" if stat.S_ISDIR(facts.st_mode) else "no ordinary file"
            raise RejectError("unreadable", f"it is {what}")
        if facts.st_size > max_bytes:
            raise RejectError("too-large", f"the file has {facts.st_size:,} bytes, more than {max_bytes:,}")
        data = source.path.read_bytes()
    except OSError as error:
        raise RejectError("unreadable", f"the file cannot be opened: {error.strerror or error}") from None
    if source.tune is None:
        return data
    bounds = [match.start() for match in _TUNE_START.finditer(data)] + [len(data)]
    if source.tune >= len(bounds):
        raise RejectError("unreadable", f"the file has {len(bounds) - 1} tunes, no number {source.tune}")
    return data[: bounds[0]] + data[bounds[source.tune - 1] : bounds[source.tune]]


def parse_source(source: Source, data: bytes, *, sustain: Sustain = "ignore") -> Score:
    """The score in ``data``, the bytes of ``source``, whose suffix says what they are.

    Raises:
        RejectError: The content is no music that can be read.
    """
    suffix = source.path.suffix.lower()
    if suffix == ".abc":
        return parse_abc(data)
    if suffix in SCORE_SUFFIXES:
        return parse_score(source.path)
    return parse_midi(data, sustain=sustain)


def score_of(source: Source, *, max_bytes: int, sustain: Sustain = "ignore") -> Score:
    """The score of a source, as it was written.

    Raises:
        RejectError: It cannot be read, or has more than ``max_bytes``.
    """
    return parse_source(source, read_bytes(source, max_bytes=max_bytes), sustain=sustain)


def read_source(name: str, *, max_bytes: int = 4_000_000, sustain: Sustain = "ignore") -> Score:
    """The score of the one piece that a user named.

    Raises:
        InputError: There is not exactly one piece of that name.
        RejectError: It cannot be read; names it.
    """
    found = find_sources([name])
    if len(found) != 1:
        raise InputError(f"{name} holds {len(found)} pieces, not one", "name one file")
    try:
        return score_of(found[0], max_bytes=max_bytes, sustain=sustain)
    except RejectError as error:
        raise RejectError(error.reason, f"{name}: {error.message}") from None

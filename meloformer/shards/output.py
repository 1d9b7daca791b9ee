"""Folders that a stage writes: they grow out of sight, go on after an interruption, and replace nothing else.

The folder ``shards`` grows as ``.shards.meloformer.part`` beside it. From time to time the stage commits: how many
inputs are done, and how long every file is at that point. Whatever ends the process, the next run of the same command
cuts the files back to those lengths and goes on behind them, so the bytes at the end are those of a run that nothing
disturbed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path

from meloformer.errors import InputError, MeloFormerError, OutputError, ShardError
from meloformer.files import cannot_write, replace_folder, write_text
from meloformer.shards.manifest import format_of

STATE_FILE = ".progress.json"
_ELSEWHERE = "choose another --out"


class GrowingFolder:
    """A folder to append to; see :func:`growing_folder`.

    Attributes:
        path: Where it is for now.
        done: Number of inputs that an earlier run of the same work finished; the files are as they were then.
        discarded: Number of inputs that a run of other work had finished here, which is thrown away.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self._key = key
        self.discarded = 0
        self.done = self._go_on()

    def _go_on(self) -> int:
        """Cut the files back to the last commit; without one of the same work begin with an empty folder."""
        try:
            state = json.loads((self.path / STATE_FILE).read_text(encoding="utf-8"))
            sizes: dict[str, int] = state["files"]
            is_ours = state["key"] == self._key
            is_whole = is_ours and all((self.path / name).stat().st_size >= size for name, size in sizes.items())
            done = int(state["done"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            is_ours, is_whole, sizes, done = True, False, {}, 0
        self.discarded = 0 if is_ours else done
        for entry in list(self.path.iterdir()):
            if is_whole and entry.name in sizes:
                os.truncate(entry, sizes[entry.name])
            elif not (is_whole and entry.name == STATE_FILE):
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        return done if is_whole else 0

    def begin_anew(self) -> None:
        """Forget what an earlier run has done."""
        (self.path / STATE_FILE).unlink(missing_ok=True)
        self.done = self._go_on()

    def commit(self, done: int, sizes: Mapping[str, int]) -> None:
        """Make sure that a later run can go on from here.

        Args:
            done: Number of inputs that are finished.
            sizes: File -> its length in bytes, all of which has reached the disk.
        """
        self.done = done
        write_text(self.path / STATE_FILE, json.dumps({"key": self._key, "done": done, "files": dict(sizes)}))


@contextmanager
def growing_folder(path: Path, kind: str, owns: Collection[str], key: str) -> Iterator[GrowingFolder]:
    """A folder to fill; at the end it takes the place of ``path``.

    Whatever goes wrong, a full disk perhaps, it stays beside ``path`` for the next run to go on with; only where the
    input is to blame, which will be another one the next time, it vanishes.

    Args:
        path: Final place. An earlier output of the same kind is replaced, anything else is left alone.
        kind: The ``format`` in the manifest that the caller writes.
        owns: Patterns of the file names that such an output consists of. A folder that holds anything else is not
            replaced, so that nothing that a user put there is lost.
        key: Equal for runs that write the same bytes: only such a run goes on with what another left.
    Raises:
        OutputError: ``path`` is something else, or cannot be written, or another run is writing it.
    """
    try:
        _refuse_foreign(path, kind, (*owns, STATE_FILE))
        place = path.resolve()  # "." has no name, and a link is not what is to be replaced
        # names that nobody else has: what lies there is emptied
        part, earlier = (place.with_name(f".{place.name}.meloformer.{kind}") for kind in ("part", "old"))
        _finish_exchange(place, part, earlier, key)
        part.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError, RuntimeError) as error:  # a null byte: ValueError; a loop of links: RuntimeError
        raise cannot_write(path, error) from None
    with _locked(part, path):
        try:
            folder = GrowingFolder(part, key)
            yield folder
            replace_folder(place, by=part, earlier=earlier)
            (place / STATE_FILE).unlink(missing_ok=True)
        except OSError as error:
            raise _going_on(cannot_write(path, error), part) from None
        except OutputError as error:
            raise _going_on(error, part) from None
        except MeloFormerError as error:
            if isinstance(error, InputError | ShardError) or not (part / STATE_FILE).exists():
                shutil.rmtree(part, ignore_errors=True)
            raise


def _finish_exchange(place: Path, part: Path, earlier: Path, key: str) -> None:
    """Clear up after a run that was killed while its folder took its place."""
    if (place / STATE_FILE).exists():  # all but the last step was done
        if not part.exists() and _key_in(place) == key:
            place.rename(part)
        else:
            (place / STATE_FILE).unlink()
    if earlier.exists() and not place.exists():
        earlier.rename(place)
    shutil.rmtree(earlier, ignore_errors=True)


def _key_in(folder: Path) -> str | None:
    """Of the run that wrote a folder."""
    try:
        return json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _going_on(error: OutputError, part: Path) -> OutputError:
    """The error, with what the user can do; a folder with nothing to go on with vanishes."""
    if (part / STATE_FILE).exists():
        return OutputError(error.message, "then run the same command again: it goes on where it was")
    shutil.rmtree(part, ignore_errors=True)
    return error


@contextmanager
def _locked(folder: Path, path: Path) -> Iterator[None]:
    """Hold a folder for this process, where the system can lock; the lock ends with the process, however it ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise cannot_write(path, error) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"another run is writing {path}", f"wait for it, or {_ELSEWHERE}") from None
        except OSError:  # a network file system without locks
            pass
        yield
    finally:
        with suppress(OSError):
            os.close(descriptor)


def _refuse_foreign(path: Path, kind: str, owns: Collection[str]) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise OutputError(f"{path} is a file, not a folder", _ELSEWHERE)
    names = sorted(entry.name for entry in path.iterdir())
    if not names:
        return
    found = format_of(path)
    if found != kind:
        what = f"holds {found}" if found else "is not empty and was not made by MeloFormer"
        raise OutputError(f"{path} {what}, so it is not replaced by {kind}", _ELSEWHERE)
    for name in names:
        if not any(fnmatchcase(name, pattern) for pattern in owns) or (path / name).is_dir():
            raise OutputError(
                f"{path} holds {name}, which is no part of {kind}, so it is not replaced",
                f"move {name} away, or {_ELSEWHERE}",
            )

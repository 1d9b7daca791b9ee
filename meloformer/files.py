"""Files and folders that appear under their name only when they are whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from meloformer.errors import OutputError


def cannot_write(path: Path, error: Exception) -> OutputError:
    """The one sentence for a path that cannot be written."""
    return OutputError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}")


def make_folder(folder: Path) -> None:
    """A folder for results, made before the work begins; one that is there already stays as it is.

    Raises:
        OutputError: It cannot be one.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from None


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write to; it takes the place of ``path`` at the end, and vanishes on any exception.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    try:
        place = path.resolve()  # a link is not what is to be replaced
        beside = place.with_name(f".{place.name}.{os.getpid()}.part")
    except (OSError, ValueError, RuntimeError) as error:  # a null byte: ValueError; a loop of links: RuntimeError
        raise cannot_write(path, error) from None
    try:
        yield beside
        beside.replace(place)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        with suppress(OSError):
            beside.unlink()


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder beside ``path`` to fill; it takes the place of ``path`` at the end, and vanishes on any exception.

    A folder that stands at ``path`` already is replaced; it comes back where that fails.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    try:
        place = path.resolve()  # "." has no name, and a link is not what is to be replaced
        beside = place.with_name(f".{place.name}.{os.getpid()}.part")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
    except (OSError, ValueError, RuntimeError) as error:  # a null byte: ValueError; a loop of links: RuntimeError
        raise cannot_write(path, error) from None
    try:
        yield beside
        replace_folder(place, by=beside, earlier=place.with_name(f".{place.name}.{os.getpid()}.old"))
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def replace_folder(place: Path, *, by: Path, earlier: Path) -> None:
    """Put a finished folder in its place; one that stands there goes away, or comes back where that fails.

    Args:
        place: Where the folder belongs.
        by: The folder, beside it.
        earlier: Where the one that stands there lies for the moment of the exchange.
    Raises:
        OSError: It cannot be done.
    """
    stood_there = place.exists()
    if stood_there:
        place.rename(earlier)
    try:
        by.rename(place)
    except OSError:
        if stood_there:
            earlier.rename(place)
        raise
    shutil.rmtree(earlier, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file.

    Raises:
        OutputError: The path cannot be written.
    """
    with whole_file(path) as beside:
        beside.write_text(text, encoding="utf-8")

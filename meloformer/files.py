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
        earlier = place.with_name(f".{place.name}.{os.getpid()}.old") if place.exists() else None
        if earlier is not None:
            place.rename(earlier)
        try:
            beside.rename(place)
        except OSError:
            if earlier is not None:
                earlier.rename(place)
            raise
        if earlier is not None:
            shutil.rmtree(earlier, ignore_errors=True)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file.

    Raises:
        OutputError: The path cannot be written.
    """
    with whole_file(path) as beside:
        beside.write_text(text, encoding="utf-8")

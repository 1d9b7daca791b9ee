"""Folders that appear under their name only when they are whole, and files likewise."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from meloformer.errors import OutputError

MANIFEST_FILE = "manifest.json"


@contextmanager
def output_folder(path: Path, kind: str) -> Iterator[Path]:
    """A new folder to fill; on success it takes the place of ``path``, on any exception it vanishes.

    Args:
        path: Final place. An earlier output of the same kind is replaced, anything else is left alone.
        kind: The ``format`` in the manifest that the caller writes.
    Raises:
        OutputError: ``path`` is something else, or cannot be written.
    """
    _refuse_foreign(path, kind)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
    try:
        yield beside
        if path.exists():
            earlier = path.with_name(f".{path.name}.{os.getpid()}.old")
            path.rename(earlier)
            beside.rename(path)
            shutil.rmtree(earlier)
        else:
            beside.rename(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _refuse_foreign(path: Path, kind: str) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise OutputError(f"{path} is a file, not a folder", "choose another --out")
    if not any(path.iterdir()):
        return
    try:
        found = json.loads((path / MANIFEST_FILE).read_text(encoding="utf-8"))["format"]
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    if found != kind:
        what = f"holds {found}" if found else "is not empty and was not made by MeloFormer"
        raise OutputError(f"{path} {what}, so it is not replaced by {kind}", "choose another --out")


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears only when it is whole.

    Raises:
        OutputError: The path cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None

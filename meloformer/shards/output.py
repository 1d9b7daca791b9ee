"""Folders that a stage writes: they replace an earlier output of the same stage and nothing else."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from meloformer.errors import OutputError
from meloformer.files import cannot_write, whole_folder
from meloformer.shards.manifest import format_of

_ELSEWHERE = "choose another --out"


@contextmanager
def output_folder(path: Path, kind: str, owns: Collection[str]) -> Iterator[Path]:
    """A new folder to fill; on success it takes the place of ``path``, on any exception it vanishes.

    Args:
        path: Final place. An earlier output of the same kind is replaced, anything else is left alone.
        kind: The ``format`` in the manifest that the caller writes.
        owns: Patterns of the file names that such an output consists of. A folder that holds anything else is not
            replaced, so that nothing that a user put there is lost.
    Raises:
        OutputError: ``path`` is something else, or cannot be written.
    """
    try:
        _refuse_foreign(path, kind, owns)
    except (OSError, ValueError, RuntimeError) as error:
        raise cannot_write(path, error) from None
    with whole_folder(path) as folder:
        yield folder


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

"""Files of JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file, one by one.

    Raises:
        OSError: It cannot be read.
        ValueError: A line is no JSON.
    """
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def write_record(file: TextIO, record: dict[str, Any]) -> None:
    """Append a record."""
    line = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
    try:
        line.encode()
    except UnicodeEncodeError:  # the name of a file need not be text
        line = json.dumps(record, separators=(",", ":"))
    file.write(line + "\n")

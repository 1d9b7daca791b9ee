"""Measuring side by side, and writing the figures down."""

from __future__ import annotations

import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

Task = Callable[[], object]
PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
"""Where figures are written down."""


def interleaved(tasks: Mapping[str, Task], *, repeats: int) -> dict[str, float]:
    """Median CPU seconds of this process for every task.

    The tasks take turns, so that a busy moment of the machine meets all of them, and CPU time does not count what
    others do meanwhile.

    Args:
        tasks: Name -> what to run.
        repeats: Turns of each, >= 1.
    """
    taken: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats):
        for name, task in tasks.items():
            started = time.process_time()
            task()
            taken[name].append(time.process_time() - started)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, num_words: int = 1) -> str:
    """A table in Markdown; the first ``num_words`` columns are text, the others are figures."""
    rule = "|" + "---|" * num_words + "---:|" * (len(columns) - num_words)
    lines = ["| " + " | ".join(columns) + " |", rule]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def machine(*packages: str) -> str:
    """CPU, Python and the versions of the packages, in one line."""
    versions = [f"{name} {version(name)}" for name in packages]
    return ", ".join([_cpu(), f"Python {platform.python_version()}", *versions])


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names and names[0] else platform.processor() or platform.machine()


def write_section(page: Path, name: str, text: str) -> None:
    """Replace what stands between ``<!-- NAME -->`` and ``<!-- /NAME -->`` in a page.

    Raises:
        ValueError: The page has no such place, or several.
    """
    content = page.read_text(encoding="utf-8")
    opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
    if content.count(opening) != 1 or content.count(closing) != 1:
        raise ValueError(f"{page} needs {opening} and {closing} once each")
    before, _, rest = content.partition(opening)
    _, _, after = rest.partition(closing)
    page.write_text(f"{before}{opening}\n{text.strip()}\n{closing}{after}", encoding="utf-8")


def tell(text: str, section: str, *, write: bool, page: Path = PAGE) -> None:
    """Print a report, and write it down where that is asked for; see :func:`write_section`."""
    sys.stdout.write(text + "\n")
    if write:
        write_section(page, section, text)

"""Memory and time of ``pack`` over ever more files: the same music listed many times under other names.

    python -m benchmarks.many_files MIDI_FOLDER --files 12500 25000 50000 100000

Every run is a process of its own. Memory is the largest resident memory of the command, and of any of its workers.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults import midi_files, pack_command

LINKS_PER_FILE = 30_000
"""File systems allow some ten thousand names for one file; then it is copied once more."""


@dataclass(frozen=True)
class Run:
    """What one run took."""

    files: int
    seconds: float
    parent_mb: float
    worker_mb: float


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="MIDI files, searched to any depth")
    parser.add_argument("--files", type=int, nargs="+", default=[12_500, 25_000, 50_000, 100_000])
    parser.add_argument("--stop-after", type=float, help="seconds after which a run is killed; its memory counts")
    options = parser.parse_args()
    originals = midi_files(options.folder)
    print("| files | time | files/s | memory of the command | of a worker |")
    print("|---|---|---|---|---|")
    for files in options.files:
        with tempfile.TemporaryDirectory(prefix="many") as folder:
            list_many_times(originals, Path(folder) / "music", files)
            run = measured(Path(folder), files, options.stop_after)
        rate = f"{run.files / run.seconds:,.0f}" if options.stop_after is None else ""
        print(
            f"| {run.files:,} | {run.seconds:.1f} s | {rate} | {run.parent_mb:.0f} MB | {run.worker_mb:.0f} MB |",
            flush=True,
        )


def list_many_times(originals: list[Path], music: Path, files: int) -> None:
    """Fill a folder with names of the same files."""
    targets: dict[int, Path] = {}
    for number in range(files):
        original = number % len(originals)
        place = music / f"{number // 1000:05d}"
        place.mkdir(parents=True, exist_ok=True)
        name = place / f"{number:07d}-{originals[original].name}"
        if (number // len(originals)) % LINKS_PER_FILE == 0:
            name.write_bytes(originals[original].read_bytes())
            targets[original] = name
        else:
            os.link(targets[original], name)


def measured(folder: Path, files: int, stop_after: float | None) -> Run:
    """Run ``pack`` and watch its memory."""
    options = ("--quiet", "--json", "--workers", "2", "--set", "filter.keep_duplicates=true")
    started = time.monotonic()
    command = pack_command(folder / "music", folder / "shards", *options)
    parent_mb = worker_mb = 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as run:
        while run.poll() is None:
            parent_mb = max(parent_mb, resident_mb(run.pid))
            worker_mb = max([worker_mb, *(resident_mb(child) for child in children_of(run.pid))])
            if stop_after is not None and time.monotonic() - started > stop_after:
                run.kill()
            time.sleep(0.1)
    if run.returncode != 0 and stop_after is None:
        sys.exit(f"pack ended with exit code {run.returncode}")
    return Run(files, time.monotonic() - started, parent_mb, worker_mb)


def children_of(pid: int) -> list[int]:
    """Process ids."""
    try:
        return [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return []


def resident_mb(pid: int) -> float:
    """Resident memory of a process; 0 where it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (OSError, IndexError):
        return 0.0


if __name__ == "__main__":
    main()

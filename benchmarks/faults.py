"""Faults on purpose: damaged files and a process killed at any moment. Run by ``make faults``.

    python -m benchmarks.faults mutate MIDI_FOLDER --files 20000
    python -m benchmarks.faults kill MIDI_FOLDER --times 20

Each prints what it did and found, and ends with exit code 1 where something was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from meloformer.midi.sources import MIDI_SUFFIXES

MUTATIONS = ("flip", "cut", "splice", "length", "insert", "delete", "zero", "header")


def main() -> int:
    """Run one kind of fault; 0 where nothing was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("mutate", "kill"))
    parser.add_argument("folder", type=Path, help="MIDI files, searched to any depth")
    parser.add_argument("--files", type=int, default=20_000, help="mutated files")
    parser.add_argument("--times", type=int, default=20, help="kills")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    originals = midi_files(options.folder)
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="faults") as folder:
        if options.kind == "mutate":
            return mutate(originals, Path(folder), options.files, rng)
        return kill(originals, Path(folder), options.times, rng)


def midi_files(folder: Path) -> list[Path]:
    """All below a folder, sorted."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in MIDI_SUFFIXES)
    if not found:
        sys.exit(f"there are no MIDI files in {folder}")
    return found


def mutate(originals: list[Path], folder: Path, num_files: int, rng: random.Random) -> int:
    """Pack mutated files: the run ends well, and every one of them is kept or rejected with a reason."""
    contents = [path.read_bytes() for path in originals]
    for number in range(num_files):
        kind = MUTATIONS[number % len(MUTATIONS)]
        place = folder / "music" / f"{number // 1000:03d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:06d}-{kind}.mid").write_bytes(mutated(rng.choice(contents), rng.choice(contents), kind, rng))
    started = time.monotonic()
    run = subprocess.run(pack_command(folder / "music", folder / "shards", "--quiet", "--json"), stdout=subprocess.PIPE)
    if run.returncode != 0:
        print(f"pack ended with exit code {run.returncode}")
        return 1
    report = json.loads(run.stdout)
    records = {name: lines_of(folder / "shards" / name) for name in ("documents.jsonl", "rejects.jsonl")}
    names = [record["name"] for lines in records.values() for record in lines]
    accounted = len(names) == len(set(names)) == report["inputs"] == num_files == report["kept"] + report["rejected"]
    print(f"{num_files:,} mutated files in {time.monotonic() - started:.0f} s: {report['kept']:,} kept,")
    print(f"{report['recovered']:,} of them recovered; rejects {json.dumps(report['rejects'])}")
    kinds = {name: Counter(record["name"].rpartition("-")[2] for record in lines) for name, lines in records.items()}
    print("kept by kind:", {kind: kinds["documents.jsonl"][f"{kind}.mid"] for kind in MUTATIONS})
    for record in records["rejects.jsonl"]:
        if record["reason"] in ("crashed", "timeout"):
            print(f"  {record['reason']}: {record['name']}: {record['message']}")
    crashes = report["rejects"].get("crashed", 0)
    print("every file is accounted for" if accounted else "FILES ARE MISSING", f"{crashes} crashes", sep="; ")
    return 0 if accounted and not crashes else 1


def mutated(data: bytes, other: bytes, kind: str, rng: random.Random) -> bytes:
    """A damaged copy of ``data``."""
    damaged = bytearray(data)
    place = rng.randrange(len(damaged))
    if kind == "flip":
        for _ in range(rng.choice((1, 2, 8, 64))):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del damaged[place:]
    elif kind == "splice":
        damaged[place:] = other[rng.randrange(len(other)) :]
    elif kind == "length":
        chunks = [at for at in range(len(data) - 8) if data[at : at + 4] in (b"MTrk", b"MThd")]
        at = rng.choice(chunks or [0])
        length = rng.choice((0, 1, 2**31, 2**32 - 1, rng.randrange(2**16), rng.randrange(len(data))))
        damaged[at + 4 : at + 8] = struct.pack(">I", length)
    elif kind == "insert":
        damaged[place:place] = rng.randbytes(rng.choice((1, 4, 100)))
    elif kind == "delete":
        del damaged[place : place + rng.choice((1, 4, 100))]
    elif kind == "zero":
        end = min(place + rng.choice((16, 512)), len(damaged))
        damaged[place:end] = bytes(end - place)
    else:
        damaged[rng.randrange(min(14, len(damaged)))] = rng.randrange(256)
    return bytes(damaged)


def kill(originals: list[Path], folder: Path, times: int, rng: random.Random) -> int:
    """Kill ``pack`` again and again at random moments: the bytes at the end are those of an undisturbed run."""
    music, copies = folder / "music", 8
    for copy in range(copies):
        for number, path in enumerate(originals):
            (music / f"{copy}").mkdir(parents=True, exist_ok=True)
            (music / f"{copy}" / f"{number:05d}.mid").write_bytes(path.read_bytes())
    options = ("--quiet", "--set", "filter.keep_duplicates=true", "--set", "pack.shard_tokens=500000")
    subprocess.run(pack_command(music, folder / "undisturbed", *options, "--workers", "2"), check=True)
    kills, progress, finished = 0, [], False
    while not finished:
        command = pack_command(music, folder / "killed", *options, "--workers", str(rng.choice((1, 2, 3))))
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        if kills < times:
            time.sleep(rng.uniform(0.05, 2.0))
            run.send_signal(signal.SIGKILL)
            kills += 1
        finished = run.wait() == 0
        if finished and kills < times:  # too early: begin again, there are kills left
            finished = False
            progress.append(len(originals) * copies)
            if files_in(folder / "killed") != files_in(folder / "undisturbed"):
                break
            continue
        state = folder / ".killed.meloformer.part/.progress.json"
        progress.append(json.loads(state.read_text())["done"] if state.exists() else 0)
    equal = files_in(folder / "killed") == files_in(folder / "undisturbed")
    print(f"{kills} kills; files done after each: {progress}")
    print("the bytes are those of an undisturbed run" if equal else "THE BYTES DIFFER")
    return 0 if equal else 1


def files_in(folder: Path) -> dict[str, bytes]:
    """Name -> content of every file."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def pack_command(music: Path, out: Path, *options: str) -> list[str]:
    """The command line that packs a folder."""
    return [sys.executable, "-m", "meloformer", "pack", os.fspath(music), "--out", os.fspath(out), *options]


if __name__ == "__main__":
    sys.exit(main())

"""From MIDI to shards: files a second, size and reading speed, beside symusic alone and beside MidiTok.

python -m benchmarks.preprocess FOLDER           print the tables
python -m benchmarks.preprocess FOLDER --write   put them into docs/benchmarks.md too
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import symusic

from benchmarks.measure import Task, interleaved, machine, table, tell
from meloformer.midi.quality import reject_reason
from meloformer.midi.sources import MIDI_SUFFIXES, Source, find_sources
from meloformer.settings import Settings
from meloformer.shards.count import count_tokens
from meloformer.shards.format import SUFFIX, Shard, ShardWriter
from meloformer.shards.pipeline import tokenize_pieces
from meloformer.shards.process import Piece, Work, process_source
from meloformer.tokens.vocabulary import Vocabulary

LEVELS = (1, 3, 6, 9, 12, 19)
ROUNDS = 3
"""Passes over all documents in one measurement of reading."""


@dataclass(frozen=True)
class Sample:
    """Files that everybody can read, and what MeloFormer makes of them."""

    sources: list[Source]
    pieces: list[Piece]


def miditok_remi() -> Callable[[Path], Any] | None:
    """MidiTok's REMI with what HID writes too: programs, chords, tempos, meters; ``None`` where it is missing."""
    try:
        from miditok import REMI, TokenizerConfig  # type: ignore[import-not-found]
    except ImportError:
        return None
    config = TokenizerConfig(
        use_programs=True, use_chords=True, use_tempos=True, use_time_signatures=True, chord_tokens_with_root_note=True
    )
    return REMI(config)


def sample_of(folder: Path, num_files: int, remi: Callable[[Path], Any] | None) -> tuple[Sample, int]:
    """Files spread evenly over a folder, and MidiTok's tokens for them; what somebody cannot read is left out."""
    midi = [source for source in find_sources([folder]) if source.path.suffix.lower() in MIDI_SUFFIXES]
    chosen = np.unique(np.linspace(0, len(midi) - 1, min(num_files, len(midi))).round().astype(int))
    work = Work(Settings(), Vocabulary.default())
    sample, remi_tokens = Sample([], []), 0
    for source in (midi[number] for number in chosen):
        piece = process_source(source, work)
        try:
            symusic.Score.from_midi(source.path.read_bytes())
            found = len(remi(source.path).ids) if remi else 0
        except Exception:  # noqa: BLE001 (peers raise whatever they raise)
            continue
        if isinstance(piece, Piece):
            sample.sources.append(source)
            sample.pieces.append(piece)
            remi_tokens += found
    return sample, remi_tokens


def speed(sample: Sample, remi: Callable[[Path], Any] | None, remi_tokens: int, *, repeats: int) -> str:
    """Table: files a second and tokens a note, all on the same files."""
    work = Work(Settings(), Vocabulary.default())
    paths = [source.path for source in sample.sources]
    names = {
        "parse": "symusic, parse alone", "meloformer": "MeloFormer, file to ids, with chords and statistics",
        "miditok": "MidiTok REMI with chords",
    }  # fmt: skip
    tasks: dict[str, Task] = {
        "parse": lambda: [symusic.Score.from_midi(path.read_bytes()) for path in paths],
        "meloformer": lambda: [process_source(source, work) for source in sample.sources],
    }
    if remi is not None:
        tasks["miditok"] = lambda: [remi(path) for path in paths]
    seconds = interleaved(tasks, repeats=repeats)
    num_notes = sum(piece.statistics.notes for piece in sample.pieces)
    tokens = {"meloformer": sum(len(piece.ids) for piece in sample.pieces), "miditok": remi_tokens}
    rows = [
        (
            names[name], f"{len(paths) / taken:,.0f}", f"{1000 * taken / len(paths):.2f}",
            f"{tokens[name] / num_notes:.2f}" if name in tokens else "", f"{taken / seconds['meloformer']:.2f}",
        )
        for name, taken in seconds.items()
    ]  # fmt: skip
    return table(("", "files/s", "ms a file", "tokens a note", "time, MeloFormer = 1"), rows)


def storage(pieces: list[Piece], folder: Path, *, repeats: int, levels: Sequence[int] | None = None) -> str:
    """Table: ratio, compression speed and reading speed of shards, for every level."""
    num_tokens = sum(len(piece.ids) for piece in pieces)
    order = np.random.default_rng(0).permutation(len(pieces)).tolist()
    paths = {level: folder / f"all-{level:05d}{SUFFIX}" for level in levels or LEVELS}
    written = interleaved({str(level): _writing(pieces, path, level) for level, path in paths.items()}, repeats=repeats)
    shards = {level: Shard(path) for level, path in paths.items()}
    at_random = interleaved({str(level): _reading(shard, order) for level, shard in shards.items()}, repeats=repeats)
    in_order = interleaved(
        {str(level): _reading(shard, range(len(pieces))) for level, shard in shards.items()}, repeats=repeats
    )
    rows = [
        (
            str(level), f"{2 * num_tokens / shards[level].num_bytes:.2f}",
            f"{num_tokens / written[str(level)] / 1e6:.1f}",
            f"{ROUNDS * len(pieces) / at_random[str(level)]:,.0f}",
            f"{ROUNDS * num_tokens / in_order[str(level)] / 1e6:,.0f}",
        )
        for level in levels or LEVELS
    ]  # fmt: skip
    return table(("zstd level", "ratio", "written, Mtokens/s", "random documents/s", "sequential, Mtokens/s"), rows)


def _writing(pieces: list[Piece], path: Path, level: int) -> Task:
    def write() -> None:
        with ShardWriter(path, level=level) as writer:
            for piece in pieces:
                writer.add(piece.ids)

    return write


def _reading(shard: Shard, order: range | list[int]) -> Task:
    def read() -> None:
        for _ in range(ROUNDS):
            for number in order:
                shard[number]

    return read


def counting(folder: Path, shards: Path, *, repeats: int) -> str:
    """Table: tokens a second that ``build-vocab`` counts, beside what it cannot do without."""
    num_tokens = tokenize_pieces([folder], shards, Settings()).num_tokens
    stored = [Shard(path) for path in sorted(shards.glob(f"*{SUFFIX}"))]
    tasks: dict[str, Task] = {
        "reading shards": lambda: [shard[number] for shard in stored for number in range(len(shard))],
        "`build-vocab` over shards": lambda: count_tokens([shards], Settings()),
    }
    seconds = interleaved(tasks, repeats=repeats)
    return table(("", "Mtokens/s"), [(name, f"{num_tokens / taken / 1e6:.2f}") for name, taken in seconds.items()])


def report(folder: Path, *, num_files: int, repeats: int) -> str:
    """All tables, with the machine, the date and the command."""
    remi = miditok_remi()
    sample, remi_tokens = sample_of(folder, num_files, remi)
    if not sample.pieces:
        raise SystemExit(f"none of the files in {folder} can be read by all")
    work = Work(Settings(), Vocabulary.default())
    results = (process_source(source, work) for source in find_sources([folder]))
    everything = [result for result in results if isinstance(result, Piece)]
    kept = [piece for piece in everything if reject_reason(piece.statistics, Settings().filter) is None]
    with tempfile.TemporaryDirectory() as place:
        stored = storage(kept, Path(place), repeats=repeats)
        unjudged = storage(everything, Path(place), repeats=1, levels=(Settings().pack.level,))
        counted = counting(folder, Path(place) / "shards", repeats=repeats)
    compared = speed(sample, remi, remi_tokens, repeats=repeats)
    packages = ["numpy", "symusic", "zstandard", *(["miditok"] if remi else [])]
    command = f"python -m benchmarks.preprocess FOLDER --files {num_files} --repeats {repeats}"
    missing = (
        ""
        if remi
        else "\n\nMidiTok is not installed (`pip install -c constraints.txt -e '.[peers]'`): its column is missing."
    )
    notes = sum(piece.statistics.notes for piece in sample.pieces)
    num_tokens = sum(len(piece.ids) for piece in kept)
    return (
        f"{machine(*packages)}; {datetime.now(UTC):%Y-%m-%d}; `{command}`.{missing}\n\n"
        f"**Files to ids**, the same {len(sample.sources)} files with {notes:,} notes:\n\n{compared}\n\n"
        f"**Shards**, the {len(kept)} documents that break no rule of the filter, with {num_tokens:,} tokens:"
        f"\n\n{stored}\n\n"
        f"The same of all {len(everything)} documents, the free performances among them:\n\n{unjudged}\n\n"
        f"**Counting**, all documents:\n\n{counted}"
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.preprocess", description=__doc__)
    parser.add_argument("folder", type=Path, help="MIDI files")
    parser.add_argument("--files", type=int, default=150, help="spread over the folder, for the comparison of speed")
    parser.add_argument("--repeats", type=int, default=5, help="turns of every measurement; the median counts")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    arguments = parser.parse_args()
    started = time.monotonic()
    text = report(arguments.folder, num_files=arguments.files, repeats=arguments.repeats)
    tell(text, "preprocess", write=arguments.write)
    sys.stderr.write(f"measured in {time.monotonic() - started:.0f} s\n")


if __name__ == "__main__":
    main()

"""How new pieces come out, by figures: notes in the wished chord, empty bars, ranges, and how a density is met.

python -m benchmarks.pieces demo/run --shards demo/shards           print the tables
python -m benchmarks.pieces demo/run --shards demo/shards --write   put them into docs/generation.md too

The run is one of `meloformer demo`; its settings of `generation` hold. Beside it stand weights that have learnt
nothing, and the music that it learnt from.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.measure import PAGE, machine, table, tell
from meloformer.cli.demo import PIECES
from meloformer.evaluation.pieces import Piece, pieces_of
from meloformer.evaluation.rhythm import empty_bar_share
from meloformer.generation.generate import generate
from meloformer.midi.chords import CHORD_TONES, NO_CHORD, ROOTS
from meloformer.midi.programs import program_name
from meloformer.midi.score import DRUMS
from meloformer.model.meloformer import MeloFormer
from meloformer.model.weights import load, newest_good_checkpoint
from meloformer.settings import GenerationSettings
from meloformer.settings_file import load_settings
from meloformer.shards.store import open_shards
from meloformer.training.run_folder import SETTINGS_FILE

CHORDS = "C:maj A:min F:maj G:7"
DENSITIES = (1, 2, 4, 8, 16)
BARS_ON = 2
"""How far away the other chord is that notes are held against: in ``CHORDS`` never the same one."""

Music = Sequence[Piece]


class Fit(NamedTuple):
    """Of the pitched notes of some pieces."""

    own: float
    """Share in the chord of the bar in which they begin."""
    other: float
    """Share in the chord that many bars on, what notes come to that know nothing of their bar's."""


def fit_of(music: Music) -> Fit:
    """How notes fit the chords that the pieces name; bars without a chord are left out."""
    own, other = [], []
    for piece in music:
        bar = piece.bar[piece.is_pitched]
        there, elsewhere = piece.chord[bar], np.roll(piece.chord, -BARS_ON)[bar]
        counts = (there != NO_CHORD) & (elsewhere != NO_CHORD)
        pitch_class = piece.pitch[piece.is_pitched][counts] % 12
        own.append(CHORD_TONES[there[counts], pitch_class])
        other.append(CHORD_TONES[elsewhere[counts], pitch_class])
    return Fit(float(np.concatenate(own).mean()), float(np.concatenate(other).mean()))


def notes_a_cell(music: Music) -> np.ndarray:
    """(N,) notes of every instrument in every bar in which it begins any."""
    cells = (np.stack([piece.bar, piece.program]) for piece in music)
    return np.concatenate([np.unique(cell, axis=1, return_counts=True)[1] for cell in cells])


def harmony_table(music: dict[str, Music]) -> str:
    """Notes in the chord, and empty bars."""
    rows = []
    for name, pieces in music.items():
        fit, num_bars = fit_of(pieces), sum(piece.num_bars for piece in pieces)
        empty = sum(empty_bar_share(piece) * piece.num_bars for piece in pieces)
        notes = sum(piece.num_notes for piece in pieces)
        rows.append(
            [name, f"{len(pieces)}", f"{num_bars:,}", f"{notes:,}", f"{100 * fit.own:.0f} %",
             f"{100 * fit.other:.0f} %", f"{100 * empty / num_bars:.1f} %", f"{notes_a_cell(pieces).mean():.1f}"]
        )  # fmt: skip
    columns = [
        "", "pieces", "bars", "notes", "in the bar's chord", f"in the one {BARS_ON} bars on", "empty bars",
        "notes a bar and instrument",
    ]  # fmt: skip
    return table(columns, rows)


def range_table(music: dict[str, Music]) -> str:
    """Of every instrument that the first of ``music`` has, its range there and elsewhere."""
    first = next(iter(music))
    programs = np.unique(np.concatenate([piece.program for piece in music[first]])).tolist()
    programs = [program for program in programs if program != DRUMS]
    rows = []
    for program in programs:
        row = [program_name(program)]
        for pieces in music.values():
            pitch = np.concatenate([piece.pitch[piece.program == program] for piece in pieces])
            row.append(f"{_span(pitch, 0, 1)} ({_span(pitch, 0.05, 0.95)})" if len(pitch) else "")
        rows.append(row)
    return table(["", *music], rows)


def _span(pitch: np.ndarray, low: float, high: float) -> str:
    """Two quantiles of pitches, such as ``G3-C6``."""
    return "-".join(
        f"{ROOTS[number % 12]}{number // 12 - 1}"
        for number in np.quantile(pitch, [low, high], method="nearest").astype(int).tolist()
    )


def written(model: MeloFormer, settings: GenerationSettings) -> list[Piece]:
    """New pieces as they come into files: some of each kind that the demo writes, or for the wished instruments."""
    kinds = [settings.instruments] if settings.instruments else list(PIECES.values())
    documents = [ids for kind in kinds for ids in generate(model, settings=settings, instruments=kind)]
    return pieces_of(documents, model.vocabulary)


def density_table(models: dict[str, MeloFormer], settings: GenerationSettings) -> str:
    """Notes a bar and instrument that come of what was aimed at."""
    rows = []
    for name, model in models.items():
        row = [name]
        for density in DENSITIES:
            notes = notes_a_cell(written(model, settings.model_copy(update={"density": density})))
            row.append(f"{notes.mean():.1f} ({np.quantile(notes, 0.1):.0f}-{np.quantile(notes, 0.9):.0f})")
        rows.append(row)
    return table(["aimed at", *map(str, DENSITIES)], rows)


def report(run: Path, shards: Path, num_pieces: int) -> tuple[str, str]:
    """The tables of harmony and ranges, and that of densities."""
    checkpoint, _ = newest_good_checkpoint(run)
    demo, settings = load(checkpoint), load_settings(run / SETTINGS_FILE).generation
    torch.manual_seed(0)
    untrained = MeloFormer(demo.settings, demo.vocabulary).eval()
    folder = open_shards(shards)
    wished = settings.model_copy(update={"num": num_pieces, "chords": CHORDS})
    music: dict[str, Music] = {
        "the demo's model": written(demo, wished),
        "untrained weights": written(untrained, wished),
        "what it learnt from": pieces_of(folder.split("train"), folder.vocabulary),
    }
    plain = settings.model_copy(update={"num": num_pieces, "instruments": PIECES["quartet"]})
    densities = density_table({"untrained weights": untrained, "the demo's model": demo}, plain)
    command = "`python -m benchmarks.pieces demo/run --shards demo/shards`"
    origin = f"{machine('torch')}; {datetime.now(UTC):%Y-%m-%d}; {command}, {checkpoint.name}."
    ranges = range_table({name: music[name] for name in ("the demo's model", "what it learnt from")})
    return f"{origin}\n\n{harmony_table(music)}\n\n{ranges}", f"{origin}\n\n{densities}"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pieces", description=__doc__)
    parser.add_argument("run", type=Path, help="of `meloformer demo`")
    parser.add_argument("--shards", type=Path, required=True, help="that the run was trained on")
    parser.add_argument("--pieces", type=int, default=8, help="of each kind")
    parser.add_argument("--write", action="store_true", help="into docs/generation.md")
    args = parser.parse_args()
    torch.set_num_threads(1)
    sound, densities = report(args.run, args.shards, args.pieces)
    page = PAGE.with_name("generation.md")
    tell(sound, "sound", write=args.write, page=page)
    tell(densities, "density", write=args.write, page=page)


if __name__ == "__main__":
    main()

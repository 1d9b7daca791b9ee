"""How punctual live playing is, to a port that takes everything, while bars are made in the same process.

python -m benchmarks.live           print the table
python -m benchmarks.live --write   put it into docs/benchmarks.md too
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import machine, table, tell
from meloformer.bench.music import practice_piece
from meloformer.cli.live import generated_bars
from meloformer.model.meloformer import MeloFormer
from meloformer.model.weights import load
from meloformer.render.bars import PlayedBar, played_bars
from meloformer.render.live import Played, play_live
from meloformer.settings import GenerationSettings, ModelSettings
from meloformer.tokens.vocabulary import Vocabulary

BUDGET_MS = 5.0
"""An event may come so late while the generator is ahead."""


class Sink:
    """A port that takes everything; the player itself measures how late it was."""

    def send(self, msg: Any, /) -> None:
        """Take a message."""


def busy_bars(num_bars: int) -> Iterator[PlayedBar]:
    """Bars of a dense piece, with pure Python at work between them, which shares the interpreter with the player."""
    for bar in played_bars(practice_piece(1, num_bars=num_bars)):
        until = time.perf_counter() + 0.7 * bar.seconds
        while time.perf_counter() < until:
            sum(range(1000))
        yield bar


def row(name: str, played: Played) -> list[str]:
    """One row of the table."""
    late = 1000 * np.array(played.late_seconds)
    middle, high = np.quantile(late, [0.5, 0.99])
    within = 100 * float((late <= BUDGET_MS).mean())
    figures = [f"{middle:.2f}", f"{high:.2f}", f"{late.max():.2f}", f"{within:.2f} %", str(played.pauses)]
    return [name, str(played.bars), f"{len(late):,}", *figures]


def report(checkpoint: Path | None, *, num_bars: int) -> str:
    """The table, in Markdown."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = load(checkpoint) if checkpoint else MeloFormer(ModelSettings.of_size("tiny"), Vocabulary.default()).eval()
    wishes = GenerationSettings(bars=num_bars, tempo=60, meter="4/4", max_notes_per_bar=24, context=256)
    writing = f"{'a trained' if checkpoint else 'an untrained'} model of size `{model.settings.size}` writes them"
    rows = [
        row("Python computes between bars made by rule", play_live(busy_bars(num_bars), Sink())),
        row(writing, play_live(generated_bars(model, wishes, []), Sink(), buffer_bars=2)),
    ]
    columns = (
        "played while",
        "bars",
        "messages",
        "median ms late",
        "99 %",
        "latest",
        f"within {BUDGET_MS:g} ms",
        "pauses",
    )
    return (
        f"{machine('torch', 'mido')}; {datetime.now(UTC):%Y-%m-%d}; `python -m benchmarks.live --bars {num_bars}`.\n\n"
        f"{table(columns, rows)}"
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live", description=__doc__)
    parser.add_argument("--bars", type=int, default=16, help="length of the pieces")
    parser.add_argument("--checkpoint", type=Path, help="a run of `meloformer demo`; by default random weights")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    arguments = parser.parse_args()
    text = report(arguments.checkpoint, num_bars=arguments.bars)
    tell(text, "live", write=arguments.write)


if __name__ == "__main__":
    main()

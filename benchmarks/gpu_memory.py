"""Memory of a training step on a GPU, predicted on any machine, beside what was published of the first version.

python -m benchmarks.gpu_memory           print the table
python -m benchmarks.gpu_memory --write   put it into docs/benchmarks.md too
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.measure import machine, table, write_section
from meloformer.bench.prediction import predict_step_bytes
from meloformer.settings_file import load_settings

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
SHAPES = (
    ("small", 4096, 2, "8 GB", ""),
    ("small", 16384, 1, "20 GB", "4 GB"),
    ("small", 24576, 1, "out of memory at 30 GB", "6 GB"),
    ("small", 131072, 1, "", "32 GB"),
    ("base", 8192, 4, "out of memory at 32 GB", "16 GB"),
)
"""Size, tokens in a row, rows, published, wanted at most."""
CHECKPOINTING = ("none", "ffn", "attention", "full")


def predicted(size: str, seq_len: int, batch_size: int, checkpointing: str) -> str:
    """One cell, in GB of 10^9 bytes."""
    changes = (f"bench.seq_len={seq_len}", f"bench.batch_size={batch_size}", "training.optimizer=adamw")
    settings = load_settings(None, [*changes, f"model.size={size}", f"model.checkpointing={checkpointing}"])
    return f"{predict_step_bytes(settings).total / 1e9:.2f}"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    arguments = parser.parse_args()
    rows = [
        (f"{size}, {length:,} x {count}", *(predicted(size, length, count, mode) for mode in CHECKPOINTING), most, was)
        for size, length, count, was, most in SHAPES
    ]
    columns = ("size, tokens x rows", *(f"`{mode}`" for mode in CHECKPOINTING), "wanted at most", "published")
    facts = f"{machine('torch')}; {datetime.now(UTC):%Y-%m-%d}; `python -m benchmarks.gpu_memory`; GB"
    text = f"{facts}.\n\n{table(columns, rows)}"
    sys.stdout.write(text + "\n")
    if arguments.write:
        write_section(PAGE, "gpu-memory", text)


if __name__ == "__main__":
    main()

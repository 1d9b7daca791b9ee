"""The output of `meloformer bench`, for the page of benchmarks.

python -m benchmarks.bench_command           print it
python -m benchmarks.bench_command --write   put it into docs/benchmarks.md too
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from datetime import UTC, datetime

from benchmarks.measure import machine, tell

ALL = ("bench", "--gpu-mem", "32")
SHAPE = ("--size", "small", "--seq-len", "2048", "--repeats", "5")
COMPARISONS = (
    ("bench", "--compare", "attention_dtype=bf16,fp32", "--precision", "bf16", *SHAPE),
    ("bench", "--compare", "checkpointing=none,ffn,attention,full", *SHAPE),
    ("bench", "--compare", "heads={track=1,ensemble=1,onset=1,pitch=1},{track=2,ensemble=2},{ensemble=4}", *SHAPE),
    ("bench", "--compare", "optimizer=muon,adamw", *SHAPE),
)


def output_of(arguments: tuple[str, ...]) -> str:
    """In Markdown, behind the command that prints it."""
    command = [sys.executable, "-m", "meloformer", *arguments, "--markdown", "--quiet"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    shown = " ".join(f"'{word}'" if "{" in word else word for word in arguments)
    return f"`meloformer {shown}`:\n\n{printed}"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    arguments = parser.parse_args()
    head = f"{machine('torch')}; {datetime.now(UTC):%Y-%m-%d}; `python -m benchmarks.bench_command`."
    sections = {
        "bench": f"{head} {output_of(ALL)}",
        "bench-compare": f"{head}\n\n" + "\n\n".join(output_of(each) for each in COMPARISONS),
    }
    for name, text in sections.items():
        tell(text, name, write=arguments.write)


if __name__ == "__main__":
    main()

"""Sparse attention beside plain causal attention, on real music: time, memory, and how sparse it is.

python -m benchmarks.attention SHARDS                  print the tables
python -m benchmarks.attention SHARDS --write          put them into docs/benchmarks.md too
python -m benchmarks.attention SHARDS --results FILE   keep what is measured there, and do not measure it again

Both models have the same width, depth, heads and feed-forward networks; the plain one has no summaries. They take
turns, and what is told is the median of process CPU time. Rows above 20,000 tokens are measured once, each step in a
process of its own: at 65,536 tokens a plain step takes ten minutes. Packed shards are rows of
real music; without any, music made by rule is measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import interleaved, machine, table, tell
from benchmarks.sparsity import blocks_touched, pairs
from benchmarks.steps import DTYPES, KINDS, MOST_TO_REPEAT, Case, Kind, Step, one_step, row_of, settings_of
from experiments.plain import attention_alone, documents_of
from meloformer.model.layout import Layout

WANTED = {4096: (1.5, 0.9), 16384: (5.0, 0.4), 65536: (15.0, 0.15)}
"""Tokens -> plain / ours of attention alone, at least, and ours / plain of a step, at most; in fp32."""
WANTED_GROWTH = (16384, 65536, 4.3)
"""Peak of a step at the second number of tokens by that at the first, at most."""


def in_own_process(kind: Kind, case: Case) -> dict[str, float]:
    """:func:`one_step` there."""
    command = [sys.executable, "-m", "benchmarks.attention", "--one-step", kind, json.dumps(case)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


class Results:
    """What was measured, by what it is; in a file, so that it is not lost where a run ends early."""

    def __init__(self, path: Path | None, about: dict[str, Any]) -> None:
        self.path = path
        self.found: dict[str, Any] = {"about": about, "date": f"{datetime.now(UTC):%Y-%m-%d}"}
        if path and path.exists():
            self.found = json.loads(path.read_text("utf-8"))
            if self.found["about"] != about:
                raise SystemExit(f"{path} is about {self.found['about']}, not {about}; name another file")

    def __call__(self, name: str, case: Case, measure: Callable[[], Any]) -> Any:
        """The result, measured if it is not there yet."""
        key = f"{name}, {case.length} tokens, {case.dtype}, {case.threads} threads"
        if key not in self.found:
            torch.set_num_threads(case.threads)
            self.found[key] = measure()
            sys.stderr.write(f"{key}: {self.found[key]}\n")
            if self.path:
                self.path.write_text(json.dumps(self.found, indent=1), "utf-8")
        return self.found[key]


def after_one_round(tasks: dict[str, Callable[[], object]], case: Case) -> dict[str, float]:
    """Median CPU seconds of each; where there are several rounds, the first does not count."""
    if not case.is_long:
        interleaved(tasks, repeats=1)
    return interleaved(tasks, repeats=1 if case.is_long else case.repeats)


def cells(case: Case, results: Results) -> list[str]:
    """A row of the table of times."""
    # Memory first, while this process holds nothing.
    apart = {kind: results(kind, case, lambda kind=kind: in_own_process(kind, case)) for kind in KINDS}
    batch, vocabulary = row_of(case)
    settings, dtype = settings_of("ours"), DTYPES[case.dtype]

    def all_alone() -> dict[str, float]:
        return after_one_round(attention_alone(batch, settings, Layout.of(batch, settings, dtype), dtype), case)

    def all_steps() -> dict[str, float]:
        return after_one_round({kind: Step(kind, case, batch, vocabulary) for kind in KINDS}, case)

    alone = results("attention alone", case, all_alone)
    if case.is_long:
        steps = {kind: found["seconds"] for kind, found in apart.items()}
    else:
        steps = results("steps", case, all_steps)
    peaks = [apart[kind]["peak"] / 2**30 for kind in KINDS]
    return [
        case.dtype, str(case.threads), f"{case.length:,}",
        f"{alone['plain']:.3f}", f"{alone['by document']:.3f}", f"{alone['ours']:.3f}",
        f"**{alone['plain'] / alone['ours']:.1f}**", f"{alone['by document'] / alone['ours']:.1f}",
        f"{steps['plain']:.1f}", f"{steps['ours']:.1f}", f"**{steps['ours'] / steps['plain']:.2f}**",
        *(f"{peak:.2f}" for peak in peaks),
    ]  # fmt: skip


def sparsity(case: Case, results: Results) -> list[str]:
    """A row of the table of what is seen."""

    def measure() -> list[float]:
        (batch, _), settings = row_of(case), settings_of("ours")
        taken = interleaved({"layout": lambda: Layout.of(batch, settings)}, repeats=3)["layout"]
        touched = [blocks_touched(batch, settings, is_sorted=is_sorted) for is_sorted in (False, True)]
        pieces = documents_of(batch)
        inside = sum((stop - start) * (stop - start + 1) for _, start, stop in pieces)
        music = [len(pieces), int((batch.bar_document >= 0).sum()), inside / case.length / (case.length + 1)]
        return [*music, *pairs(batch, settings, Layout.of(batch, settings)), *touched, taken]

    documents, bars, *shares, taken = results("sparsity", case, measure)
    step = results("ours", case, lambda: in_own_process("ours", case))["seconds"]
    counts = [f"{case.length:,}", f"{documents}", f"{bars}"]
    return [*counts, *(f"{share:.3f}" for share in shares), f"{1000 * taken:.0f}", f"{taken / step:.1%}"]


def verdicts(cases: list[Case], results: Results) -> list[list[str]]:
    """Rows of what was wanted and what was found; all of it is measured already."""

    def known(kind: str, case: Case) -> Any:
        return results(kind, case, lambda: None)

    rows: list[list[str]] = []
    steps: dict[int, float] = {}
    for case in cases:
        alone, taken = known("attention alone", case), {kind: known(kind, case)["seconds"] for kind in KINDS}
        taken = taken if case.is_long else known("steps", case)
        wanted_alone, wanted_step = WANTED.get(case.length, (None, None))
        steps[case.length] = known("ours", case)["peak"]
        if wanted_alone is None or wanted_step is None:
            continue
        found_alone, found_step = alone["plain"] / alone["ours"], taken["ours"] / taken["plain"]
        at = f"at {case.length:,} tokens"
        rows += [
            [
                f"attention {at}, plain / ours",
                f"{wanted_alone:g} or more",
                f"{found_alone:.1f}",
                yes(found_alone >= wanted_alone),
            ],
            [
                f"step {at}, ours / plain",
                f"{wanted_step:g} or less",
                f"{found_step:.2f}",
                yes(found_step <= wanted_step),
            ],
        ]
    short, long, most = WANTED_GROWTH
    if {short, long} <= steps.keys():
        growth = steps[long] / steps[short]
        rows.append(
            [f"peak of a step, {long:,} / {short:,} tokens", f"{most:g} or less", f"{growth:.1f}", yes(growth <= most)]
        )
    return rows


def yes(is_reached: bool) -> str:
    """For a table."""
    return "yes" if is_reached else "**no**"


def detour(case: Case, results: Results) -> list[str]:
    """A row of the table of ``attention_dtype = "fp32"``."""
    kinds: tuple[Kind, ...] = ("ours", "ours, fp32 attention")

    def measure() -> dict[str, float]:
        return after_one_round({kind: Step(kind, case, *row_of(case)) for kind in kinds}, case)

    seconds = results("detour", case, measure)
    peaks = [results(kind, case, lambda kind=kind: in_own_process(kind, case))["peak"] / 2**30 for kind in kinds]
    return [
        f"{case.length:,}", *(f"{seconds[kind]:.2f}" for kind in kinds), *(f"{peak:.2f}" for peak in peaks),
        f"{seconds[kinds[1]] / seconds[kinds[0]] - 1:+.0%}", f"{peaks[1] / peaks[0] - 1:+.0%}",
    ]  # fmt: skip


def report(args: argparse.Namespace) -> str:
    """All tables, with the machine, the date and the command."""
    shards = None if args.shards is None else str(args.shards)
    about = {"machine": machine("torch"), "shards": shards, "repeats": args.repeats}
    results = Results(args.results, about)
    cases = [
        Case(shards, length, dtype, threads, args.repeats)
        for threads in args.threads
        for dtype in args.dtypes
        for length in args.lengths
        if threads == args.threads[0] or length <= MOST_TO_REPEAT
    ]
    first = [case for case in cases if (case.threads, case.dtype) == (args.threads[0], args.dtypes[0])]
    columns = [
        "", "threads", "tokens", "attention: plain, s", "by document, s", "ours, s", "plain / ours",
        "by document / ours", "step: plain, s", "ours, s",
        "ours / plain", "peak GiB: plain", "ours",
    ]  # fmt: skip
    times = table(columns, [cells(case, results) for case in cases])
    columns = [
        "tokens",
        "documents",
        "bars",
        "pairs inside documents",
        "pairs visible",
        "pairs computed",
        "blocks touched, as written",
        "sorted",
        "layout, ms",
        "of step",
    ]
    seen = table(columns, [sparsity(case, results) for case in first])
    columns = ["tokens", "step, s", "with detour", "peak GiB", "with detour", "time", "memory"]
    bf16 = [case for case in cases if case.dtype == "bf16" and case.threads == args.threads[0] and not case.is_long]
    listed = " ".join(
        f"--{name} {' '.join(map(str, getattr(args, name)))}" for name in ("lengths", "dtypes", "threads")
    )
    wanted = table(["in fp32", "wanted", "found", "reached"], verdicts(first, results))
    command = f"python -m benchmarks.attention SHARDS {listed} --repeats {args.repeats}"
    return (
        f"{about['machine']}; {results.found['date']}; `{command}`.\n\n{wanted}\n\n{times}\n\n"
        f"Shares of all pairs, and of all 128 x 128 blocks, of plain causal attention; layout is made once a "
        f'batch:\n\n{seen}\n\nbf16 with `attention_dtype = "fp32"`:\n\n'
        f"{table(columns, [detour(case, results) for case in bf16])}"
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attention", description=__doc__)
    parser.add_argument("shards", nargs="?", type=Path, help="what `meloformer pack` wrote")
    parser.add_argument("--lengths", nargs="+", type=int, default=[4096, 16384, 65536])
    parser.add_argument("--dtypes", nargs="+", choices=list(DTYPES), default=["fp32", "bf16"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="long rows with the first number only")
    parser.add_argument("--repeats", type=int, default=3, help="turns of every measurement; the median counts")
    parser.add_argument("--results", type=Path, help="file of what was measured")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    parser.add_argument("--one-step", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one_step:
        kind, case = args.one_step[0], Case(*json.loads(args.one_step[1]))
        torch.set_num_threads(case.threads)
        sys.stdout.write(json.dumps(one_step(kind, case)))
        return
    text = report(args)
    tell(text, "attention", write=args.write)


if __name__ == "__main__":
    main()

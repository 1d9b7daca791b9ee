"""Telling what ``bench`` finds, section by section, so that Ctrl-C loses nothing that is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from meloformer.bench.compare import Contestant
from meloformer.bench.cost import Corpus
from meloformer.bench.memory_report import fits_tables, memory_tables, recommended_tables, recommended_toml
from meloformer.bench.plot import plot_bench
from meloformer.bench.scaling import several_devices
from meloformer.bench.speed_report import compare_tables, cost_tables, lengths_tables, scaling_tables, throughput_tables
from meloformer.bench.tables import Progress, Table, Tables, Wishes
from meloformer.cli import console
from meloformer.files import write_text

INTERRUPTED = "interrupted; what was known by then is printed; to start over:"


class Session:
    """Prints tables as sections end; with ``--json`` all of them at the end.

    Args:
        wishes: What is to be told.
        as_json, markdown: How.
        quiet: No progress and no remarks.
    """

    def __init__(self, wishes: Wishes, *, as_json: bool, markdown: bool, quiet: bool) -> None:
        self._wishes = wishes
        self._as_json = as_json
        self._markdown = markdown
        self._quiet = quiet
        self._record: dict[str, Any] = {
            "gpu_mem_gib": wishes.gpu_mem,
            "device": str(wishes.device),
            "interrupted": False,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        if self._as_json and (kind is None or interrupted):
            console.json_result({**self._record, "interrupted": interrupted})
        if interrupted:
            raise KeyboardInterrupt(INTERRUPTED)

    def tell_all(self, *, predict: bool, plot: Path | None) -> None:
        """Memory, what fits, what to train with, a step here, and how long training takes."""
        wishes = self._wishes
        if wishes.shards is not None:
            Corpus.of(wishes.settings.bench, wishes.shards)  # an error now, and not in a minute
        self._section(lambda progress: memory_tables(wishes, progress))
        self._section(lambda progress: fits_tables(wishes, progress))
        self._section(lambda progress: recommended_tables(wishes, progress))
        measured = None
        if not predict:
            measured = self._section(lambda progress: throughput_tables(wishes, progress))[0].found
        scaling: dict[int, float] = {}
        if measured is not None and several_devices(wishes.settings, wishes.device):
            scaling = self._section(lambda progress: scaling_tables(wishes, measured, progress))[0].found
        self._section(lambda _progress: cost_tables(wishes, measured, scaling))
        if plot is not None:
            speeds: list[dict[str, Any]] = []
            if not predict:
                speeds = self._section(lambda progress: lengths_tables(wishes, progress))[0].records
            plot_bench(wishes, speeds, plot)
            console.say(f"wrote {plot}", quiet=self._quiet)

    def compare(self, name: str, contestants: list[Contestant]) -> None:
        """One setting."""
        wishes = self._wishes
        self._section(lambda progress: compare_tables(name, contestants, wishes.shards, wishes.device, progress))

    def write_toml(self, path: Path) -> None:
        """What is recommended for the first size."""
        write_text(path, recommended_toml(self._wishes))
        console.say(f"wrote {path}; try: meloformer train --config {path}", quiet=self._quiet)

    def _section(self, tables_of: Callable[[Progress], Tables]) -> list[Table]:
        """Fill in some tables, and show what has rows, also where Ctrl-C cuts it short."""
        tables: list[Table] = []
        steps = 0
        try:
            with console.progress("bench", quiet=self._quiet) as bar:

                def progress(done: int, total: int, remark: str = "") -> None:
                    nonlocal steps
                    steps = total
                    bar(done, total, remark)

                for table in tables_of(progress):
                    if table not in tables:
                        tables.append(table)
                if steps:
                    bar(steps, steps)
        finally:
            for table in tables:
                self._show(table)
        return tables

    def _show(self, table: Table) -> None:
        if not table.rows:
            return
        self._record.setdefault(table.name, []).extend(table.records)
        if self._as_json:
            return
        if self._markdown:
            console.result(table.to_markdown())
            console.result("")
            return
        console.table(table.title, table.columns, table.rows)
        for note in table.notes:
            console.note(note)
        console.result("")

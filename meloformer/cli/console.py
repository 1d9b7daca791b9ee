"""The only place that prints. Results go to stdout; messages, progress and errors to stderr."""

from __future__ import annotations

import errno
import functools
import json
import os
import shlex
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, ParamSpec, Protocol

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from meloformer.errors import MeloFormerError

P = ParamSpec("P")
INTERRUPTED = 130
BUG = 70
"""Exit code of a failure that is not the user's (sysexits.h: EX_SOFTWARE)."""
PLAIN_PROGRESS_SECONDS = 5.0
"""Between two lines of progress where stderr is no terminal."""

_err = Console(stderr=True, highlight=False, soft_wrap=True)
_out = Console(highlight=False)


def say(text: str, *, quiet: bool = False) -> None:
    """A message for the user, on stderr."""
    if not quiet:
        _err.print(escape(text))


def say_recovered(name: str, recovered: str | None, *, quiet: bool) -> None:
    """What was wrong with a file that was read nevertheless, if anything was."""
    if recovered:
        say(f"{name} is damaged: {recovered}; what could be read is taken", quiet=quiet)


def result(text: str) -> None:
    """Plain text on stdout, exactly as it is."""
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")


def json_result(record: Mapping[str, Any]) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json.dumps(record) + "\n")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on stdout; the first column is text, the others are numbers."""
    drawn = Table(title=escape(title), title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        drawn.add_column(escape(column), justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*(escape(cell if isinstance(cell, str) else f"{cell:,}") for cell in row))
    _out.print(drawn)


def note(text: str) -> None:
    """A remark that belongs to a table, on stdout."""
    _out.print(escape(text), style="dim")


class Progress(Protocol):
    """Shows how far a command is."""

    def __call__(self, done: int, total: int, remark: str = "") -> None:
        """``done`` of ``total``, and something to say beside it."""
        ...


@contextmanager
def progress(label: str, *, quiet: bool) -> Iterator[Progress]:
    """A bar on a terminal, a line now and then elsewhere; gives a function of (done, total, remark)."""
    if quiet:
        yield _no_progress
    elif _err.is_terminal:
        with _bar(label) as update:
            yield update
    else:
        yield _plain_progress(label)


def _no_progress(done: int, total: int, remark: str = "") -> None:
    """Show nothing."""


@contextmanager
def _bar(label: str) -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress
    from rich.table import Column

    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=None),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[rate]}"), TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[remark]}", table_column=Column(no_wrap=True)),
    )  # fmt: skip
    with RichProgress(*columns, console=_err, expand=True) as bar:
        task = bar.add_task(escape(label), total=None, rate="", remark="")

        def update(done: int, total: int, remark: str = "") -> None:
            speed = bar.tasks[0].speed
            rate = f"{speed:.1f}/s" if speed and not remark else ""  # 80 columns have no room for both
            bar.update(task, completed=done, total=total, rate=rate, remark=escape(remark))

        yield update


def _plain_progress(label: str) -> Progress:
    started = last = time.monotonic()
    at_start: int | None = None

    def update(done: int, total: int, remark: str = "") -> None:
        nonlocal last, at_start
        at_start = done - 1 if at_start is None else at_start
        now = time.monotonic()
        if done < total and now - last < PLAIN_PROGRESS_SECONDS:
            return
        last = now
        rate = (done - at_start) / max(now - started, 1e-9)
        left = f", {(total - done) / rate:.0f} s left" if rate and done < total else ""
        _err.print(escape(f"{label} {done:,}/{total:,} ({rate:.1f}/s{left}) {remark}".rstrip()))

    return update


def reports_errors(command: Callable[P, None]) -> Callable[P, None]:
    """A command whose errors become one line on stderr and an exit code, never a traceback."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        heard: list[int] = []
        try:
            with _heard_interrupts(heard), warnings.catch_warnings():
                warnings.simplefilter("default", UserWarning)
                warnings.showwarning = lambda message, *_args, **_kwargs: say(f"warning: {message}")
                command(*args, **kwargs)
            sys.stdout.flush()
        except typer.Exit:
            raise
        except MeloFormerError as error:
            _fail(str(error), 1)
        except KeyboardInterrupt as stop:
            _fail_interrupted(str(stop))
        except BrokenPipeError:  # the reader of our output has gone, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            advice = "; free some space and run the same command again" if error.errno == errno.ENOSPC else ""
            _fail(f"{error.strerror or error}{where}{advice}", 1)
        except Exception as error:
            if heard:  # while a package was loading, which then broke in its own way
                _fail_interrupted()
            if os.environ.get("MELOFORMER_DEBUG"):
                raise
            kind = f"{type(error).__name__}: {error}".splitlines()[0]
            _fail(f"this is a bug in MeloFormer ({kind}); MELOFORMER_DEBUG=1 shows where", BUG)

    return run


@contextmanager
def _heard_interrupts(heard: list[int]) -> Iterator[None]:
    """Note every SIGINT, which interrupts as usual."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        signal.default_int_handler(number, frame)

    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, hear)
    try:
        yield
    finally:
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, before)


def _fail_interrupted(message: str = "") -> NoReturn:
    message = message or "interrupted; to start over:"
    again = f" {shlex.join(['meloformer', *sys.argv[1:]])}" if message.endswith(":") else ""
    _fail(message + again, INTERRUPTED)


def _fail(message: str, code: int) -> NoReturn:
    one_line = " ".join(message.splitlines())
    _err.print(f"[bold red]error:[/] {escape(one_line)}" if code != INTERRUPTED else escape(one_line))
    raise typer.Exit(code)

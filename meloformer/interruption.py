"""Ending a run on request, between two steps, and processes with the run that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stop_signals(*, ignore_more: bool = False) -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, for a loop to look at when its work is in order.

    A second signal interrupts as usual, unless more are to be ignored: torchrun passes on to every process what a
    terminal may have sent it already, and kills it where it has not ended after 30 s. Where the caller is not the main
    thread nothing is changed: only the main thread hears signals.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(_number: int, _frame: object) -> None:
        stop.set()
        if not ignore_more:
            restore()

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        restore()


def end_with_the_parent() -> None:
    """See to it that this process, which ``multiprocessing`` has started, ends when the one that started it has."""
    threading.Thread(target=_wait_and_end, daemon=True).start()


def _wait_and_end() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)

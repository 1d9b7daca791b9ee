"""A backend for mido whose ports remember what is sent to them, and when."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import mido
from mido.ports import BaseOutput

NAMES = ["Recorder A", "Recorder B", "Organ"]
sent: list[tuple[float, str, Any]] = []
"""Moment, name of the port, message."""
at_message: dict[int, Callable[[], object]] = {}
"""Count of messages sent -> what happens then."""


def get_devices(**_options: Any) -> list[dict[str, Any]]:
    return [{"name": name, "is_input": False, "is_output": True} for name in NAMES]


class Output(BaseOutput):
    """A port that records."""

    def _open(self, **_options: Any) -> None:
        if self.name == "Organ":
            raise OSError("the organ is in use")

    def _send(self, msg: mido.Message) -> None:
        sent.append((time.perf_counter(), str(self.name), msg))
        at_message.pop(len(sent), lambda: None)()

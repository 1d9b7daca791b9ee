"""Playing bars on a MIDI port while they are still being made."""

from __future__ import annotations

import heapq
import math
import sys
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

import mido

from meloformer.errors import OutputError
from meloformer.render.bars import PlayedBar
from meloformer.render.channels import Channels

POLL_SECONDS = 0.02
"""The longest sleep: how soon a new bar or a wish to stop is noticed."""
LEAD_SECONDS = 0.05
"""From the decision to begin, or to go on after a pause, to the first note."""
SHORTEST_SECONDS = 0.001
"""A note of no length is held for as long."""
SWITCH_SECONDS = 0.0005
"""How long a thread that makes bars may keep Python from the one that plays: the default of 5 ms would be heard."""
SUSTAIN, ALL_SOUND_OFF, ALL_NOTES_OFF = 64, 120, 123
"""Controllers (MIDI 1.0, "Channel Mode Messages")."""


class Port(Protocol):
    """Where messages go; mido's output ports are such."""

    def send(self, msg: mido.Message, /) -> None:
        """Send one message now."""
        ...


class Clock(Protocol):
    """The time, so that tests need not wait for it."""

    def now(self) -> float:
        """Seconds since some moment."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class RealClock:
    """The monotonic clock of the system."""

    def now(self) -> float:
        """Seconds since some moment."""
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class BarQueue:
    """Bars on their way from the one who makes them to the one who plays them."""

    def __init__(self) -> None:
        self._bars: deque[PlayedBar] = deque()
        self.is_finished = False
        """No further bar comes."""

    def __len__(self) -> int:
        return len(self._bars)

    def put(self, bar: PlayedBar) -> None:
        """A bar is ready."""
        self._bars.append(bar)

    def take(self) -> PlayedBar:
        """The next bar; there must be one."""
        return self._bars.popleft()


@dataclass
class Played:
    """What was played, and how punctually."""

    bars: int = 0
    """Bars that have begun."""
    notes: int = 0
    pauses: int = 0
    """How often the next bar was not there in time, and the music waited at the bar line."""
    paused_seconds: float = 0.0
    late_seconds: array[float] = field(default_factory=lambda: array("d"))
    """For every message that was sent, how long after its moment."""

    @property
    def most_late_seconds(self) -> float:
        """Of the message that came latest."""
        return max(self.late_seconds, default=0.0)


class _Kind(IntEnum):
    """What happens; the order is that of events at one moment."""

    BAR = 0
    """A bar begins; nothing is sent."""
    NOTE_OFF = 1
    PROGRAM = 2
    NOTE_ON = 3


@dataclass(order=True, slots=True)
class _Event:
    """Something that happens at a moment of the clock."""

    seconds: float
    kind: _Kind
    serial: int
    channel: int = field(default=0, compare=False)
    number: int = field(default=0, compare=False)
    """Pitch or program."""
    velocity: int = field(default=0, compare=False)
    note: int = field(default=-1, compare=False)
    """Which note of the piece begins or ends."""


class Player:
    """Sends the messages of bars at their moments, on one port."""

    def __init__(self, port: Port, queue: BarQueue, *, buffer_bars: int, clock: Clock, stop: threading.Event) -> None:
        self.played = Played()
        self._port, self._queue, self._clock, self._stop = port, queue, clock, stop
        self._needed = 1 + buffer_bars
        self._channels = Channels()
        self._events: list[_Event] = []
        self._serial = 0
        self._bar_end: float | None = None
        """When the next bar begins; ``None`` until the first one has."""
        self._sounding: dict[tuple[int, int], int] = {}
        """(channel, pitch) -> number of the note that holds it."""

    def run(self, on_bar: Callable[[int], None] | None = None) -> None:
        """Play until the bars end or ``stop`` is set; whatever happens, nothing sounds afterwards.

        Args:
            on_bar: Told the number of every bar, from 1 on, as it begins.
        Raises:
            OutputError: The port fails.
        """
        try:
            while not self._stop.is_set():
                self._take_bars()
                if not self._events and self._queue.is_finished and not self._queue:
                    break
                due = self._events[0].seconds if self._events else math.inf
                wait = due - self._clock.now()
                if wait > 0:
                    self._clock.sleep(min(wait, POLL_SECONDS))
                else:
                    self._happen(heapq.heappop(self._events), on_bar)
        finally:
            self.silence()

    def silence(self) -> None:
        """End every note: each that is known to sound, and whatever a device may hold on any channel."""
        for channel, pitch in self._sounding:
            self._try_to_send(_note_off(channel, pitch))
        self._sounding.clear()
        for channel in range(16):
            for controller in (SUSTAIN, ALL_NOTES_OFF, ALL_SOUND_OFF):
                self._try_to_send(mido.Message("control_change", channel=channel, control=controller, value=0))

    def _try_to_send(self, message: mido.Message) -> None:
        with suppress(Exception):  # a device that has gone away must not keep the rest from being tried
            self._port.send(message)

    def _take_bars(self) -> None:
        """Lay out the bars that are ready, once enough of them are."""
        now = self._clock.now()
        is_idle = self._bar_end is None or now > self._bar_end
        if is_idle and len(self._queue) < self._needed and not self._queue.is_finished:
            return
        while self._queue:
            self._lay_out(self._queue.take(), now)

    def _lay_out(self, bar: PlayedBar, now: float) -> None:
        start = now + LEAD_SECONDS if self._bar_end is None else self._bar_end
        if now > start:
            self.played.pauses += 1
            self.played.paused_seconds += now + LEAD_SECONDS - start
            start = now + LEAD_SECONDS
        self._bar_end = start + bar.seconds
        self._add(start, _Kind.BAR)
        columns = (bar.onset_seconds, bar.duration_seconds, bar.pitch, bar.velocity, bar.program)
        for onset, duration, pitch, velocity, program in zip(*(column.tolist() for column in columns), strict=True):
            channel, is_new = self._channels.take(program)
            if is_new:
                self._add(start + onset, _Kind.PROGRAM, channel, program)
            note, end = self._serial, start + onset + max(duration, SHORTEST_SECONDS)
            self._add(start + onset, _Kind.NOTE_ON, channel, pitch, velocity=velocity, note=note)
            self._add(end, _Kind.NOTE_OFF, channel, pitch, note=note)

    def _add(
        self, seconds: float, kind: _Kind, channel: int = 0, number: int = 0, *, velocity: int = 0, note: int = -1
    ) -> None:
        heapq.heappush(self._events, _Event(seconds, kind, self._serial, channel, number, velocity, note))
        self._serial += 1

    def _happen(self, event: _Event, on_bar: Callable[[int], None] | None) -> None:
        key = (event.channel, event.number)
        if event.kind is _Kind.BAR:
            self.played.bars += 1
            if on_bar is not None:
                on_bar(self.played.bars)
        elif event.kind is _Kind.PROGRAM:
            program_change = mido.Message("program_change", channel=event.channel, program=event.number)
            self._send(program_change, event.seconds)
        elif event.kind is _Kind.NOTE_ON:
            if key in self._sounding:  # played again before it ended
                self._send(_note_off(*key), event.seconds)
            self._sounding[key] = event.note
            self.played.notes += 1
            note_on = mido.Message("note_on", channel=event.channel, note=event.number, velocity=event.velocity)
            self._send(note_on, event.seconds)
        elif self._sounding.get(key) == event.note:
            del self._sounding[key]
            self._send(_note_off(*key), event.seconds)

    def _send(self, message: mido.Message, moment: float) -> None:
        try:
            self._port.send(message)
        except Exception as error:  # noqa: BLE001 (every backend raises its own)
            raise OutputError(f"the MIDI port takes no more messages ({error})") from None
        self.played.late_seconds.append(self._clock.now() - moment)


def _note_off(channel: int, pitch: int) -> mido.Message:
    return mido.Message("note_off", channel=channel, note=pitch, velocity=0)


def play_live(
    bars: Iterable[PlayedBar],
    port: Port,
    *,
    buffer_bars: int = 1,
    stop: threading.Event | None = None,
    on_bar: Callable[[int], None] | None = None,
) -> Played:
    """Play bars while a thread goes on making them.

    The music begins when the first bar and ``buffer_bars`` more are ready, or all there are. Where the next bar is not
    ready in time, it waits at the bar line until as many are ready again.

    Args:
        bars: What is played; taken from in a thread of its own.
        port: Where messages go.
        buffer_bars: Bars that are ready ahead of the one that begins.
        stop: Set it to end the music at once.
        on_bar: Told the number of every bar, from 1 on, as it begins.
    Returns:
        What was played. Nothing sounds any more.
    Raises:
        OutputError: The port fails.
        Whatever making the bars raises, after what was ready has been played.
    """
    stop = stop or threading.Event()
    queue, errors, ended = BarQueue(), list[BaseException](), threading.Event()

    def produce() -> None:
        try:
            for bar in bars:
                queue.put(bar)
                if stop.is_set() or ended.is_set():
                    break
        except BaseException as error:  # noqa: BLE001 (raised again by the thread that plays)
            errors.append(error)
        finally:
            queue.is_finished = True

    player = Player(port, queue, buffer_bars=buffer_bars, clock=RealClock(), stop=stop)
    producer = threading.Thread(target=produce, name="bars", daemon=True)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        producer.start()
        player.run(on_bar)
    finally:
        sys.setswitchinterval(interval)
        ended.set()
        producer.join()
    if errors:
        raise errors[0]
    return player.played

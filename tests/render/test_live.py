"""Live playing: every event at its moment, a wait at the bar line where a bar is late, and silence at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import mido
import numpy as np
import pytest

from meloformer.errors import OutputError
from meloformer.midi.score import DRUMS, make_score
from meloformer.render.bars import DRUM_SECONDS, PlayedBar, played_bars
from meloformer.render.channels import Channels
from meloformer.render.live import LEAD_SECONDS, BarQueue, Player, play_live
from tests.render.pieces import band


class FakeClock:
    """A clock that moves only when somebody sleeps; some things happen at their moment."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.plan: list[tuple[float, Callable[[], None]]] = []

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.seconds += seconds
        while self.plan and self.plan[0][0] <= self.seconds:
            self.plan.pop(0)[1]()


class Recorder:
    """A port that remembers when it was sent what."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.sent: list[tuple[float, mido.Message]] = []

    def send(self, msg: mido.Message, /) -> None:
        self.sent.append((round(self.clock.now() - 100 - LEAD_SECONDS, 6), msg))

    def of(self, kind: str) -> list[tuple[float, int, int]]:
        """(moment, channel, pitch) of the notes that begin or end."""
        return [(at, msg.channel, msg.note) for at, msg in self.sent if msg.type == kind]  # type: ignore[attr-defined]


def bar(*notes: tuple[float, float, int, int], seconds: float = 2.0) -> PlayedBar:
    """Notes as (onset, duration, pitch, program)."""
    onset, duration, pitch, program = zip(*notes, strict=True) if notes else ((), (), (), ())
    whole = np.array(pitch, dtype=np.int64)
    return PlayedBar(seconds, np.array(onset), np.array(duration), whole, np.full(len(whole), 80), np.array(program))


class Stage:
    """A player with a fake clock and a recording port."""

    def __init__(self, *, buffer_bars: int = 1) -> None:
        self.clock, self.queue, self.stop = FakeClock(), BarQueue(), threading.Event()
        self.port = Recorder(self.clock)
        self.player = Player(self.port, self.queue, buffer_bars=buffer_bars, clock=self.clock, stop=self.stop)

    def deliver(self, at: float, one: PlayedBar, *, is_last: bool = False) -> None:
        """A bar becomes ready at a moment."""

        def happen() -> None:
            self.queue.put(one)
            self.queue.is_finished = is_last

        self.clock.plan.append((100 + at, happen))


def test_every_event_comes_at_its_moment() -> None:
    stage = Stage()
    stage.queue.put(bar((0, 0.5, 60, 0), (0.5, 0.5, 62, 0), (0.5, DRUM_SECONDS, 36, DRUMS)))
    stage.queue.put(bar((0.25, 1, 64, 40)))
    stage.queue.is_finished = True
    stage.player.run()
    assert stage.port.of("note_on") == [(0, 0, 60), (0.5, 0, 62), (0.5, 9, 36), (2.25, 1, 64)]
    assert stage.port.of("note_off") == [(0.5, 0, 60), (0.6, 9, 36), (1.0, 0, 62), (3.25, 1, 64)]
    programs = [(at, msg.channel, msg.program) for at, msg in stage.port.sent if msg.type == "program_change"]  # type: ignore[attr-defined]
    assert programs == [(0, 0, 0), (2.25, 1, 40)]
    played = stage.player.played
    assert (played.bars, played.notes, played.pauses) == (2, 4, 0)
    assert played.most_late_seconds < 1e-6


def test_the_music_begins_when_a_bar_is_ready_ahead_of_the_first() -> None:
    stage = Stage()
    stage.deliver(1, bar((0, 1, 60, 0)))
    stage.deliver(3, bar((0, 1, 62, 0)))
    stage.deliver(4, bar((0, 1, 64, 0)), is_last=True)
    stage.player.run()
    (first, _, _), (second, _, _), (third, _, _) = stage.port.of("note_on")
    assert first == pytest.approx(3, abs=0.021)
    assert (second - first, third - second) == (pytest.approx(2), pytest.approx(2))
    assert stage.player.played.pauses == 0


def test_a_late_bar_waits_at_its_bar_line_and_no_note_hangs_meanwhile() -> None:
    stage = Stage(buffer_bars=0)
    stage.deliver(0.01, bar((0, 2.5, 60, 0)))
    stage.deliver(5, bar((0, 1, 62, 0)), is_last=True)
    stage.player.run()
    (first, _, _), (second, _, _) = stage.port.of("note_on")
    assert stage.port.of("note_off")[0][0] - first == pytest.approx(2.5)
    assert second == pytest.approx(5, abs=0.021)
    assert stage.player.played.pauses == 1
    assert stage.player.played.paused_seconds == pytest.approx(second - first - 2)
    assert stage.player.played.most_late_seconds < 1e-6


def test_a_short_piece_is_played_though_no_bar_is_ahead() -> None:
    stage = Stage(buffer_bars=3)
    stage.queue.put(bar((0, 1, 60, 0)))
    stage.queue.is_finished = True
    stage.player.run()
    assert len(stage.port.of("note_on")) == 1


def test_a_note_that_is_played_again_is_ended_once_before_and_once_at_its_own_end() -> None:
    stage = Stage()
    stage.queue.put(bar((0, 3, 60, 0), (1, 0.5, 60, 0)))
    stage.queue.is_finished = True
    stage.player.run()
    order = [(at, msg.type) for at, msg in stage.port.sent if msg.type.startswith("note")]  # type: ignore[attr-defined]
    assert order == [(0, "note_on"), (1, "note_off"), (1, "note_on"), (1.5, "note_off")]


def test_stopping_ends_every_note_and_silences_every_channel() -> None:
    stage = Stage()
    stage.queue.put(bar((0, 9, 60, 0), (0, 9, 64, 40), (1, 9, 67, 0)))
    stage.queue.put(bar((0, 9, 72, 0)))
    stage.clock.plan.append((100 + 1.5, stage.stop.set))
    stage.player.run()
    assert sorted(key for _, *key in stage.port.of("note_off")) == [[0, 60], [0, 67], [1, 64]]
    controls = {(msg.channel, msg.control) for _, msg in stage.port.sent if msg.type == "control_change"}  # type: ignore[attr-defined]
    assert controls == {(channel, control) for channel in range(16) for control in (64, 120, 123)}
    assert stage.port.sent[-1][0] < 1.6
    assert stage.player.played.bars == 1


def test_a_failing_port_is_still_silenced() -> None:
    stage = Stage()
    send = stage.port.send

    def fail_at_drums(msg: mido.Message, /) -> None:
        if msg.type == "note_on" and msg.channel == 9:  # type: ignore[attr-defined]
            raise OSError("the device is gone")
        send(msg)

    stage.port.send = fail_at_drums  # type: ignore[method-assign]
    stage.queue.put(bar((0, 9, 60, 0), (1, 0.1, 36, DRUMS)))
    stage.queue.is_finished = True
    with pytest.raises(OutputError, match=r"no more messages .*gone"):
        stage.player.run()
    assert (1, 0, 60) in stage.port.of("note_off")


def test_an_error_of_the_maker_is_raised_after_what_was_ready() -> None:
    def bars() -> Iterator[PlayedBar]:
        yield bar((0, 0.01, 60, 0), seconds=0.02)
        raise ZeroDivisionError

    port = Recorder(FakeClock())
    with pytest.raises(ZeroDivisionError):
        play_live(bars(), port)
    assert len(port.of("note_on")) == 1


def test_the_sixteenth_instrument_takes_the_channel_that_was_idle_the_longest() -> None:
    channels = Channels()
    assert [channels.take(program)[0] for program in range(15)] == [*range(9), *range(10, 16)]
    assert channels.take(DRUMS) == (9, False)
    assert channels.take(0) == (0, False)
    assert channels.take(20) == (1, True)  # program 1 was idle the longest
    assert channels.take(1) == (2, True)


def test_a_score_is_played_under_its_tempo_map() -> None:
    score = make_score(
        ticks_per_quarter=480, onset_ticks=[0, 960, 1920, 2400], duration_ticks=[480, 1920, 480, 1],
        pitch=[60, 62, 64, 36], velocity=[80] * 4, program=[0, 0, 0, DRUMS], tempos=[(0, 500_000), (1920, 1_000_000)],
        end_ticks=3840,
    )  # fmt: skip
    first, second = played_bars(score)
    assert (first.seconds, second.seconds) == (2, 4)
    assert first.onset_seconds.tolist() == [0, 1]
    assert first.duration_seconds.tolist() == [0.5, 3]  # across the change of tempo
    assert second.onset_seconds.tolist() == [0, 1]
    assert second.duration_seconds.tolist() == [1, DRUM_SECONDS]


def test_events_are_punctual_by_the_real_clock_while_a_thread_computes() -> None:
    """Within 50 ms here, where other tests share the machine; ``benchmarks/live.py`` measures against 5 ms."""
    beats: list[float] = []

    class Port:
        def send(self, msg: mido.Message, /) -> None:
            if msg.type == "note_on":  # type: ignore[attr-defined]
                beats.append(time.perf_counter())

    def bars() -> Iterator[PlayedBar]:
        for one in played_bars(band(num_bars=5, programs=(0,)).with_changes(tempo_us=np.array([50_000]))):
            sum(number * number for number in range(100_000))
            yield one

    played = play_live(bars(), Port())
    assert (played.bars, played.notes, played.pauses) == (5, 20, 0)
    assert np.diff(beats) == pytest.approx(np.full(19, 0.05), abs=0.05)
    assert played.most_late_seconds < 0.05

"""Which of a port's sixteen channels an instrument plays on, and what is sent for a note."""

from __future__ import annotations

from collections import OrderedDict

from meloformer.midi.score import DRUMS
from meloformer.midi.write import DRUM_CHANNEL, MELODIC_CHANNELS


class Channels:
    """Hands out the channels of one port; the sixteenth instrument takes the one that was idle the longest."""

    def __init__(self) -> None:
        self._channel_of: OrderedDict[int, int] = OrderedDict()

    def take(self, program: int) -> tuple[int, bool]:
        """The channel of an instrument from now on, and whether a program change has to be sent first."""
        if program == DRUMS:
            return DRUM_CHANNEL, False
        if program in self._channel_of:
            self._channel_of.move_to_end(program)
            return self._channel_of[program], False
        free = [channel for channel in MELODIC_CHANNELS if channel not in self._channel_of.values()]
        channel = free[0] if free else self._channel_of.popitem(last=False)[1]
        self._channel_of[program] = channel
        return channel, True

"""Playing on a MIDI port, for ``generate --port`` and ``render --port``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from meloformer.cli import console

if TYPE_CHECKING:
    import numpy as np

    from meloformer.midi.score import Score
    from meloformer.model.meloformer import MeloFormer
    from meloformer.render.bars import PlayedBar
    from meloformer.render.live import Played
    from meloformer.settings import GenerationSettings, Settings


@console.reports_errors
def list_ports(wanted: bool) -> None:
    """Print the names of the MIDI ports and end the program, where that is wished for."""
    from meloformer.render.ports import NO_PORTS, output_names

    if not wanted:
        return
    names = output_names()
    console.result("\n".join(names) if names else f"no MIDI ports; {NO_PORTS}")
    raise typer.Exit


def play_score(score: Score, name: str, settings: Settings, *, quiet: bool) -> dict[str, Any]:
    """Play a piece on the port that the settings name.

    Returns:
        How punctual it was.
    Raises:
        KeyboardInterrupt: It was stopped.
        InputError, MeloFormerError: There is no such port.
    """
    from meloformer.interruption import stop_signals
    from meloformer.render.bars import played_bars
    from meloformer.render.live import play_live
    from meloformer.render.ports import output_port

    assert settings.render.port is not None
    bars = list(played_bars(score))
    with output_port(settings.render.port) as port, stop_signals() as stop, console.progress(name, quiet=quiet) as bar:
        played = play_live(bars, port, buffer_bars=0, stop=stop, on_bar=lambda number: bar(number, len(bars)))
        was_stopped = stop.is_set()
    if was_stopped:
        raise KeyboardInterrupt(f"stopped in bar {played.bars} of {name}")
    return punctuality(played)


def play_while_generating(
    model: MeloFormer, settings: Settings, *, quiet: bool
) -> tuple[np.ndarray | None, dict[str, Any], bool]:
    """Write one piece and play it meanwhile on the port that the settings name.

    Returns:
        (T,) ids of the bars that were played, a whole document, or ``None`` where none was; how punctual it was; and
        whether it was stopped.
    Raises:
        GenerationError: Several pieces are wished for, or a wish cannot be fulfilled.
        InputError, MeloFormerError: There is no such port.
    """
    from meloformer.errors import GenerationError
    from meloformer.interruption import stop_signals
    from meloformer.render.live import play_live
    from meloformer.render.ports import output_port

    wishes = settings.generation
    if wishes.num > 1:
        raise GenerationError(f"a port plays one piece at a time, not {wishes.num}", "leave out --num")
    assert settings.render.port is not None
    bars: list[np.ndarray] = []
    with (
        output_port(settings.render.port) as port,
        stop_signals() as stop,
        console.progress("bars", quiet=quiet) as bar,
    ):
        played = play_live(
            generated_bars(model, wishes, bars),
            port,
            buffer_bars=settings.render.buffer_bars,
            stop=stop,
            on_bar=lambda number: bar(number, wishes.bars, f"{len(bars) - number} ahead"),
        )
        was_stopped = stop.is_set()
    return _document(bars[: played.bars]), punctuality(played), was_stopped


def generated_bars(model: MeloFormer, wishes: GenerationSettings, written: list[np.ndarray]) -> Iterator[PlayedBar]:
    """Bars of one piece as they are played, while the model writes it; the ids of each are put into ``written``."""
    from meloformer.generation.generate import stream
    from meloformer.render.bars import played_bars
    from meloformer.tokens.bar_by_bar import BarDecoder

    decoder = BarDecoder(model.vocabulary)
    for bar in stream(model, wishes):
        written.append(bar.ids)
        yield from played_bars(decoder.decode(bar.ids))


def _document(bars: list[np.ndarray]) -> np.ndarray | None:
    """(T,) ids of the first bars of a piece, with an EOS behind them."""
    import numpy as np

    from meloformer.tokens.vocabulary import EOS

    if not bars:
        return None
    ids = np.concatenate(bars)
    return ids if ids[-1] == EOS else np.append(ids, np.array(EOS, dtype=ids.dtype))


def punctuality(played: Played) -> dict[str, Any]:
    """What was played and how punctually, as plain figures."""
    return {
        "played_bars": played.bars,
        "played_notes": played.notes,
        "most_late_ms": round(1000 * played.most_late_seconds, 2),
        "pauses": played.pauses,
        "paused_seconds": round(played.paused_seconds, 2),
    }


def tell(facts: dict[str, Any], *, quiet: bool) -> None:
    """Say how punctual the music was."""
    text = f"played {facts['played_bars']} bars; no event came more than {facts['most_late_ms']} ms late"
    if facts["pauses"]:
        text += f"; the music waited {facts['pauses']} times for its next bar, {facts['paused_seconds']} s in all"
    console.say(text, quiet=quiet)

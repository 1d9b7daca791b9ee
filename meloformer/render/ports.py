"""MIDI ports of this machine, through mido; its backend is python-rtmidi unless MIDO_BACKEND names another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from meloformer.errors import InputError, MeloFormerError

HINT = "see --list-ports"
WITHOUT = "run without --port, and play the .mid file"
NO_PORTS = f"connect a device or start a synthesizer, or {WITHOUT}"


def output_names() -> list[str]:
    """Names of the ports that music can be sent to, in the order of the system.

    Raises:
        MeloFormerError: python-rtmidi is not installed, or the system has no MIDI.
    """
    import mido

    try:
        return list(dict.fromkeys(mido.get_output_names()))  # type: ignore[attr-defined]
    except ImportError as error:
        if error.name != "rtmidi":
            raise MeloFormerError(f"mido has no backend for MIDI ports ({error})", "look at MIDO_BACKEND") from None
        raise MeloFormerError("MIDI ports need the package python-rtmidi", "pip install 'meloformer[live]'") from None
    except Exception as error:  # noqa: BLE001 (every backend raises its own; rtmidi's SystemError where there is no ALSA)
        problem = f"this system gives no access to MIDI ports ({_one_line(error)})"
        raise MeloFormerError(problem, WITHOUT) from None


@contextmanager
def output_port(name: str) -> Iterator[Any]:
    """A port to send to, closed at the end.

    Args:
        name: Of the port, or a part of it that no other has; case does not matter.
    Raises:
        InputError: There is no such port, there are several, or it cannot be opened.
        MeloFormerError: As for :func:`output_names`.
    """
    import mido

    full_name = matching_name(name, output_names())
    try:
        port = mido.open_output(full_name)  # type: ignore[attr-defined]
    except Exception as error:  # noqa: BLE001 (every backend raises its own)
        raise InputError(f"the MIDI port {full_name!r} cannot be opened ({_one_line(error)})", HINT) from None
    with port:
        yield port


def matching_name(name: str, names: list[str]) -> str:
    """The one of ``names`` that is meant.

    Raises:
        InputError: None is, or several are.
    """
    if name in names:
        return name
    found = [other for other in names if name.lower() in other.lower()]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"several MIDI ports have {name!r} in their name: {', '.join(found)}", "write more of it")
    there = f"there are: {', '.join(names)}" if names else f"there is none; {NO_PORTS}"
    raise InputError(f"there is no MIDI port {name!r}", there)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

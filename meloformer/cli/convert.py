"""``meloformer midi2txt`` and ``txt2midi``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meloformer.cli import console, options

if TYPE_CHECKING:
    import numpy as np

    from meloformer.settings import Settings
    from meloformer.tokens.vocabulary import Vocabulary

STANDARD = Path("-")
"""The standard input or output."""


def read_piece(source: str, settings: Settings, vocabulary: Vocabulary, *, quiet: bool) -> np.ndarray:
    """(T,) ids of one music file, unjudged; says so if it is damaged.

    Raises:
        InputError: There is not exactly one piece at ``source``.
        RejectError: It cannot be read or written as tokens.
    """
    from meloformer.errors import RejectError
    from meloformer.midi.sources import read_source
    from meloformer.tokens.encode import encode

    score = read_source(source, max_bytes=settings.filter.max_file_bytes, sustain=settings.tokens.sustain)
    console.say_recovered(source, score.recovered, quiet=quiet)
    try:
        return encode(score, vocabulary, chords=settings.tokens.chords)
    except RejectError as error:
        raise RejectError(error.reason, f"{source}: {error.message}") from None


def _refuse_same(source: Path, out: Path | None) -> None:
    """Nothing is written over what is read."""
    from meloformer.errors import OutputError

    if out is not None and out.exists() and source.exists() and out.samefile(source):
        raise OutputError(f"{out} is the input, so it is not replaced", "name another file")


@console.reports_errors
def midi2txt_command(
    source: Annotated[str, typer.Argument(metavar="SONG", help="A MIDI or score file.")],
    out: Annotated[
        Path | None, typer.Argument(metavar="OUT.txt", help="By default, and for -, the text is printed.")
    ] = None,
    config: options.Config = None,
    overrides: options.Overrides = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a piece as HID text, to read and to edit."""
    from meloformer.files import write_text
    from meloformer.settings_file import load_settings
    from meloformer.tokens.text import to_text
    from meloformer.tokens.vocabulary import Vocabulary

    out = None if out == STANDARD else out
    _refuse_same(Path(source), out)
    text = to_text(read_piece(source, load_settings(config, overrides), Vocabulary.default(), quiet=quiet))
    if out is not None:
        write_text(out, text)
        console.say(f"wrote {out}", quiet=quiet)
    if as_json:
        console.json_result({"out": None if out is None else str(out), "text": text})
    elif out is None:
        console.result(text)


@console.reports_errors
def txt2midi_command(
    source: Annotated[Path, typer.Argument(metavar="SONG.txt", help="HID text; - is the standard input.")],
    out: Annotated[
        Path | None, typer.Argument(metavar="OUT.mid", help="By default SONG.mid, where there is none.")
    ] = None,
    config: options.Config = None,
    overrides: options.Overrides = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write HID text as a MIDI file."""
    from meloformer.errors import InputError, OutputError, TextError
    from meloformer.midi.write import write_midi
    from meloformer.settings_file import load_settings
    from meloformer.tokens.decode import decode
    from meloformer.tokens.text import from_text

    load_settings(config, overrides)  # no setting matters here, but a wrong one is not passed over
    if out == STANDARD or (out is None and source == STANDARD):
        raise OutputError("MIDI is not printed", "name the file to write, such as song.mid")
    try:
        data = sys.stdin.buffer.read() if source == STANDARD else source.read_bytes()
        text = data.decode("utf-8-sig")  # some editors write a mark at the start
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise InputError(f"{source} is no text", "HID text is what midi2txt writes") from None
    target = out or source.with_suffix(".mid")
    _refuse_same(source, target)
    if out is None and target.exists():
        raise OutputError(f"{target} exists already", "name the file to write")
    try:
        score = decode(from_text(text))
    except TextError as error:
        raise TextError(f"{source}: {error.message}", error.hint) from None
    write_midi(score, target)
    assert score.chords is not None
    if as_json:
        console.json_result({"out": str(target), "bars": len(score.chords), "notes": score.num_notes})
    else:
        console.say(f"wrote {target} ({len(score.chords)} bars, {score.num_notes:,} notes)", quiet=quiet)

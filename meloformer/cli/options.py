"""Options that several commands have. What mirrors a setting defaults to ``None``, as defaults live in the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meloformer.cli.live import list_ports
from meloformer.errors import SettingsError

Sources = Annotated[
    list[str],
    typer.Argument(metavar="SRC...", help="Files or folders with MIDI or scores, or corpus:NAME of music21."),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude", metavar="PATTERN", help="Leave out such files or folders, as '*.krn' or demos; may be repeated."
    ),
]
Config = Annotated[Path | None, typer.Option("--config", metavar="FILE.toml", help="Settings from a TOML file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="One setting; may be repeated.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no remarks.")]
Workers = Annotated[int | None, typer.Option("--workers", help="Processes that read files; by default one a core.")]
Scheduler = Annotated[
    str | None,
    typer.Option("--scheduler", metavar="tcp://HOST:PORT", help="Read on the workers of a Dask cluster."),
]
VocabularyFile = Annotated[
    Path | None, typer.Option("--vocab", metavar="vocab.json", help="Of build-vocab; by default the full vocabulary.")
]
Device = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, cuda:1 or mps; by default auto, CUDA where it is.")
]
Size = Annotated[str | None, typer.Option("--size", help="tiny, small, base, large or xlarge; by default small.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Same seed, same result; by default 0.")]
SeqLen = Annotated[int | None, typer.Option("--seq-len", help="Tokens in a row; by default 2048.")]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", help="Rows in a forward and backward pass; by default 4.")
]
Html = Annotated[bool | None, typer.Option("--html", help="A page too that shows the piece and plays it.")]
Audio = Annotated[bool | None, typer.Option("--audio", help="The sound too, as a WAV file.")]
SoundFont = Annotated[
    Path | None,
    typer.Option("--soundfont", metavar="FILE.sf2", help="Sounds for --audio; by default one is looked for."),
]
Port = Annotated[str | None, typer.Option("--port", metavar="NAME", help="Play on this MIDI port; Ctrl-C ends it.")]
ListPorts = Annotated[
    bool, typer.Option("--list-ports", callback=list_ports, is_eager=True, help="Print the MIDI ports and stop.")
]


def refuse_training(overrides: list[str] | None) -> None:
    """Where a model has been trained, nothing of ``model`` and ``training`` can be wished for any more.

    Raises:
        SettingsError: A text of ``--set`` does.
    """
    for text in overrides or ():
        if text.strip().startswith(("model.", "training.")):
            raise SettingsError(
                f"--set {text} changes nothing here: the model is as it was trained",
                "give it to `meloformer train`, or leave it out",
            )

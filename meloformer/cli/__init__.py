"""The command line. Every command lives in a file of its own and imports what it needs when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from meloformer import __version__
from meloformer.cli.bench import bench_command
from meloformer.cli.build_vocab import build_vocab_command
from meloformer.cli.convert import midi2txt_command, txt2midi_command
from meloformer.cli.demo import demo_command
from meloformer.cli.filter import filter_command
from meloformer.cli.generate import generate_command
from meloformer.cli.info import info_command
from meloformer.cli.pack import pack_command
from meloformer.cli.render import render_command
from meloformer.cli.tokenize import tokenize_command
from meloformer.cli.train import train_command

COMMANDS = {
    "filter": filter_command,
    "tokenize": tokenize_command,
    "build-vocab": build_vocab_command,
    "pack": pack_command,
    "info": info_command,
    "train": train_command,
    "bench": bench_command,
    "generate": generate_command,
    "render": render_command,
    "midi2txt": midi2txt_command,
    "txt2midi": txt2midi_command,
    "demo": demo_command,
}
"""Name -> function, in the order of the help page."""

app = typer.Typer(
    name="meloformer",
    help="From a folder of MIDI files to a transformer, and from the transformer to multi-track music.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


def _show_version(wanted: bool) -> None:
    if wanted:
        from meloformer.cli import console

        console.result(f"meloformer {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    app()

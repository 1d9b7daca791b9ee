"""The help pages: there for every command, and quick because they import nothing heavy."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from meloformer.cli import COMMANDS, app
from meloformer.settings import Settings
from tests.cli.conftest import REPOSITORY, Run

SETTING_OF = {
    "train": {
        "SHARDS": "training.shards", "--size": "model.size", "--seq-len": "training.seq_len", "--seed": "training.seed",
        "--epochs": "training.epochs", "--batch-size": "training.batch_size", "--device": "training.device",
    },
    "bench": {"--device": "bench.device"},
    "generate": {"--seed": "generation.seed", "--device": "generation.device"},
    "evaluate": {"--seed": "generation.seed", "--device": "evaluation.device"},
    "demo": {"--seed": "generation.seed"},
}  # fmt: skip
"""Command -> option -> the setting whose default the help tells."""
FOUND_OUT = {
    "one a core", "the full vocabulary", "runs/SIZE-NUMBER", "bf16 on CUDA", "of the one here", "one is looked for",
    "the run writes it", "as the run was trained",
}  # fmt: skip
"""What is done without an option, where no value of a setting says it."""
HEAVY = ("numpy", "torch", "symusic", "music21", "matplotlib", "mido", "zstandard", "safetensors")


def modules_after(*arguments: str, cwd: Path) -> set[str]:
    code = (
        "import sys\n"
        f"sys.argv = ['meloformer', *{list(arguments)!r}]\n"
        "from meloformer.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print(*sys.modules, sep='\\n', file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60
    )
    assert cwd.exists()
    return set(done.stderr.split())


def test_help_imports_nothing_heavy_and_not_even_pydantic(tmp_path: Path) -> None:
    loaded = modules_after("--help", cwd=tmp_path)
    assert "meloformer.cli.train" in loaded
    assert not loaded & {*HEAVY, "pydantic"}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_imports_nothing_heavy(command: str, tmp_path: Path) -> None:
    """Typer itself loads pydantic once it has parameters to read, so that is not asked here."""
    assert not modules_after(command, "--help", cwd=tmp_path) & set(HEAVY)


def test_help_lists_exactly_the_commands_that_exist(meloformer: Run) -> None:
    page = meloformer("--help").stdout
    listed = [
        line.split()[1] for line in page.split("Commands")[1].splitlines() if line[:3] == "│ " + line[2:3].strip()
    ]
    assert [name for name in listed if name in COMMANDS] == list(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_json_and_quiet(command: str, meloformer: Run) -> None:
    page = meloformer(command, "--help").stdout
    for option in ("--json", "--quiet", "--set", "--config"):
        assert option in page


def told_defaults(command: str) -> dict[str, str]:
    """Option, or name of an argument, -> what stands behind "by default" in its help."""
    group: Any = get_command(app)
    found = {}
    for parameter in group.commands[command].params:
        said = re.search(r"by default (.+?)(?:[.,;]\s|[.,;]?$)", parameter.help or "")
        if said:
            is_argument = parameter.param_type_name == "argument"
            found[parameter.metavar if is_argument else parameter.opts[0]] = said[1]
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_a_default_that_the_help_tells_is_that_of_the_settings(command: str) -> None:
    """The help cannot ask the settings: that would load pydantic."""
    told = {name: words for name, words in told_defaults(command).items() if words not in FOUND_OUT}
    settings = SETTING_OF.get(command, {})
    wanted = {name: functools.reduce(getattr, path.split("."), Settings()) for name, path in settings.items()}
    assert told == {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in wanted.items()}


def test_a_wrong_option_is_wrong_usage(meloformer: Run) -> None:
    assert meloformer("train", "--no-such-option").returncode == 2


def test_the_version_is_the_packages(meloformer: Run) -> None:
    from meloformer import __version__

    assert meloformer("--version").stdout == f"meloformer {__version__}\n"

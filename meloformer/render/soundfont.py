"""Finding a SoundFont: the file that was named, or one that the system keeps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from meloformer.errors import InputError

VARIABLE = "MELOFORMER_SOUNDFONT"
"""The environment variable that names a SoundFont."""
FOLDERS = (
    "/usr/share/sounds/sf2", "/usr/share/soundfonts", "/usr/local/share/sounds/sf2", "/usr/local/share/soundfonts",
    "/opt/homebrew/share/soundfonts", "~/.local/share/soundfonts", "~/.local/share/sounds/sf2", "~/soundfonts",
    "~/Library/Audio/Sounds/Banks", "/Library/Audio/Sounds/Banks", "C:/soundfonts",
)  # fmt: skip
"""Where packages of Linux distributions, Homebrew and people put them."""
PREFERRED = ("default-gm", "fluidr3_gm", "fluidr3gm", "generaluser", "musescore_general", "timgm6mb")
"""How the names of well-known General MIDI SoundFonts begin, the best known first."""
HINT = (
    f"name one with --soundfont FILE.sf2 or {VARIABLE}; `pip install 'meloformer[audio]'` brings a small one, and "
    "distributions have fluid-soundfont-gm"
)


def find_soundfont(named: Path | None = None) -> Path:
    """The SoundFont to use: ``named``, else what ``MELOFORMER_SOUNDFONT`` names, else one found in the usual places.

    Raises:
        InputError: The file that was named is not there, or nothing was found.
    """
    from_environment = os.environ.get(VARIABLE)
    if named is None and from_environment:
        named = Path(from_environment)
    if named is not None:
        if not named.expanduser().is_file():
            raise InputError(f"there is no SoundFont {named}", HINT)
        return named.expanduser()
    found = min(_installed(), key=_rank, default=None)
    if found is None:
        raise InputError("no SoundFont (.sf2) was found on this system", HINT)
    return found


def _installed() -> Iterator[Path]:
    """All SoundFonts in the usual places."""
    for folder in map(Path, FOLDERS):
        try:
            yield from (path for path in folder.expanduser().iterdir() if path.suffix.lower() == ".sf2")
        except (OSError, RuntimeError):  # no such folder; no home
            continue
    package = find_spec("pretty_midi")  # which is not imported: only its file of sounds is of use here
    if package is not None and package.origin is not None:
        yield from Path(package.origin).parent.glob("*.sf2")


def _rank(path: Path) -> tuple[int, str]:
    name = path.name.lower()
    begins = [number for number, beginning in enumerate(PREFERRED) if name.startswith(beginning)]
    return begins[0] if begins else len(PREFERRED), str(path)

"""What all tests share: real files beside the repository, ports that remember, the same surroundings everywhere."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

for name in ("GITHUB_ACTIONS", "FORCE_COLOR", "PY_COLORS", "NO_COLOR", "TTY_COMPATIBLE", "TERMINAL_WIDTH"):
    os.environ.pop(name, None)  # before Typer is imported, which looks at them once and for ever
os.environ["COLUMNS"] = "80"  # whatever terminal the tests are started from; rich keeps what it finds at its import

hypothesis.settings.register_profile("meloformer", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("meloformer")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of a shell's background job; processes of tests inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(os.environ.get("MELOFORMER_SHARED") or Path(__file__).parents[2] / "shared").resolve()
"""Where real files lie: ``MELOFORMER_SHARED``, or ``shared`` beside the repository."""


def _files_of(name: str) -> list[Path]:
    """All files under ``SHARED/midi/name``, sorted; the test is skipped where there are none."""
    folder = SHARED / "midi" / name
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "README.txt")
    if not files:
        pytest.skip(f"no files in {folder}; MELOFORMER_SHARED=FOLDER names another place")
    return files


@pytest.fixture(scope="session")
def dev_files() -> list[Path]:
    """The 742 real MIDI files from nine sources."""
    return _files_of("dev")


@pytest.fixture(scope="session")
def malformed_files() -> list[Path]:
    """The 104 broken or odd MIDI files."""
    return _files_of("malformed")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread of PyTorch: what watches its operations sees only those of its own thread."""
    import torch  # here, as most tests do without it

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def recorder() -> Iterator[None]:
    """MIDI ports that remember what is sent to them, in ``recording_backend.sent``."""
    import mido

    from tests.render import recording_backend

    mido.set_backend("tests.render.recording_backend")
    recording_backend.sent.clear()
    recording_backend.at_message.clear()
    yield
    mido.set_backend()

"""Fixtures for the real files beside the repository, and the profile of hypothesis."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

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
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

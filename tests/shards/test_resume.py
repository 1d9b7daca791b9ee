"""Whatever ends a run, the same command goes on, and the bytes at the end are those of a run that nothing disturbed."""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meloformer.errors import OutputError
from meloformer.shards import pipeline
from meloformer.shards.format import ShardWriter
from meloformer.shards.pipeline import filter_pieces, pack_pieces, tokenize_pieces
from meloformer.shards.report import Report
from tests.shards.conftest import assert_adds_up, bytes_in, settings_with

pytestmark = pytest.mark.distributed
SETTINGS = settings_with("pack.val_share=0.3", "pack.test_share=0.2", "pack.shard_tokens=2000", "pack.workers=2")
Stage = Callable[..., Report]
STAGES: dict[str, tuple[Stage, Stage | None]] = {
    "filter": (filter_pieces, None),
    "tokenize": (tokenize_pieces, None),
    "pack": (pack_pieces, None),
    "pack of a filtered list": (pack_pieces, filter_pieces),
    "pack of tokens": (pack_pieces, tokenize_pieces),
}


@pytest.fixture(autouse=True)
def commit_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "COMMIT_SECONDS", 0.0)


def interrupt_at(number: int) -> Callable[[int, int], None]:
    def progress(done: int, _total: int) -> None:
        if done == number:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("name", STAGES)
def test_an_interrupted_run_goes_on_where_it_was(music: Path, tmp_path: Path, name: str) -> None:
    stage, stage_before = STAGES[name]
    source = music
    if stage_before is not None:
        source = tmp_path / "input"
        stage_before([music], source, SETTINGS)
    whole = stage([source], tmp_path / "whole", SETTINGS)
    out = tmp_path / "out"
    for number in (3, 7, whole.inputs - 1):
        with pytest.raises(KeyboardInterrupt, match=rf"^interrupted; {number} of {whole.inputs} files .* to go on:$"):
            stage([source], out, SETTINGS, progress=interrupt_at(number))
        assert not out.exists()
    report = stage([source], out, SETTINGS)
    assert report.resumed == whole.inputs - 1
    assert dataclasses.replace(report, resumed=0) == whole
    assert bytes_in(out) == bytes_in(tmp_path / "whole")
    if stage is not filter_pieces:
        assert_adds_up(report, out)


def test_a_run_with_other_settings_or_files_begins_anew(own_music: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        pack_pieces([own_music], tmp_path / "out", SETTINGS, progress=interrupt_at(5))
    (own_music / "zz/again.mid").unlink()
    with pytest.raises(KeyboardInterrupt, match="interrupted; 2 of"):
        pack_pieces([own_music], tmp_path / "out", SETTINGS, progress=interrupt_at(2))
    report = pack_pieces([own_music], tmp_path / "out", settings_with("pack.level=1"))
    assert report.resumed == 0
    assert_adds_up(report, tmp_path / "out")


@pytest.mark.parametrize(
    "change", ["filter.max_file_bytes=1000000", "pack.timeout_seconds=70", "pack.worker_memory_mb=700"]
)
def test_a_limit_that_may_reject_other_files_begins_anew(music: Path, tmp_path: Path, change: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        tokenize_pieces([music], tmp_path / "out", settings_with(), progress=interrupt_at(5))
    assert tokenize_pieces([music], tmp_path / "out", settings_with(change)).resumed == 0


def test_the_same_words_in_another_folder_name_other_files(
    music: Path, own_music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(music)
    with pytest.raises(KeyboardInterrupt):
        pack_pieces(["good"], tmp_path / "out", SETTINGS, progress=interrupt_at(5))
    monkeypatch.chdir(own_music)
    assert pack_pieces(["good"], tmp_path / "out", SETTINGS).resumed == 0


@pytest.mark.parametrize("damage", ["not json", "another record", "a line less"])
def test_a_run_whose_records_were_damaged_begins_anew(music: Path, tmp_path: Path, damage: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        pack_pieces([music], tmp_path / "out", SETTINGS, progress=interrupt_at(12))
    path = tmp_path / ".out.meloformer.part/documents.jsonl"
    text = path.read_text()
    first, rest = text.split("\n", 1)
    others = {"not json": "x" * len(first), "another record": "{" + " " * (len(first) - 2) + "}"}
    other = others.get(damage, first[:-1] + " " * 0 + "}")
    path.write_text(f"{other}\n{rest}" if damage != "a line less" else " " * len(first) + rest + " ")
    report = pack_pieces([music], tmp_path / "out", SETTINGS)
    assert report.resumed == 0
    assert_adds_up(report, tmp_path / "out")


def test_another_number_of_workers_goes_on(music: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        pack_pieces([music], tmp_path / "out", SETTINGS, progress=interrupt_at(5))
    alone = settings_with("pack.val_share=0.3", "pack.test_share=0.2", "pack.shard_tokens=2000", "pack.workers=1")
    assert pack_pieces([music], tmp_path / "out", alone).resumed == 5


def test_a_full_disk_keeps_what_is_finished(music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack_pieces([music], tmp_path / "whole", SETTINGS)
    write, writes = ShardWriter._write, 0

    def fail(writer: ShardWriter, data: bytes) -> None:
        nonlocal writes
        writes += 1
        if writes == 6:
            write(writer, data[: len(data) // 2])
            writer.sync()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(writer, data)

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "_write", fail)
        with pytest.raises(OutputError, match=r"No space left on device; then run the same command again"):
            pack_pieces([music], tmp_path / "out", SETTINGS)
    report = pack_pieces([music], tmp_path / "out", SETTINGS)
    assert report.resumed > 5
    assert bytes_in(tmp_path / "out") == bytes_in(tmp_path / "whole")


KILLED_RUN = """
import sys
from pathlib import Path
from meloformer.settings_file import load_settings
from meloformer.shards import pipeline

pipeline.COMMIT_SECONDS = 0.0
settings = load_settings(None, sys.argv[3:])
pipeline.pack_pieces([Path(sys.argv[1])], Path(sys.argv[2]), settings, progress=lambda *_: print(end="x", flush=True))
"""


def test_a_killed_run_goes_on_where_it_was(music: Path, tmp_path: Path) -> None:
    changes = ["pack.val_share=0.3", "pack.shard_tokens=2000", "pack.workers=2"]
    pack_pieces([music], tmp_path / "whole", settings_with(*changes))
    repository = str(Path(pipeline.__file__).parents[2])
    command: list[Any] = [sys.executable, "-c", KILLED_RUN, music, tmp_path / "out", *changes]
    environment = {**os.environ, "PYTHONPATH": repository}
    for files_to_go in (2, 3, 4):
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as run:
            assert run.stdout is not None
            assert len(run.stdout.read(files_to_go)) == files_to_go
            run.send_signal(signal.SIGKILL)
    report = pack_pieces([music], tmp_path / "out", settings_with(*changes))
    assert report.resumed >= 2 + 3 + 4 - 3
    assert bytes_in(tmp_path / "out") == bytes_in(tmp_path / "whole")

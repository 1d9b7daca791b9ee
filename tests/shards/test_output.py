"""Outputs appear whole or not at all, and nothing that a user has is lost."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from meloformer.errors import MeloFormerError, OutputError, ShardError
from meloformer.files import write_text
from meloformer.shards.output import STATE_FILE, growing_folder

OWNS = ("manifest.json", "data-*")


def fill(path: Path, content: str, *, kind: str = "some-kind") -> None:
    with growing_folder(path, kind, OWNS, "key") as folder:
        (folder.path / "manifest.json").write_text(json.dumps({"format": kind}))
        (folder.path / "data-0").write_text(content)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    with growing_folder(tmp_path / "deep/out", "some-kind", OWNS, "key") as folder:
        assert not (tmp_path / "deep/out").exists()
        (folder.path / "data-0").write_text("x")
    assert names_in(tmp_path / "deep") == ["out"]
    assert names_in(tmp_path / "deep/out") == ["data-0"]


def test_an_earlier_output_of_the_same_kind_is_replaced_as_a_whole(tmp_path: Path) -> None:
    fill(tmp_path / "out", "old")
    (tmp_path / "out/data-1").write_text("of the old one")
    fill(tmp_path / "out", "new")
    assert names_in(tmp_path) == ["out"]
    assert names_in(tmp_path / "out") == ["data-0", "manifest.json"]
    assert (tmp_path / "out/data-0").read_text() == "new"


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    fill(tmp_path / "out", "new")
    assert names_in(tmp_path) == ["out"]


def interrupt(path: Path, error: BaseException, *, commit: bool, key: str = "key") -> None:
    """Write one input whole and one in part, and fail."""
    with growing_folder(path, "some-kind", OWNS, key) as folder:
        (folder.path / "data-0").write_text("one")
        if commit:
            folder.commit(1, {"data-0": 3})
        with (folder.path / "data-0").open("a") as data:
            data.write(" and a half")
        (folder.path / "data-1").write_text("begun")
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left"), RuntimeError("x")])
def test_after_a_failure_the_old_output_stands_and_the_next_run_goes_on(tmp_path: Path, error: BaseException) -> None:
    fill(tmp_path / "out", "old")
    with pytest.raises((type(error), OutputError)):
        interrupt(tmp_path / "out", error, commit=True)
    assert (tmp_path / "out/data-0").read_text() == "old"
    with growing_folder(tmp_path / "out", "some-kind", OWNS, "key") as folder:
        assert folder.done == 1
        assert (folder.path / "data-0").read_text() == "one"
        assert names_in(folder.path) == [STATE_FILE, "data-0"]
    assert names_in(tmp_path) == ["out"]
    assert names_in(tmp_path / "out") == ["data-0"]


@pytest.mark.parametrize("damage", ["another key", "shorter", "not json", "gone", "no commit"])
def test_what_cannot_be_gone_on_with_is_begun_anew(tmp_path: Path, damage: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupt(
            tmp_path / "out",
            KeyboardInterrupt(),
            commit=damage != "no commit",
            key="other" if damage == "another key" else "key",
        )
    part = tmp_path / ".out.meloformer.part"
    if damage == "shorter":
        (part / "data-0").write_text("o")
    elif damage == "not json":
        (part / STATE_FILE).write_text("{")
    elif damage == "gone":
        (part / "data-0").unlink()
    with growing_folder(tmp_path / "out", "some-kind", OWNS, "key") as folder:
        assert folder.done == 0
        assert names_in(folder.path) == []


def test_a_full_disk_is_one_line_that_says_how_to_go_on(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OutputError) as caught:
        interrupt(tmp_path / "out", full, commit=True)
    wanted = f"cannot write {tmp_path / 'out'}: No space left on device"
    assert str(caught.value) == f"{wanted}; then run the same command again: it goes on where it was"
    with pytest.raises(OutputError) as caught:
        interrupt(tmp_path / "new", full, commit=False)
    assert str(caught.value) == f"cannot write {tmp_path / 'new'}: No space left on device"
    assert names_in(tmp_path) == [".out.meloformer.part"]


def test_an_input_that_is_to_blame_leaves_nothing_to_go_on_with(tmp_path: Path) -> None:
    with pytest.raises(ShardError):
        interrupt(tmp_path / "out", ShardError("damaged"), commit=True)
    assert names_in(tmp_path) == []


class Killed(BaseException):
    pass


def die_at_exchange(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """End at one of the three calls that change which folder stands where."""
    calls = 0

    def counted(original: Any) -> Any:
        def run(self: Path, *args: Any, **named: Any) -> Any:
            nonlocal calls
            calls += not self.name.endswith(f"{os.getpid()}.part")  # not what writes the commit
            if calls == call:
                raise Killed
            return original(self, *args, **named)

        return run

    monkeypatch.setattr(Path, "rename", counted(Path.rename))
    monkeypatch.setattr(Path, "unlink", counted(Path.unlink))


def write_new(path: Path) -> None:
    with growing_folder(path, "some-kind", OWNS, "key") as folder:
        (folder.path / "data-0").write_text("new")
        folder.commit(1, {"data-0": 3})
        (folder.path / "manifest.json").write_text(json.dumps({"format": "some-kind"}))


@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_run_that_was_killed_while_its_folder_took_its_place_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    fill(tmp_path / "out", "old")
    with monkeypatch.context() as patch:
        die_at_exchange(patch, call)
        with pytest.raises(Killed):
            write_new(tmp_path / "out")
    with growing_folder(tmp_path / "out", "some-kind", OWNS, "key") as folder:
        assert folder.done == 1
        assert (folder.path / "data-0").read_text() == "new"
        (folder.path / "manifest.json").write_text(json.dumps({"format": "some-kind"}))
    assert names_in(tmp_path) == ["out"]
    assert names_in(tmp_path / "out") == ["data-0", "manifest.json"]
    assert (tmp_path / "out/data-0").read_text() == "new"


@pytest.mark.parametrize("call", [1, 2, 3])
def test_what_a_killed_run_had_finished_is_not_lost_to_a_run_of_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    fill(tmp_path / "out", "old")
    with monkeypatch.context() as patch:
        die_at_exchange(patch, call)
        with pytest.raises(Killed):
            write_new(tmp_path / "out")
    with pytest.raises(RuntimeError):
        interrupt(tmp_path / "out", RuntimeError(), commit=False, key="another key")
    assert (tmp_path / "out/data-0").read_text() == ("new" if call == 3 else "old")
    assert not (tmp_path / "out" / STATE_FILE).exists()


def test_a_cluster_that_goes_away_before_the_first_commit_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(MeloFormerError):
        interrupt(tmp_path / "out", MeloFormerError("gone"), commit=False)
    assert names_in(tmp_path) == []
    with pytest.raises(MeloFormerError):
        interrupt(tmp_path / "out", MeloFormerError("gone"), commit=True)
    assert names_in(tmp_path) == [".out.meloformer.part"]


def test_two_runs_do_not_write_one_folder(tmp_path: Path) -> None:
    with growing_folder(tmp_path / "out", "some-kind", OWNS, "key") as folder:
        (folder.path / "data-0").write_text("mine")
        with pytest.raises(OutputError, match="another run is writing"):
            fill(tmp_path / "out", "other")
    assert (tmp_path / "out/data-0").read_text() == "mine"


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="is a file"):
        fill(tmp_path / "file", "new")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/mine").write_text("mine")
    with pytest.raises(OutputError, match=r"was not made by MeloFormer.*--out"):
        fill(tmp_path / "folder", "new")
    fill(tmp_path / "other", "old", kind="other-kind")
    with pytest.raises(OutputError, match="holds other-kind, so it is not replaced by some-kind"):
        fill(tmp_path / "other", "new")
    assert names_in(tmp_path) == ["file", "folder", "other"]
    assert (tmp_path / "folder/mine").read_text() == "mine"


@pytest.mark.parametrize("name", ["notes.txt", "data-music/song.mid"])
def test_an_output_that_a_user_put_something_into_is_not_replaced(tmp_path: Path, name: str) -> None:
    fill(tmp_path / "out", "old")
    mine = tmp_path / "out" / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(OutputError, match=f"holds {name.split('/')[0]}, which is no part of"):
        fill(tmp_path / "out", "new")
    assert mine.read_text() == "mine"


def test_a_link_to_an_output_stays_a_link(tmp_path: Path) -> None:
    fill(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    fill(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real/data-0").read_text() == "new"
    assert names_in(tmp_path) == ["link", "real"]


def test_the_folder_one_stands_in_can_be_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    fill(Path(), "new")
    assert names_in(tmp_path / "here") == ["data-0", "manifest.json"]


@pytest.mark.parametrize("name", ["x" * 300, "nul\0", "file/below", "loop/below"])
def test_a_path_that_cannot_be_is_one_clear_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OutputError, match="cannot write"):
        fill(tmp_path / name, "new")
    with pytest.raises(OutputError, match="cannot write"):
        write_text(tmp_path / name, "new")
    assert names_in(tmp_path) == ["file", "loop"]


def test_a_text_file_is_replaced_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", "one")
    write_text(tmp_path / "a.json", "two")
    assert (tmp_path / "a.json").read_text() == "two"
    with pytest.raises(OutputError, match="cannot write"):
        write_text(tmp_path, "a folder is no file")
    assert names_in(tmp_path) == ["a.json"]

"""Outputs appear whole or not at all, and nothing that a user has is lost."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from meloformer.errors import OutputError
from meloformer.files import write_text
from meloformer.shards.output import output_folder

OWNS = ("manifest.json", "data-*")


def fill(path: Path, content: str, *, kind: str = "some-kind") -> None:
    with output_folder(path, kind, OWNS) as folder:
        (folder / "manifest.json").write_text(json.dumps({"format": kind}))
        (folder / "data-0").write_text(content)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    with output_folder(tmp_path / "deep/out", "some-kind", OWNS) as folder:
        assert not (tmp_path / "deep/out").exists()
        (folder / "data-0").write_text("x")
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


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (RuntimeError("x"), RuntimeError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), OutputError),
    ],
)
def test_after_a_failure_the_old_output_stands_and_nothing_lies_about(
    tmp_path: Path, error: BaseException, raised: type[BaseException]
) -> None:
    fill(tmp_path / "out", "old")

    def fail() -> None:
        with output_folder(tmp_path / "out", "some-kind", OWNS) as folder:
            (folder / "data-0").write_text("half")
            raise error

    with pytest.raises(raised) as caught:
        fail()
    assert names_in(tmp_path) == ["out"]
    assert (tmp_path / "out/data-0").read_text() == "old"
    if raised is OutputError:
        assert str(caught.value) == f"cannot write {tmp_path / 'out'}: No space left on device"


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

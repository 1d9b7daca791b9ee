"""From what a user names to files: every file once, under a name of its own, in one order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from meloformer.errors import InputError, RejectError
from meloformer.midi.sources import Source, find_sources, parse_source, read_bytes
from tests.midi.hexdump import midi_file

BOOK = """% a book of two tunes
X:1
T:Up
M:4/4
L:1/4
K:C
CDEF|G4|
X:2
T:Down
M:3/4
L:1/4
K:C
GFE|D3|
"""


def names_of(*arguments: str | Path) -> list[str]:
    return [source.name for source in find_sources(arguments)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four files with music, two without, one hidden."""
    (tmp_path / "b" / "deep").mkdir(parents=True)
    for name in ("z.mid", "a.MIDI", "b/x.kar", "b/deep/z.mid", "notes.txt", "b/song.mp3", ".hidden.mid"):
        (tmp_path / name).write_bytes(midi_file("00 90 3c 40  60 80 3c 00  # one note"))
    return tmp_path


def test_names_are_paths_below_the_folder_unique_and_sorted(folder: Path) -> None:
    sources = find_sources([folder])
    assert [source.name for source in sources] == ["a.MIDI", "b/deep/z.mid", "b/x.kar", "z.mid"]
    assert all(source.path == folder / source.name for source in sources)


def test_with_several_arguments_names_stay_unique(folder: Path) -> None:
    arguments = [folder / "b", folder / "b" / "deep", folder / "z.mid"]
    names = [source.name for source in find_sources(arguments)]
    assert names == sorted(set(names))
    assert len(names) == 3  # the file in the inner folder is reached twice, under one name


def test_a_folder_named_twice_counts_once(folder: Path) -> None:
    names = [source.name for source in find_sources([folder, folder])]
    assert names == sorted(set(names))
    assert len(names) == 4


def test_pieces_of_several_arguments_begin_with_the_last_part_of_what_was_named(folder: Path) -> None:
    assert names_of(folder / "b", folder / "z.mid") == ["b/deep/z.mid", "b/x.kar", "z.mid"]


def test_folders_of_one_name_are_told_apart_by_their_paths(folder: Path) -> None:
    other = folder / "other" / "b"
    other.mkdir(parents=True)
    (other / "x.kar").write_bytes(b"")
    names = names_of(folder / "b", other)
    assert len(names) == len(set(names)) == 3


def test_every_tune_of_a_book_is_a_piece(tmp_path: Path) -> None:
    book = tmp_path / "book.abc"
    book.write_text(BOOK)
    sources = find_sources([tmp_path])
    assert [source.name for source in sources] == ["book.abc#1", "book.abc#2"]
    scores = [parse_source(source, read_bytes(source, max_bytes=10_000)) for source in sources]
    assert [score.pitch.tolist() for score in scores] == [[60, 62, 64, 65, 67], [67, 65, 64, 62]]
    assert [score.meter_numerator.tolist() for score in scores] == [[4], [3]]
    assert names_of(f"{book}#2") == ["book.abc#2"]
    with pytest.raises(InputError):
        find_sources([f"{book}#3"])


def test_the_tunes_of_a_long_book_sort_by_number(tmp_path: Path) -> None:
    (tmp_path / "book.abc").write_text("".join(f"X:{number}\nK:C\nC|\n" for number in range(12)))
    names = names_of(tmp_path)
    assert (names[1], names[-1], len(names)) == ("book.abc#02", "book.abc#12", 12)


def test_a_book_that_lost_a_tune_since_is_a_reject(tmp_path: Path) -> None:
    (tmp_path / "book.abc").write_text(BOOK)
    with pytest.raises(RejectError, match="2 tunes"):
        read_bytes(Source("book.abc#7", str(tmp_path / "book.abc")), max_bytes=10_000)


def test_a_link_that_leads_back_is_not_followed_for_ever(folder: Path) -> None:
    (folder / "b" / "deep" / "up").symlink_to(folder)
    (folder / "b" / "here").symlink_to(folder / "b")
    assert len(find_sources([folder])) == 4


def test_two_links_that_lead_to_each_other_end(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.mid").write_bytes(b"")
        (tmp_path / name / "other").symlink_to(tmp_path / other)
    names = [source.name for source in find_sources([tmp_path])]
    assert names == ["a/other/x.mid", "a/x.mid", "b/other/x.mid", "b/x.mid"]


def test_a_link_to_another_folder_is_followed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "link").symlink_to(folder)
    assert len(find_sources([elsewhere])) == 4


@pytest.mark.parametrize("name", ["nowhere", "nowhere.mid"])
def test_a_missing_path_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"no file or folder .*{name}"):
        find_sources([tmp_path / name])


def test_a_folder_without_music_is_named_with_what_was_looked_for(tmp_path: Path, folder: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match=r"no music in .*empty .*\.mid"):
        find_sources([empty])
    with pytest.raises(InputError, match="empty"):
        find_sources([folder, empty])
    (empty / "cover.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="empty"):
        find_sources([empty])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(folder: Path) -> None:
    (folder / "b").chmod(0)
    try:
        with pytest.raises(InputError, match="cannot read the folder"):
            find_sources([folder])
    finally:
        (folder / "b").chmod(0o700)


def test_a_file_past_the_limit_is_too_large_and_one_that_vanished_is_unreadable(folder: Path) -> None:
    source = Source("z.mid", str(folder / "z.mid"))
    size = source.path.stat().st_size
    assert len(read_bytes(source, max_bytes=size)) == size
    with pytest.raises(RejectError, match="too-large"):
        read_bytes(source, max_bytes=size - 1)
    source.path.unlink()
    with pytest.raises(RejectError, match="unreadable"):
        read_bytes(source, max_bytes=size)


def test_a_folder_of_the_corpus_and_one_of_its_works_can_be_named() -> None:
    works = find_sources(["corpus:bach"])
    names = [work.name for work in works]
    assert len(names) > 400
    assert names == sorted(set(names))
    assert all(work.path.is_file() for work in works)
    (one,) = find_sources(["corpus:bach/bwv66.6"])
    assert one in works


@pytest.mark.parametrize("name", ["corpus:nobody", "corpus:", "corpus:bach/bwv0", "corpus:../bach"])
def test_what_the_corpus_does_not_have_is_refused_with_what_it_has(name: str) -> None:
    with pytest.raises(InputError) as caught:
        find_sources([name])
    assert name.removeprefix("corpus:") in caught.value.message
    assert caught.value.hint is not None
    assert "corpus:bach" in caught.value.hint


def test_a_chorale_has_four_voices_and_a_pickup_bar() -> None:
    (source,) = find_sources(["corpus:bach/bwv66.6"])
    score = parse_source(source, source.path.read_bytes())
    assert score.num_tracks == 4
    assert set(score.program.tolist()) == {52}  # Choir Aahs
    meters = list(zip(score.meter_numerator.tolist(), score.meter_denominator.tolist(), strict=True))
    assert meters[:2] == [(1, 4), (4, 4)]
    assert score.meter_ticks[1] == score.ticks_per_quarter
    assert score.end_ticks == 36 * score.ticks_per_quarter
    quarters = score.duration_ticks.sum() / score.ticks_per_quarter
    assert quarters == 4 * 36

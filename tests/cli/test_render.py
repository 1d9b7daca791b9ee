"""``meloformer render``: any file that is read becomes a picture, and what else is wished for."""

from __future__ import annotations

from pathlib import Path

from meloformer.cli.render import names_of
from meloformer.midi.sources import Source
from tests.cli.conftest import Run, assert_one_line, result_of
from tests.render.soundfonts import write_sine_soundfont

ABC = "X:1\nT:A tune\nM:3/4\nL:1/4\nK:C\nCDE|FGA|\n"


def test_midi_and_abc_become_pictures_and_pages(meloformer: Run, songs: Path, tmp_path: Path) -> None:
    (tmp_path / "tune.abc").write_text(ABC)
    made = result_of(meloformer, "render", songs / "song00.mid", "tune.abc", "--out", "made", "--html")
    assert {path.name for path in (tmp_path / "made").iterdir()} == {
        "song00.png",
        "song00.html",
        "tune.png",
        "tune.html",
    }
    song, tune = made["pieces"]
    assert (song["file"], song["bars"], song["picture"]) == (
        "song00.mid",
        13,
        "made/song00.png",
    )  # the last notes ring on
    assert (tune["file"], tune["bars"], tune["notes"], tune["page"]) == ("tune.abc", 2, 6, "made/tune.html")
    assert (tmp_path / song["picture"]).read_bytes()[:4] == b"\x89PNG"
    assert "<h1>tune</h1>" in (tmp_path / tune["page"]).read_text()


def test_a_folder_keeps_its_folders_and_passes_over_what_cannot_be_read(
    meloformer: Run, songs: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine" / "old").mkdir(parents=True)
    (tmp_path / "mine" / "old" / "song.mid").write_bytes((songs / "song01.mid").read_bytes())
    (tmp_path / "mine" / "broken.mid").write_bytes(b"MThd\0\0")
    done = meloformer("render", "mine")
    assert done.returncode == 0
    assert "passed over broken.mid" in done.stderr
    assert [path.name for path in (tmp_path / "rendered" / "old").iterdir()] == ["song.png"]
    assert_one_line(meloformer("render", "mine/broken.mid"), "broken.mid")
    (tmp_path / "other.mid").write_bytes(b"MThd\0\0")
    done = meloformer("render", "mine/broken.mid", "other.mid")
    assert done.returncode == 1
    assert "none of 2 files could be read" in done.stderr


def test_sound_needs_a_soundfont_and_says_so_before_the_work(meloformer: Run, songs: Path, tmp_path: Path) -> None:
    for command in (("render", songs / "song00.mid"), ("generate", "--checkpoint", "none")):
        assert_one_line(meloformer(*command, "--audio", "--soundfont", "gone.sf2"), "gone.sf2", "MELOFORMER_SOUNDFONT")
    assert list(tmp_path.iterdir()) == []
    font = write_sine_soundfont(tmp_path / "sine.sf2")
    (made,) = result_of(meloformer, "render", songs / "song00.mid", "--audio", "--soundfont", font)["pieces"]
    assert (tmp_path / made["sound"]).read_bytes()[8:12] == b"WAVE"


def test_pieces_of_one_name_get_names_of_their_own() -> None:
    sources = [Source(name, name) for name in ("a.mid", "a.abc", "b/a.mid", "op.1.mid", "book.abc#03", "../c.mid")]
    assert names_of(sources) == ["a.mid", "a.abc", "b/a", "op.1", "book-03", "c"]


def test_generate_and_render_make_the_same_things(meloformer: Run, untrained: Path, tmp_path: Path) -> None:
    short = ("--bars", "2", "--set", "generation.max_notes_per_bar=8", "--checkpoint", untrained)
    (piece,) = result_of(meloformer, "generate", *short, "--html")["pieces"]
    assert Path(piece["picture"]) == Path(piece["file"]).with_suffix(".png")
    (again,) = result_of(meloformer, "render", piece["file"], "--html")["pieces"]
    assert (tmp_path / again["page"]).read_text() == (tmp_path / piece["page"]).read_text()

"""Bad input: one line that says what, where and what next; exit code 1; nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
import typer

from meloformer.cli import console
from meloformer.errors import InputError
from tests.cli.conftest import Run, assert_one_line


@pytest.fixture
def shards(meloformer: Run, songs: Path, tmp_path: Path) -> Path:
    assert meloformer("pack", songs, "--out", "shards", "--set", "pack.val_share=0.2").returncode == 0
    return tmp_path / "shards"


def test_a_missing_file_is_named(meloformer: Run, tmp_path: Path) -> None:
    for command in ("filter", "tokenize", "build-vocab", "pack", "midi2txt", "txt2midi"):
        assert_one_line(meloformer(command, "nowhere.mid"), "nowhere.mid")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_and_one_without_music_are_named(meloformer: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "readme.txt").write_text("no music")
    for folder in ("empty", "words"):
        assert_one_line(meloformer("pack", folder), folder, ".mid")
    assert not (tmp_path / "shards").exists()


def test_a_broken_file_named_alone_is_an_error(meloformer: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.mid").write_bytes(b"MThd\x00\x00")
    for command in ("midi2txt", "tokenize"):
        assert_one_line(meloformer(command, "broken.mid"), "broken.mid")


def test_what_is_no_music_is_named_with_its_path_and_in_plain_words(meloformer: Run, tmp_path: Path) -> None:
    (tmp_path / "songs").mkdir()
    (tmp_path / "songs" / "letter.mid").write_text("Dear friend, how are you?")
    (tmp_path / "songs" / "noise.mid").write_bytes(bytes(range(1, 60)))
    for command in ("render", "midi2txt"):
        assert_one_line(meloformer(command, "songs/letter.mid"), "songs/letter.mid: the file is plain text, not MIDI")
        said = "songs/noise.mid: the file is no MIDI file: it begins with the bytes 01 02 03"
        assert_one_line(meloformer(command, "songs/noise.mid"), said)


def test_midi_is_not_printed(meloformer: Run, tmp_path: Path) -> None:
    (tmp_path / "song.txt").write_text("BOS")
    for arguments in (("song.txt", "-"), ("-",)):
        assert_one_line(meloformer("txt2midi", *arguments), "MIDI is not printed; name the file")
    assert [path.name for path in tmp_path.iterdir()] == ["song.txt"]


def test_a_folder_that_is_no_run_is_told_apart_from_one_without_a_checkpoint(
    meloformer: Run, shards: Path, tmp_path: Path
) -> None:
    said = "shards is not a run of `meloformer train`; name a run such as runs/NAME"
    assert_one_line(meloformer("generate", "--checkpoint", "shards"), said)
    assert_one_line(meloformer("train", shards, "--init", "shards", "--out", "run"), said)
    assert not (tmp_path / "run").exists()


def test_a_foreign_output_folder_is_left_alone(meloformer: Run, songs: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert_one_line(meloformer("pack", songs, "--out", "mine"), "mine", "--out")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


def test_an_unwritable_path_is_named(meloformer: Run, songs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_one_line(meloformer("pack", songs, "--out", "file/shards"), "file/shards")
    assert_one_line(meloformer("midi2txt", songs / "song00.mid", "file/song.txt"), "file/song.txt")
    assert_one_line(meloformer("build-vocab", songs, "--out", "file/vocab.json"), "file/vocab.json")


def test_shards_that_are_missing_or_foreign_are_named(meloformer: Run, tmp_path: Path) -> None:
    assert_one_line(meloformer("train", "nowhere"), "nowhere", "meloformer pack")
    (tmp_path / "other").mkdir()
    assert_one_line(meloformer("train", "other"), "other", "meloformer pack")
    assert not (tmp_path / "runs").exists()


def test_a_truncated_shard_is_named(meloformer: Run, shards: Path, tmp_path: Path) -> None:
    shard = shards / "train-00000.hid.zst"
    shard.write_bytes(shard.read_bytes()[:-7])
    assert_one_line(meloformer("train", "shards", "--size", "tiny", "--steps", "1"), "train-00000.hid.zst")
    assert not (tmp_path / "runs").exists()


def test_a_wrong_vocabulary_is_refused_with_both_hashes(
    meloformer: Run, songs: Path, shards: Path, tmp_path: Path
) -> None:
    assert meloformer("build-vocab", songs, "--out", "small.json", "--prune").returncode == 0
    small = json.loads((tmp_path / "small.json").read_text())
    own = json.loads((shards / "vocab.json").read_text())
    (shards / "vocab.json").write_text((tmp_path / "small.json").read_text())
    assert_one_line(meloformer("train", "shards"), small["sha256"], own["sha256"], "meloformer pack")


def test_a_damaged_vocabulary_is_named(meloformer: Run, songs: Path, tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text("{}")
    assert_one_line(meloformer("pack", songs, "--vocab", "vocab.json"), "vocab.json", "build-vocab")


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("filter.no_such=1", "filter.no_such"),
        ("filter.min_notes=-1", "filter.min_notes"),
        ("pack.level=[type=int_parsing]", "pack.level"),
        ("nonsense", "nonsense"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(setting: str, named: str, meloformer: Run, songs: Path) -> None:
    assert_one_line(meloformer("pack", songs, "--set", setting), named)


def test_a_value_out_of_range_behind_an_option_is_named(meloformer: Run, tmp_path: Path) -> None:
    assert_one_line(meloformer("generate", "--bars", "0"), "generation.bars", "0")
    assert_one_line(meloformer("bench", "--size", "tiny,gigantic"), "model.size", "gigantic")
    assert list(tmp_path.iterdir()) == []


def test_a_settings_file_that_is_no_toml_is_named(meloformer: Run, songs: Path, tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text("= nothing")
    assert_one_line(meloformer("pack", songs, "--config", "my.toml"), "my.toml")


@pytest.mark.usefixtures("shards")
def test_no_run_and_a_damaged_checkpoint_are_named(meloformer: Run, tmp_path: Path) -> None:
    assert_one_line(meloformer("generate", "--checkpoint", "nowhere"), "nowhere")
    trained = meloformer("train", "shards", "--size", "tiny", "--seq-len", "128", "--steps", "1", "--out", "run")
    assert trained.returncode == 0, trained.stderr
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    assert_one_line(meloformer("generate", "--checkpoint", "run"), "run")
    state = json.loads((checkpoint / "state.json").read_text())
    (checkpoint / "state.json").write_text(json.dumps(state | {"version": 99}))
    assert_one_line(meloformer("generate", "--checkpoint", checkpoint), str(checkpoint.name))
    assert not (tmp_path / "generated").exists()


@pytest.mark.parametrize(
    ("option", "wish", "named"),
    [
        ("--instruments", "basoon", "did you mean bassoon"),
        ("--chords", "C:major", "hdim7"),
        ("--max-polyphony", "0", "max_polyphony"),
        ("--pitch-range", "9-3", "9-3"),
        ("--replace", "bass", "--primer"),
    ],
)
def test_a_wish_that_cannot_be_met_is_named(
    option: str, wish: str, named: str, meloformer: Run, untrained: Path, tmp_path: Path
) -> None:
    assert_one_line(meloformer("generate", "--checkpoint", untrained, option, wish), wish, named)
    assert not (tmp_path / "generated").exists()


def test_an_earlier_run_is_not_overwritten(meloformer: Run, shards: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text("{}")
    assert_one_line(meloformer("train", shards, "--out", "run"), "run", "--resume")


def test_a_wrong_line_of_text_is_named_with_its_number(meloformer: Run, tmp_path: Path) -> None:
    (tmp_path / "song.txt").write_text("hid 1 grid=12\nbar 1 C:maj 4/4 120\n  #0 T0 P60 D12 V99\n")
    assert_one_line(meloformer("txt2midi", "song.txt"), "line 3", "V99")
    assert not (tmp_path / "song.mid").exists()


def test_a_bug_says_so_and_shows_where_only_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise RuntimeError("[/x] went wrong\nin two lines")

    monkeypatch.delenv("MELOFORMER_DEBUG", raising=False)
    with pytest.raises(typer.Exit) as end:
        console.reports_errors(broken)()
    assert end.value.exit_code == 70
    printed = capsys.readouterr().err
    assert "bug" in printed
    assert "[/x] went wrong" in printed
    assert len(printed.splitlines()) == 1


def test_markup_in_a_message_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> None:
        raise InputError("there is no [bold]song[/].mid", "look [type=int_parsing]")

    with pytest.raises(typer.Exit) as end:
        console.reports_errors(refuse)()
    assert end.value.exit_code == 1
    assert capsys.readouterr().err == "error: there is no [bold]song[/].mid; look [type=int_parsing]\n"


def test_a_full_disk_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fill() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "shards/train-00000.hid.zst")

    with pytest.raises(typer.Exit) as end:
        console.reports_errors(fill)()
    assert end.value.exit_code == 1
    printed = capsys.readouterr().err
    assert "No space left on device (shards/train-00000.hid.zst)" in printed
    assert len(printed.splitlines()) == 1


def test_a_demo_leaves_what_no_demo_made(meloformer: Run, tmp_path: Path) -> None:
    (tmp_path / "proj" / "run").mkdir(parents=True)
    (tmp_path / "proj" / "run" / "thesis.txt").write_text("years of work")
    assert_one_line(meloformer("demo", "--out", "proj"), "thesis.txt", "--out")
    assert (tmp_path / "proj" / "run" / "thesis.txt").read_text() == "years of work"


def test_a_damaged_vocabulary_is_named_with_the_next_command(meloformer: Run, songs: Path, tmp_path: Path) -> None:
    assert meloformer("build-vocab", songs).returncode == 0
    record = json.loads((tmp_path / "vocab.json").read_text())
    for counts in (5, ["a"], [None] * len(record["tokens"])):
        (tmp_path / "vocab.json").write_text(json.dumps({**record, "counts": counts}))
        assert_one_line(meloformer("pack", songs, "--vocab", "vocab.json"), "vocab.json", "build-vocab")


def test_infinity_is_no_setting(meloformer: Run, shards: Path) -> None:
    assert_one_line(meloformer("train", shards, "--set", "training.learning_rate=inf"), "training.learning_rate")
    assert_one_line(meloformer("train", shards, "--device", "meta"), "meta", "devices are auto, cpu, cuda")


def test_a_folder_of_which_nothing_is_kept_is_an_error_that_names_the_reasons(meloformer: Run, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/song.mid").write_text("no music")
    for command in ("pack", "filter"):
        done = meloformer(command, "bad", "--out", command, "--json")
        assert json.loads(done.stdout)["kept"] == 0
        assert_one_line(done._replace(stdout=""), "none of 1 files was kept", "says why, file by file")


def test_a_dry_run_refuses_the_folder_that_the_run_would_refuse(meloformer: Run, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/notes.txt").write_text("mine")
    assert_one_line(meloformer("train", "shards", "--dry-run", "--out", "run"), "run exists already")
    assert_one_line(meloformer("train", "shards", "--dry-run", "--resume", "--out", "run"), "no run to resume")


def test_an_interrupt_that_a_package_swallows_while_it_loads_is_no_bug() -> None:
    @console.reports_errors
    def command() -> None:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise AttributeError("half loaded")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(typer.Exit) as end:
        command()
    assert end.value.exit_code == console.INTERRUPTED
    assert signal.getsignal(signal.SIGINT) is before

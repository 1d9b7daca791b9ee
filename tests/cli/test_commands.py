"""Every command on small music: what it prints, and what it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import mido
import pytest
import torch

from meloformer.midi.read import read_midi
from meloformer.midi.write import write_midi
from meloformer.model.meloformer import MeloFormer
from meloformer.model.weights import save_weights
from meloformer.settings import ModelSettings
from meloformer.tokens.encode import encode
from meloformer.tokens.grammar import grammar_errors
from meloformer.tokens.quantise import quantise
from meloformer.tokens.vocabulary import TokenType, Vocabulary
from tests.cli.conftest import Run, result_of


def test_a_folder_of_songs_becomes_a_run_and_a_run_becomes_music(meloformer: Run, songs: Path, tmp_path: Path) -> None:
    packed = result_of(meloformer, "pack", songs, "--set", "pack.val_share=0.2")
    assert packed["inputs"] == 12 == packed["kept"] + packed["rejected"]
    assert sum(split["num_documents"] for split in packed["splits"].values()) == packed["kept"]

    size = ("--size", "tiny", "--seq-len", "256")
    plan = result_of(meloformer, "train", *size, "--steps", "3", "--dry-run")
    assert plan["parameters"]["total"] > 1_000_000
    assert not (tmp_path / "runs").exists()

    trained = result_of(meloformer, "train", *size, "--steps", "3")
    run = tmp_path / trained["run"]
    assert {path.name for path in run.iterdir()} >= {"settings.toml", "vocab.json", "metrics.jsonl", "loss.png"}
    assert trained["validation"]["nats_per_note"] > 0

    made = result_of(meloformer, "generate", "--bars", "5", "--num", "2", "--seed", "4", "--meter", "3/4")
    assert len(made["pieces"]) == 2
    for piece in made["pieces"]:
        path = tmp_path / piece["file"]
        mido.MidiFile(path)
        score = quantise(read_midi(path))
        assert score.chords is not None
        assert len(score.chords) == 5 == piece["bars"]
        assert not grammar_errors(encode(score), Vocabulary.default())

    first = ("--primer", tmp_path / made["pieces"][0]["file"])
    wishes = ("--chords", "C Am", "--instruments", "piano", "--max-polyphony", "2", "--density", "3")
    longer = result_of(meloformer, "generate", *first, "--bars", "8", *wishes, "--out", "longer")
    assert longer["pieces"][0]["bars"] == 8
    fuller = result_of(meloformer, "generate", *first, "--add", "choir", "--out", "fuller")
    assert fuller["pieces"][0]["bars"] == 5
    assert {52, 53, 54} & set(read_midi(tmp_path / fuller["pieces"][0]["file"]).program.tolist())

    resumed = meloformer("train", "--out", trained["run"], "--resume", "--steps", "4")
    assert resumed.returncode == 0, resumed.stderr
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines() if "loss" in line]
    assert max(steps) == 4


def test_a_piece_without_a_note_is_remarked(meloformer: Run, tmp_path: Path) -> None:
    model = MeloFormer(ModelSettings.of_size("tiny", num_layers=1, dim=16, ffn_dim=16), Vocabulary.default())
    types = torch.from_numpy(model.vocabulary.types)
    with torch.no_grad():  # what the model says next is a bar line, after whatever
        model.token_embedding.weight[:, 0] = 5
        model.token_embedding.weight[torch.isin(types, torch.tensor([TokenType.CHORD, TokenType.EOS])), 0] = 50
    save_weights(model, tmp_path / "silent.safetensors")
    done = meloformer("generate", "--checkpoint", "silent.safetensors", "--bars", "3", "--json")
    assert json.loads(done.stdout)["pieces"][0]["empty_bars"] == 3
    assert "generated/seed0-1.mid: there is not a single note; try another --seed" in done.stderr
    one_note = ("--bars", "3", "--instruments", "piano", "--density", "1", "--max-polyphony", "1", "--temperature", "0")
    done = meloformer("generate", "--checkpoint", "silent.safetensors", *one_note)
    assert "generated/seed0-1-take2.mid: 2 of its 3 bars are empty" in done.stderr  # no earlier piece is replaced
    assert meloformer("generate", "--checkpoint", "silent.safetensors", *one_note, "--quiet").stderr == ""


def test_filter_and_tokenize_hand_over_to_pack(meloformer: Run, songs: Path, tmp_path: Path) -> None:
    kept = result_of(meloformer, "filter", songs, "--out", "kept")
    lines = (tmp_path / "kept" / "manifest.jsonl").read_text().splitlines()
    assert len(lines) == 12
    assert sum(json.loads(line)["keep"] for line in lines) == kept["kept"]
    tokens = result_of(meloformer, "tokenize", songs, "--out", "tokens")
    assert tokens["kept"] == 12
    by_way_of = [result_of(meloformer, "pack", source, "--out", f"from-{source}") for source in ("kept", "tokens")]
    straight = result_of(meloformer, "pack", songs, "--out", "straight")
    assert {record["num_tokens"] for record in (*by_way_of, straight)} == {straight["num_tokens"]}


def test_info_says_what_shards_hold_and_draws_it(meloformer: Run, songs: Path, tmp_path: Path) -> None:
    packed = result_of(meloformer, "pack", songs)
    told = result_of(meloformer, "info", "shards", "--plot", "shards.png")
    assert [told[name] for name in ("num_documents", "num_tokens", "num_notes")] == [
        packed[name] for name in ("num_documents", "num_tokens", "num_notes")
    ]
    assert told["splits"] == packed["splits"]
    assert (tmp_path / told["plot"]).read_bytes()[:4] == b"\x89PNG"
    shown = meloformer("info", "--quiet")
    assert (shown.returncode, shown.stderr) == (0, "")
    for text in (
        "Acoustic Grand Piano",
        "4/4",
        "compression",
        "all inputs",
        "filter.min_notes",
        f"{told['num_tokens']:,}",
    ):
        assert text in shown.stdout
    damaged = tmp_path / "shards" / "train-00000.hid.zst"
    damaged.write_bytes(b"\0" * 20 + damaged.read_bytes()[20:])
    done = meloformer("info")
    assert done.returncode == 1
    assert "train-00000.hid.zst, document 0" in done.stderr


def test_a_pruned_vocabulary_serves_pack(meloformer: Run, songs: Path, tmp_path: Path) -> None:
    built = result_of(meloformer, "build-vocab", songs, "--out", "vocab.json", "--prune")
    small = Vocabulary.load(tmp_path / "vocab.json")
    assert len(small) == built["tokens"] < len(Vocabulary.default())
    packed = result_of(meloformer, "pack", songs, "--vocab", "vocab.json")
    assert packed["kept"] + packed["rejected"] == 12
    assert Vocabulary.load(tmp_path / "shards" / "vocab.json").sha256 == small.sha256


def test_text_and_music_are_two_forms_of_one_piece(meloformer: Run, songs: Path, tmp_path: Path) -> None:
    song = songs / "song00.mid"
    assert meloformer("midi2txt", song, "song.txt").returncode == 0
    assert meloformer("txt2midi", "song.txt", "back.mid").returncode == 0
    assert quantise(read_midi(tmp_path / "back.mid")) == quantise(read_midi(song))
    for printed in (meloformer("midi2txt", song), meloformer("midi2txt", song, "-")):
        assert printed.stdout == (tmp_path / "song.txt").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back.mid", "song.txt"]


def test_a_damaged_file_is_said_to_be_damaged(meloformer: Run, songs: Path, tmp_path: Path) -> None:
    data = (songs / "song00.mid").read_bytes()
    (tmp_path / "cut.mid").write_bytes(data[: len(data) - 200])
    for command in ("midi2txt", "tokenize", "render"):
        done = meloformer(command, "cut.mid")
        assert done.returncode == 0
        assert "cut.mid is damaged: " in done.stderr
        assert meloformer(command, "cut.mid", "--quiet").stderr == ""
    assert result_of(meloformer, "render", "cut.mid")["pieces"][0]["recovered"]


def test_what_is_no_text_is_said_to_be_none(meloformer: Run, songs: Path) -> None:
    done = meloformer("txt2midi", songs / "song00.mid", "new.mid")
    assert done.returncode == 1
    assert "song00.mid is no text; HID text is what midi2txt writes" in done.stderr


def test_tokenize_prints_the_tokens_of_one_file(meloformer: Run, songs: Path) -> None:
    printed = meloformer("tokenize", songs / "song00.mid").stdout.split()
    ids = encode(read_midi(songs / "song00.mid"))
    assert printed == [Vocabulary.default().names[number] for number in ids]


def test_progress_is_plain_lines_where_stderr_is_no_terminal(meloformer: Run, songs: Path) -> None:
    done = meloformer("pack", songs)
    assert "pack 12/12" in done.stderr
    assert "\x1b" not in done.stderr + done.stdout


@pytest.mark.parametrize(("share", "is_told"), [("1e-9", True), ("0.5", False), ("0", False)])
def test_pack_tells_when_nothing_is_held_out(meloformer: Run, songs: Path, share: str, is_told: bool) -> None:
    done = meloformer("pack", songs, "--set", f"pack.val_share={share}", "--set", "pack.test_share=0")
    assert done.returncode == 0
    assert ("no validation loss" in done.stderr) == is_told


@pytest.mark.parametrize("command", ["pack", "filter"])
def test_files_are_left_out_by_name(meloformer: Run, songs: Path, command: str) -> None:
    names = sorted(path.name for path in songs.iterdir())
    left_out = ("--exclude", names[0], "--exclude", f"{Path(names[1]).stem}.*")
    done = result_of(meloformer, command, songs, *left_out)
    assert done["rejects"]["excluded"] == 2
    assert done["inputs"] == len(names)
    told = meloformer(command, songs, *left_out, "--exclude", "none-such").stderr
    assert "no name fits 'none-such'" in told
    assert names[0] not in told


def test_tables_fit_into_eighty_columns(meloformer: Run, songs: Path) -> None:
    done = meloformer("pack", songs)
    assert done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 80


def test_every_real_file_is_accounted_for(meloformer: Run, malformed_files: list[Path], tmp_path: Path) -> None:
    folder = malformed_files[0].parents[1]
    packed = result_of(meloformer, "pack", folder)
    assert packed["inputs"] == packed["kept"] + packed["rejected"]
    assert sum(packed["rejects"].values()) == packed["rejected"] > 0
    assert len((tmp_path / "shards" / "rejects.jsonl").read_text().splitlines()) == packed["rejected"]


def test_music_that_was_read_can_be_written_again(songs: Path, tmp_path: Path) -> None:
    score = quantise(read_midi(songs / "song03.mid"))
    write_midi(score, tmp_path / "again.mid")
    assert quantise(read_midi(tmp_path / "again.mid")) == score

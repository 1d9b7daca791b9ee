"""Odd and broken files: each is read, recovered or rejected with a reason, and nothing else ever happens."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meloformer.errors import RejectError
from meloformer.midi.read import parse_midi, read_midi
from meloformer.midi.score import DRUMS
from tests.midi.hexdump import from_hex, midi_file, notes_of

ONE_NOTE = """
    00 90 3c 40  # note on: channel 1, C4, velocity 64
    60 80 3c 00  # 96 ticks later: off
"""
HEADER = "4d 54 68 64  00 00 00 06  00 01  00 01  00 60"
"""'MThd', six bytes, format 1, one track, 96 ticks per quarter."""
TRACK = "4d 54 72 6b  00 00 00 00"
"""'MTrk', no bytes."""


def reason_of(data: bytes) -> str:
    with pytest.raises(RejectError) as caught:
        parse_midi(data)
    return caught.value.reason


# Plain reading: nothing is lost and nothing is guessed


def test_a_riff_wrapper_is_taken_off_whatever_its_sizes_say() -> None:
    inner = midi_file(ONE_NOTE)
    for wrong in (0, 1, 2**31):
        size = (len(inner) + wrong).to_bytes(4, "little")
        info = b"LIST" + (4).to_bytes(4, "little") + b"INFO"
        for before in (b"", info):
            wrapped = b"RIFF" + size + b"RMID" + before + b"data" + size + inner + b"LIST\x04\x00\x00\x00INFO"
            score = parse_midi(wrapped)
            assert score == parse_midi(inner)
            assert score.recovered is None


@pytest.mark.parametrize("before", [b"\x00" * 128, b"\x00\x04tune" + b"\x00" * 122, b"\xef\xbb\xbf", b"\x00\x0a"])
def test_what_stands_before_the_header_is_passed_over(before: bytes) -> None:
    score = parse_midi(before + midi_file(ONE_NOTE))
    assert notes_of(score) == [(0, 96, 60, 64, 0)]
    assert score.recovered is None


def test_a_longer_header_is_read_by_its_first_six_bytes() -> None:
    plain = midi_file(ONE_NOTE)
    longer = plain[:4] + (8).to_bytes(4, "big") + plain[8:14] + b"\x00\x00" + plain[14:]
    assert parse_midi(longer) == parse_midi(plain)


@pytest.mark.parametrize("length", [0, 5, 7, 22, 2**31])
def test_a_header_of_the_right_length_may_say_another(length: int) -> None:
    plain = midi_file(ONE_NOTE)
    score = parse_midi(plain[:4] + length.to_bytes(4, "big") + plain[8:])
    assert score == parse_midi(plain)
    assert score.recovered is None


# Rejects


@pytest.mark.parametrize(
    ("reason", "data"),
    [
        ("empty-file", b""),
        ("not-midi", b"<!DOCTYPE html><html><body>404</body></html>"),
        ("not-midi", b"X:1\nT:A tune\nK:C\nCDEF|\n"),
        ("not-midi", b"RIFF\x24\x00\x00\x00WAVEfmt "),
        ("not-midi", b"RIFF\x24\x00\x00\x00RMIDdata\x00\x00\x00\x00"),
        ("not-midi", b"PK\x03\x04" + midi_file(ONE_NOTE)),
        ("not-midi", bytes(range(128, 255))),
        ("truncated", from_hex(HEADER)[:9]),
        ("truncated", from_hex(HEADER)),
        ("truncated", from_hex(HEADER + "4d 54 72")),
        ("truncated", from_hex(HEADER + "4d 54 72 6b  00 00 00 ff  00 90 3c")),
        ("bad-header", from_hex(HEADER.replace("00 60", "00 00") + TRACK)),
        ("bad-header", from_hex(HEADER.replace("00 60", "f0 60") + TRACK)),
        ("bad-header", from_hex(HEADER.replace("00 60", "e7 00") + TRACK)),
        ("bad-header", from_hex(HEADER.replace("00 06", "00 02"))),
        ("bad-header", from_hex(HEADER.replace("00 06", "7f ff"))),
        ("bad-header", from_hex(HEADER.replace("00 01  00 01", "00 01  00 00"))),
        ("unreadable", from_hex(HEADER.replace("00 01  00 01", "00 03  00 01") + TRACK)),
        ("unreadable", from_hex(HEADER + TRACK.replace("4d", "6d"))),
    ],
)
def test_what_cannot_be_read_is_rejected_with_its_reason(reason: str, data: bytes) -> None:
    assert reason_of(data) == reason


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("an HTML page", b"\xef\xbb\xbf\n<!doctype HTML>"),
        ("a MusicXML score", b'<?xml version="1.0"?>\n<!DOCTYPE score-partwise PUBLIC "-//Recordare//DTD">'),
        ("an XML file", b'<?xml version="1.0"?>\n<plist/>'),
        ("a gzip archive", b"\x1f\x8b\x08\x00"),
        ("a ZIP archive", b"PK\x03\x04\x14\x00"),
        ("a PNG picture", b"\x89PNG\r\n\x1a\n"),
        ("a WAV recording", b"RIFF\x24\x08\x00\x00WAVEfmt "),
        ("an MP3 recording", b"ID3\x03\x00"),
        ("a PDF document", b"%PDF-1.4"),
        ("a tune in ABC notation", b"X:1\nK:C\n"),
        ("plain text", b"404: Not Found\n"),
        ("not with MThd", b"\x00\x01\x02"),
    ],
)
def test_the_message_names_what_a_file_is_that_is_no_midi(kind: str, data: bytes) -> None:
    with pytest.raises(RejectError, match=kind) as caught:
        parse_midi(data)
    assert caught.value.reason == "not-midi"


# Whatever the bytes


def test_every_malformed_file_is_read_or_rejected(malformed_files: list[Path]) -> None:
    outcomes = Counter()
    for path in malformed_files:
        try:
            score = read_midi(path, sustain="extend")
            outcomes["recovered" if score.recovered else "read"] += 1
        except RejectError as error:
            outcomes[error.reason] += 1
    assert outcomes == {
        "read": 83,
        "recovered": 16,
        "bad-header": 2,
        "unreadable": 1,
        "not-midi": 1,
        "empty-file": 1,
    }


def check(data: bytes) -> None:
    """The bytes make a score whose values are in range, or a reject."""
    try:
        score = parse_midi(data, sustain="extend")
    except RejectError as error:
        assert len(str(error)) < 400  # noqa: PT017
        return
    assert np.all((score.pitch >= 0) & (score.pitch < 128))
    assert np.all((score.velocity > 0) & (score.velocity < 128))
    assert np.all((score.onset_ticks >= 0) & (score.duration_ticks >= 0))
    assert np.all((score.program >= 0) & (score.program <= DRUMS))
    assert score.recovered is None or (score.num_notes and 0 < len(score.recovered) < 400)


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_reject(data: bytes) -> None:
    check(data)
    check(from_hex(HEADER) + data)
    check(from_hex(HEADER + TRACK) + data)


@settings(max_examples=150)
@given(data=st.data())
def test_no_mutation_of_a_real_file_raises_anything_but_a_reject(data: st.DataObject, dev_files: list[Path]) -> None:
    small = [path for path in dev_files if path.stat().st_size < 6_000]
    mutated = bytearray(data.draw(st.sampled_from(small)).read_bytes())
    for _ in range(data.draw(st.integers(1, 12))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del mutated[data.draw(st.integers(0, len(mutated))) :]
    check(bytes(mutated))

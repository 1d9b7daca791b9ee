"""The smallest SoundFont that sounds: one preset, whose one sample is a sine of A4."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

RATE = 48_000
PERIODS = 44
"""Of the looped sample: 44 periods of 440 Hz are 4,800 samples exactly."""


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _list(kind: bytes, *chunks: bytes) -> bytes:
    return _chunk(b"LIST", kind + b"".join(chunks))


def write_sine_soundfont(path: Path) -> Path:
    """Bank 0, program 0: a looped sine, A4 at key 69. Source: SoundFont Technical Specification 2.04, chapter 7."""
    length = RATE * PERIODS // 440
    sine = np.rint(20_000 * np.sin(2 * np.pi * PERIODS * np.arange(length) / length)).astype("<i2").tobytes()
    info = _list(
        b"INFO", _chunk(b"ifil", struct.pack("<HH", 2, 1)), _chunk(b"isng", b"EMU8000\0"), _chunk(b"INAM", b"sine")
    )
    samples = _list(b"sdta", _chunk(b"smpl", sine + bytes(92)))  # 46 samples of silence after each, as 6.1 asks
    name, end = b"sine".ljust(20, b"\0"), b"end".ljust(20, b"\0")
    instrument, sample_modes, sample_id = 41, 54, 53  # generators, 8.1.2
    hydra = (
        _chunk(b"phdr", struct.pack("<20s3H3I20s3H3I", name, 0, 0, 0, 0, 0, 0, end, 0, 0, 1, 0, 0, 0)),
        _chunk(b"pbag", struct.pack("<HHHH", 0, 0, 1, 0)),
        _chunk(b"pmod", bytes(10)),
        _chunk(b"pgen", struct.pack("<HHHH", instrument, 0, 0, 0)),
        _chunk(b"inst", struct.pack("<20sH", name, 0) + struct.pack("<20sH", end, 1)),
        _chunk(b"ibag", struct.pack("<HHHH", 0, 0, 2, 0)),
        _chunk(b"imod", bytes(10)),
        _chunk(b"igen", struct.pack("<HHHHHH", sample_modes, 1, sample_id, 0, 0, 0)),
        _chunk(
            b"shdr",
            struct.pack("<20sIIIIIBbHH", name, 0, length, 0, length, RATE, 69, 0, 0, 1)
            + struct.pack("<20sIIIIIBbHH", b"EOS".ljust(20, b"\0"), 0, 0, 0, 0, 0, 0, 0, 0, 0),
        ),
    )  # fmt: skip
    body = b"sfbk" + info + samples + _list(b"pdta", *hydra)
    path.write_bytes(_chunk(b"RIFF", body))
    return path

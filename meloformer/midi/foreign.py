"""What a file is that is called MIDI and is not: a name for the message."""

from __future__ import annotations

_FIRST_BYTES = (
    (b"PK\x03\x04", "a ZIP archive (compressed MusicXML is one)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x89PNG", "a PNG picture"),
    (b"GIF8", "a GIF picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"%PDF", "a PDF document"),
    (b"ID3", "an MP3 recording"),
    (b"\xff\xfb", "an MP3 recording"),
    (b"OggS", "an Ogg recording"),
    (b"fLaC", "a FLAC recording"),
    (b"RIFF", "a RIFF file without MIDI inside, such as a WAV recording"),
    (b"FORM", "an IFF file, such as an AIFF recording or an XMIDI song"),
    (b"MUS\x1a", "a song in the MUS format of Doom"),
    (b"X:", "a tune in ABC notation"),
)
_FIRST_TEXT = (
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<?xml", "an XML file"),
    (b"<", "a page of markup"),
    (b"{", "a JSON file"),
)
_TEXT_BYTES = frozenset(range(32, 127)) | frozenset(b"\t\n\r\f")


def kind_of(data: bytes) -> str | None:
    """What ``data`` is, by its first bytes, with its article; ``None`` where that is not known."""
    start = data[:512]
    for first, kind in _FIRST_BYTES:
        if start.startswith(first):
            return kind
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(b"<") and (b"score-partwise" in text or b"score-timewise" in text):
        return "a MusicXML score"
    for first, kind in _FIRST_TEXT:
        if text.startswith(first):
            return kind
    return "plain text" if start and _TEXT_BYTES.issuperset(start) else None

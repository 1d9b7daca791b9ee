"""Settings of what happens to music before it is learnt: filtering, tokenising, packing."""

from __future__ import annotations

import os
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from meloformer.settings.section import Positive, Section, Share


class FilterSettings(Section):
    """Which pieces are worth learning from. Every rule names its reason in ``rejects.jsonl``."""

    exclude: tuple[str, ...] = ()
    """Pieces of these names are ``excluded``: a pattern fits the name of a file, with folders before it or without, or
    that of a folder; ``*`` is any text, with ``/`` too, ``?`` any character: ``["*.krn", "bwv277*", "demos"]``."""
    max_file_bytes: Positive = 4_000_000
    """Larger files are rejected as ``too-large`` before they are read; the largest of 742 real files has 300 kB."""
    min_notes: Positive = 32
    """Fewer notes are ``too-few-notes``."""
    min_pitches: Positive = 4
    """Fewer different pitches, drums included, are ``too-few-pitches``."""
    min_bars: Positive = 4
    """Fewer bars are ``too-short``."""
    max_bars: Positive = 4096
    """More bars are ``too-long``."""
    max_repeated: Share = 0.8
    """Where one pitch of one instrument is a larger share of all notes, the piece is ``one-note-repeated``."""
    max_empty_bars: Share = 0.5
    """Where a larger share of the bars is silent, the piece is ``mostly-silence``."""
    max_tracks: Positive = 64
    """More tracks with notes are ``too-many-tracks``."""
    min_tempo_bpm: Annotated[float, Field(gt=0)] = 20
    """A mean tempo below it is ``absurd-tempo``."""
    max_tempo_bpm: Annotated[float, Field(gt=0)] = 400
    """A mean tempo above it is ``absurd-tempo``."""
    min_on_beat: Share = 0.25
    """How strongly onsets keep to a part of the beat, 0 (anywhere) to 1 (exactly); less is ``not-on-the-beat``."""
    keep_recovered: bool = True
    """Keep what could be read of damaged files; else they are ``recovered``, with what was mended."""
    keep_duplicates: bool = False
    """Keep pieces whose notes equal another's after quantisation, also transposed or re-tempoed; else ``duplicate``."""


class TokenSettings(Section):
    """From a score to tokens."""

    sustain: Literal["ignore", "extend"] = "ignore"
    """``extend`` lets the sustain pedal lengthen notes up to its release, or to the next note of that pitch."""
    chords: bool = True
    """Name the harmony of every bar; without it every CHORD token is ``N``."""


class PackSettings(Section):
    """From tokens to shards."""

    level: Annotated[int, Field(ge=1, le=22)] = 3
    """zstd level; 19 packs 20 % denser and takes many times longer."""
    shard_tokens: Positive = 8_000_000
    """A shard is closed when it holds this many tokens (16 MB of ids before compression)."""
    val_share: Share = 0.05
    """Share of the documents that go to validation, by content hash."""
    test_share: Share = 0.05
    """Share of the documents that go to the test split, by content hash."""
    workers: Positive | None = None
    """Processes that read and tokenise; by default one for every core. What is written is the same for any number."""
    scheduler: str | None = None
    """Address of a Dask scheduler, such as ``tcp://host:8786``, whose workers read instead; they must see the files
    under the same paths."""
    timeout_seconds: Annotated[float, Field(gt=0, le=86_400)] = 60
    """A file that takes longer is rejected as ``timeout``. MIDI takes milliseconds, a long score some 10 s."""
    worker_memory_mb: Annotated[int, Field(ge=200)] = 600
    """A file for which a process needs more is rejected as ``too-large``. Most need 70 MB, the largest MIDI files that
    ``filter.max_file_bytes`` lets through 250 MB, long scores through music21 400 MB."""

    @model_validator(mode="after")
    def _leaves_training_data(self) -> Self:
        if self.val_share + self.test_share >= 1:
            raise ValueError("val_share and test_share leave nothing to train on")
        return self

    @property
    def num_workers(self) -> int:
        """``workers``, or the number of cores that this process may use."""
        if self.workers is not None:
            return self.workers
        has_affinity = hasattr(os, "sched_getaffinity")
        return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1

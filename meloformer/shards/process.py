"""One file -> one piece, or one reject with a reason."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from meloformer.errors import RejectError, VocabularyError
from meloformer.midi.quality import PieceStatistics, content_key, statistics
from meloformer.midi.sources import Source, parse_source, read_bytes
from meloformer.settings import Settings
from meloformer.tokens.encode import encode_quantised
from meloformer.tokens.quantise import quantise
from meloformer.tokens.vocabulary import Vocabulary

NO_MEMORY = "it needs more memory than there is"


@dataclass(frozen=True)
class Piece:
    """A file that was read and written in tokens."""

    name: str
    sha256: str
    """Of the file's bytes."""
    content_key: str
    """Equal for copies that differ in key, tempo or velocity only."""
    statistics: PieceStatistics
    ids: np.ndarray
    """(T,) uint16."""
    recovered: str | None = None
    """What was mended, where the file was damaged and this is what could be read of it."""

    def rejected(self, reason: str, message: str) -> Reject:
        """This piece as one that was not kept; what is known of it stays known."""
        return Reject(self.name, reason, message, self.sha256, self.content_key, self.statistics)


@dataclass(frozen=True)
class Reject:
    """A file that was not kept."""

    name: str
    reason: str
    """In kebab-case; rejects are counted by it."""
    message: str
    sha256: str | None = None
    """``None`` where the file could not be read."""
    content_key: str | None = None
    statistics: PieceStatistics | None = None
    """``None`` where the file could not be written in tokens."""


Result = Piece | Reject


@dataclass(frozen=True)
class Work:
    """What is to be done with every file."""

    settings: Settings
    vocabulary: Vocabulary


def process_source(source: Source, work: Work) -> Result:
    """Read, quantise and encode one file. Whatever goes wrong with it is a reject."""
    settings = work.settings
    sha256 = None
    try:
        data = read_bytes(source, max_bytes=settings.filter.max_file_bytes)
        sha256 = hashlib.sha256(data).hexdigest()
        score = parse_source(source, data, sustain=settings.tokens.sustain)
        quantised = quantise(score, chords=settings.tokens.chords)
        if not quantised.num_notes:
            raise RejectError("no-notes", "the file has no notes")
        ids = encode_quantised(quantised, work.vocabulary)
        return Piece(source.name, sha256, content_key(quantised), statistics(score, quantised), ids, score.recovered)
    except RejectError as error:
        reason, message = error.reason, error.message
    except VocabularyError as error:
        reason, message = "not-in-vocabulary", error.message
    except MemoryError:
        reason, message = "too-large", NO_MEMORY
    except Exception as error:  # noqa: BLE001 (one strange file must never end a run over a million)
        reason, message = "crashed", f"{type(error).__name__}: {error}"[:200]
    return Reject(source.name, reason, message, sha256)

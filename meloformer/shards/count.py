"""How often every token occurs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from meloformer.settings import Settings
from meloformer.shards.pipeline import Progress, Report, open_pieces
from meloformer.shards.process import Piece
from meloformer.tokens.vocabulary import Vocabulary


def count_tokens(
    arguments: Sequence[str | Path], settings: Settings, *, progress: Progress | None = None
) -> tuple[Vocabulary, Report]:
    """Count the tokens of every piece that can be written, unjudged.

    Args:
        arguments: As for :func:`~meloformer.shards.pipeline.pack_pieces`.
        settings: Its sections ``tokens`` and ``pack.workers`` count.
        progress: Told of every file done.
    Returns:
        The vocabulary with counts, and what became of every input.
    """
    pieces, total, vocabulary = open_pieces(arguments, settings, None)
    counts = np.zeros(len(vocabulary), dtype=np.int64)
    report = Report()
    for done, piece in enumerate(pieces, start=1):
        report.add(piece)
        if isinstance(piece, Piece):
            counts += np.bincount(piece.ids, minlength=len(vocabulary))
        if progress is not None:
            progress(done, total)
    return Vocabulary(vocabulary.names, counts.tolist()), report

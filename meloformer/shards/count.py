"""How often every token occurs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from meloformer.settings import Settings
from meloformer.shards.inputs import open_pieces
from meloformer.shards.process import Piece
from meloformer.shards.report import Progress, Report
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
    Raises:
        InputError, ShardError: As for :func:`~meloformer.shards.pipeline.pack_pieces`.
    """
    pieces = open_pieces(arguments, settings)
    counts = np.zeros(len(pieces.vocabulary), dtype=np.int64)
    report = Report()
    with closing(pieces.read(0)) as results:
        for result in results:
            report.count(result)
            if isinstance(result, Piece):
                counts += np.bincount(result.ids, minlength=len(pieces.vocabulary))
            if progress is not None:
                progress(report.inputs, pieces.total)
    return Vocabulary(pieces.vocabulary.names, counts.tolist()), report

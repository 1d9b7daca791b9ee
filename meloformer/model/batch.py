"""Rows of ids as tensors, with what every token knows beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from meloformer.tokens.attributes import GLOBAL, attributes
from meloformer.tokens.vocabulary import PAD, Vocabulary

NO_DOCUMENT = -1


@dataclass(frozen=True)
class Batch:
    """B rows of T tokens and M bar slots. All tensors are int64 but for ``is_target``, which is bool.

    What the columns mean stands in :class:`~meloformer.tokens.attributes.Attributes`. Bar slots that a row does not use
    have document -1.
    """

    ids: Tensor
    """(B, T) ids; PAD behind the end of a row."""
    type: Tensor
    """(B, T) like the next nine."""
    document: Tensor
    bar: Tensor
    instrument: Tensor
    note: Tensor
    onset: Tensor
    pitch: Tensor
    time: Tensor
    bar_of_document: Tensor
    chord: Tensor
    is_target: Tensor
    """(B, T) bool, whether a model is to predict the token."""
    bar_document: Tensor
    """(B, M) like the next two."""
    bar_last: Tensor
    bar_end_time: Tensor
    vocabulary_sha256: str
    """Of the vocabulary that the ids belong to."""

    @classmethod
    def of(
        cls,
        rows: Sequence[np.ndarray],
        vocabulary: Vocabulary | None = None,
        *,
        length: int | None = None,
        num_bars: int | None = None,
        device: torch.device | str = "cpu",
    ) -> Batch:
        """Put rows of ids side by side.

        Args:
            rows: B arrays of ids; each holds one document, or several packed one after another, and may end in PAD.
            vocabulary: Of the ids; by default the full one.
            length: T; by default the longest row.
            num_bars: M; by default the most bars that a row has.
            device: Where the tensors go.
        Raises:
            ValueError: There are no rows, one is empty, or one does not fit into ``length`` or ``num_bars``.
            VocabularyError: An id is not in the vocabulary.
        """
        vocabulary = vocabulary or Vocabulary.default()
        if not rows or not all(len(row) for row in rows):
            raise ValueError("a batch needs rows, and every row at least one token")
        for row in rows:
            vocabulary.to_canonical(row)  # raises where an id is not in the vocabulary
        facts = [attributes(row, vocabulary) for row in rows]
        length = length or max(len(row) for row in rows)
        num_bars = num_bars or max(len(row_facts.bar_document) for row_facts in facts)

        def stacked(columns: list[np.ndarray], width: int, fill: int) -> Tensor:
            table = np.full((len(columns), width), fill, dtype=columns[0].dtype)
            for row, column in zip(table, columns, strict=True):
                if len(column) > width:
                    raise ValueError(f"a row has {len(column)} tokens or bars where {width} fit")
                row[: len(column)] = column
            return torch.from_numpy(table).to(device)

        of_pad = {"type": PAD, "document": NO_DOCUMENT, "bar": -1, "instrument": GLOBAL, "time": 0, "is_target": 0}
        names = ("type", "document", "bar", "instrument", "note", "onset", "pitch", "time", "bar_of_document", "chord")
        per_token = {
            name: stacked([getattr(f, name) for f in facts], length, of_pad.get(name, -1))
            for name in (*names, "is_target")
        }
        per_bar = {
            name: stacked([getattr(f, name) for f in facts], num_bars, NO_DOCUMENT if name == "bar_document" else 0)
            for name in ("bar_document", "bar_last", "bar_end_time")
        }
        ids = stacked([np.asarray(row, dtype=np.int64) for row in rows], length, PAD)
        return cls(ids=ids, **per_token, **per_bar, vocabulary_sha256=vocabulary.sha256)

    @property
    def num_targets(self) -> int:
        """How many tokens are predicted from the one before them."""
        return int(self.is_target[:, 1:].sum())

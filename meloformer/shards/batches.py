"""Documents -> batches of rows, in an order that depends on seed and epoch alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from meloformer.shards.augment import Augmentation
from meloformer.shards.packing import Fragment, cut_document, pack_rows
from meloformer.shards.store import Documents
from meloformer.tokens.vocabulary import PAD, Vocabulary


class BatchLoader:
    """Rows of ``seq_len`` tokens, ``batch_size`` at a time. Long documents are read once to find where to cut them.

    Args:
        documents: Of one split.
        vocabulary: Of their ids.
        seq_len: Tokens in a row.
        batch_size: Rows in a batch; the last batch of an epoch may have fewer.
        seed: Of the order.
        augmentation: Changes the documents, anew in every epoch.
    Raises:
        ShardError: A document is damaged; names shard and document.
        ValueError: ``seq_len`` is below ``packing.MIN_ROW``, or ``batch_size`` below 1.
    """

    def __init__(
        self,
        documents: Documents,
        vocabulary: Vocabulary,
        *,
        seq_len: int,
        batch_size: int,
        seed: int = 0,
        augmentation: Augmentation | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}")
        self.documents = documents
        self.vocabulary = vocabulary
        self.seq_len = seq_len
        self.batch_size = batch_size
        self.seed = seed
        self.augmentation = augmentation
        self.fragments: list[Fragment] = []
        for number, length in enumerate(documents.lengths.tolist()):
            if length <= seq_len:
                self.fragments.append(Fragment(number, 0, length, ()))
            else:
                self.fragments += cut_document(documents[number], number, seq_len, vocabulary)
        self._lengths = np.array([len(fragment) for fragment in self.fragments], dtype=np.int64)
        self._rows: tuple[int, list[list[int]]] | None = None

    @property
    def num_targets(self) -> int:
        """Targets in one epoch: every token but the BOS of each document."""
        return int(self.documents.lengths.sum()) - len(self.documents)

    def rows(self, epoch: int) -> list[list[int]]:
        """The fragments of every row of an epoch."""
        if self._rows is None or self._rows[0] != epoch:
            self._rows = epoch, pack_rows(self._lengths, self.seq_len, seed=self.seed, epoch=epoch)
        return self._rows[1]

    def num_batches(self, epoch: int) -> int:
        """Batches in an epoch."""
        return -(-len(self.rows(epoch)) // self.batch_size)

    def padding_share(self, epoch: int) -> float:
        """Share of an epoch's row space that holds no token."""
        rows = self.rows(epoch)
        return 1 - int(self._lengths.sum()) / (len(rows) * self.seq_len) if rows else 0.0

    def batches(self, epoch: int, start: int = 0) -> Iterator[np.ndarray]:
        """The batches of an epoch from number ``start`` on.

        Yields:
            (B, seq_len) int64 ids, PAD behind the end of a row.
        Raises:
            ShardError: A document is damaged; names shard and document.
        """
        rows = self.rows(epoch)
        for first in range(start * self.batch_size, len(rows), self.batch_size):
            batch = rows[first : first + self.batch_size]
            ids = np.full((len(batch), self.seq_len), PAD, dtype=np.int64)
            for row, fragments in zip(ids, batch, strict=True):
                self._fill(row, fragments, epoch)
            yield ids

    def _fill(self, row: np.ndarray, fragments: list[int], epoch: int) -> None:
        position = 0
        for fragment in (self.fragments[number] for number in fragments):
            document = self.documents[fragment.document]
            ids = np.concatenate([np.array(fragment.context, np.int64), document[fragment.start : fragment.stop]])
            if self.augmentation is not None:
                table = self.augmentation.table(document, epoch=epoch, document=fragment.document)
                ids = self.augmentation.apply(ids, table)
            row[position : position + len(ids)] = ids
            position += len(ids)

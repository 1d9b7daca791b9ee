"""Documents -> rows, in an order that depends on seed and epoch alone.

All epochs have the same number of rows, so a row is known by one number that counts on from epoch to epoch, and so does
the place of a run in its data, whatever the size of its batches and the number of its processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np

from meloformer.errors import ShardError
from meloformer.shards.augment import Augmentation
from meloformer.shards.packing import Fragment, cut_document, pack_rows
from meloformer.shards.store import Documents
from meloformer.tokens.vocabulary import PAD, Vocabulary

Damage = Mapping[int, str]
"""Number of a document -> what is wrong with it, and where."""


class BatchLoader:
    """Rows of ``seq_len`` tokens.

    Args:
        documents: Of one split.
        vocabulary: Of their ids.
        seq_len: Tokens in a row.
        batch_size: Rows in a batch; the last batch of an epoch may have fewer.
        seed: Of the order.
        augmentation: Changes the documents, anew in every epoch.
        fragments: Of all documents, where :func:`cut_documents` has cut them before.
    Raises:
        ShardError: A document that is too long for a row is damaged; names shard and document.
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
        fragments: list[Fragment] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}")
        self.documents = documents
        self.vocabulary = vocabulary
        self.seq_len = seq_len
        self.batch_size = batch_size
        self.seed = seed
        self.augmentation = augmentation
        if fragments is None:
            fragments, damage = cut_documents(documents, range(len(documents)), seq_len, vocabulary)
            if damage:
                raise ShardError(next(iter(damage.values())))
        self.fragments = fragments
        self._lengths = np.array([len(fragment) for fragment in self.fragments], dtype=np.int64)
        self._rows: tuple[int, list[list[int]]] | None = None

    @property
    def num_targets(self) -> int:
        """Targets in one epoch: every token but the BOS of each document."""
        return int(self.documents.lengths.sum()) - len(self.documents)

    @property
    def num_rows(self) -> int:
        """Rows in an epoch, the same in every one: best fit by falling length fills as many in any order of equals."""
        return len(self.rows(0)) if self._rows is None else len(self._rows[1])

    def rows(self, epoch: int) -> list[list[int]]:
        """The fragments of every row of an epoch."""
        if self._rows is None or self._rows[0] != epoch:
            self._rows = epoch, pack_rows(self._lengths, self.seq_len, seed=self.seed, epoch=epoch)
        return self._rows[1]

    def padding_share(self, epoch: int) -> float:
        """Share of an epoch's row space that holds no token."""
        rows = self.rows(epoch)
        return 1 - int(self._lengths.sum()) / (len(rows) * self.seq_len) if rows else 0.0

    def batches(self, epoch: int) -> Iterator[np.ndarray]:
        """The batches of an epoch.

        Yields:
            (B, seq_len) int64 ids, PAD behind the end of a row.
        Raises:
            ShardError: A document is damaged; names shard and document.
        """
        first, stop = (self.num_rows * number for number in (epoch, epoch + 1))
        for start in range(first, stop, self.batch_size):
            ids, damage = self.read(range(start, min(start + self.batch_size, stop)))
            if damage:
                raise ShardError(next(iter(damage.values())))
            yield ids

    def read(self, numbers: Sequence[int]) -> tuple[np.ndarray, Damage]:
        """Some rows.

        Args:
            numbers: Of the rows, counted on from epoch to epoch.
        Returns:
            (B, seq_len) int64 ids, PAD behind the end of a row, and what is damaged. Documents that are damaged are
            left out, and what comes behind them in a row moves up.
        """
        all_ids = np.full((len(numbers), self.seq_len), PAD, dtype=np.int64)
        damage: dict[int, str] = {}
        for row, number in zip(all_ids, numbers, strict=True):
            epoch, place = divmod(number, self.num_rows)
            position = 0
            for fragment in (self.fragments[index] for index in self.rows(epoch)[place]):
                try:
                    ids = self._ids_of(fragment, epoch)
                except ShardError as error:
                    damage[fragment.document] = str(error)
                else:
                    row[position : position + len(ids)] = ids
                    position += len(ids)
        return all_ids, damage

    def _ids_of(self, fragment: Fragment, epoch: int) -> np.ndarray:
        document = self.documents[fragment.document]
        ids = np.concatenate([np.array(fragment.context, np.int64), document[fragment.start : fragment.stop]])
        if self.augmentation is None:
            return ids
        return self.augmentation.apply(ids, self.augmentation.table(document, epoch=epoch, document=fragment.document))


def cut_documents(
    documents: Documents, numbers: Iterable[int], seq_len: int, vocabulary: Vocabulary
) -> tuple[list[Fragment], Damage]:
    """The fragments of some documents; only those that are longer than a row are read, to find where to cut them.

    Args:
        documents: Of one split.
        numbers: Which of them.
        seq_len: Tokens in a row.
        vocabulary: Of the ids.
    Returns:
        The fragments in the order of the documents, and what is damaged. A damaged document is cut anywhere: nobody
        will read it.
    Raises:
        ValueError: ``seq_len`` is below ``packing.MIN_ROW``.
    """
    fragments: list[Fragment] = []
    damage: dict[int, str] = {}
    for number in numbers:
        length = int(documents.lengths[number])
        if length <= seq_len:
            fragments.append(Fragment(number, 0, length, ()))
            continue
        try:
            fragments += cut_document(documents[number], number, seq_len, vocabulary)
        except ShardError as error:
            damage[number] = str(error)
            cuts = range(0, length, seq_len)
            fragments += [Fragment(number, start, min(start + seq_len, length), ()) for start in cuts]
    return fragments, damage


def in_order(shares: Iterable[list[Fragment]]) -> list[Fragment]:
    """The fragments that several processes cut, in the order of the documents."""
    return sorted(chain.from_iterable(shares), key=lambda fragment: (fragment.document, fragment.start))

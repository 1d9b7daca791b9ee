"""What a folder of shards holds, counted in one pass that verifies every document."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from meloformer.errors import ShardError
from meloformer.midi.programs import program_name
from meloformer.midi.score import DRUMS
from meloformer.settings import Settings
from meloformer.shards.format import AGAIN, ID_BYTES
from meloformer.shards.inputs import open_pieces
from meloformer.shards.manifest import REJECTS_FILE, ShardManifest
from meloformer.shards.process import Piece
from meloformer.shards.records import read_records
from meloformer.shards.report import Progress
from meloformer.shards.store import open_shards
from meloformer.tokens.grid import METERS, TEMPO_BPM
from meloformer.tokens.vocabulary import CANONICAL_TYPE, FIRST_ID, NUM_CANONICAL, TokenType, Vocabulary

QUANTILES = (("shortest", 0.0), ("median", 0.5), ("95 %", 0.95), ("longest", 1.0))


@dataclass(frozen=True)
class InstrumentCounts:
    """How much one instrument plays."""

    program: int
    """0-127, 128 drums."""
    name: str
    documents: int
    """In which it plays."""
    cells: int
    """Bars in which it plays, over all documents."""


class ShardsInfo:
    """Counts of a folder of shards; what the manifest knows stays there.

    Args:
        manifest: Of the folder.
    """

    def __init__(self, manifest: ShardManifest) -> None:
        self.manifest = manifest
        self.token_counts = np.zeros(NUM_CANONICAL, dtype=np.int64)
        """(C,) how often every canonical id occurs."""
        self.documents_with = np.zeros(NUM_CANONICAL, dtype=np.int64)
        """(C,) in how many documents it occurs."""
        self.bars_in_meter = np.zeros(len(METERS), dtype=np.int64)
        """(62,) bars in each of ``METERS``."""
        self.bars_at_tempo = np.zeros(len(TEMPO_BPM), dtype=np.int64)
        """(32,) bars at each of ``TEMPO_BPM``."""
        self.document_tokens, self.document_bars, self.document_notes = np.zeros(
            (3, manifest.num_documents), dtype=np.int64
        )
        """(N,) of every document."""
        self.seconds = 0.0
        self.recovered = 0
        """How many documents are what could be read of a damaged file."""
        self._counted = 0

    def add(self, piece: Piece) -> None:
        """Count one document, of canonical ids."""
        ids = piece.ids
        counts = np.bincount(ids, minlength=NUM_CANONICAL)
        self.token_counts += counts
        self.documents_with += counts > 0
        self.bars_in_meter += bars_under(ids, TokenType.METER)
        self.bars_at_tempo += bars_under(ids, TokenType.TEMPO)
        number, self._counted = self._counted, self._counted + 1
        self.document_tokens[number] = len(ids)
        self.document_bars[number] = piece.statistics.bars
        self.document_notes[number] = piece.statistics.notes
        self.seconds += piece.statistics.seconds
        self.recovered += piece.recovered is not None

    @property
    def num_bytes(self) -> int:
        """Size of all shards."""
        return sum(shard.num_bytes for split in self.manifest.splits.values() for shard in split.shards)

    @property
    def ratio(self) -> float:
        """How much smaller the shards are than their ids of two bytes each; 0 where there are none."""
        return self.manifest.num_tokens * ID_BYTES / self.num_bytes if self.num_bytes else 0.0

    @property
    def tokens_per_note(self) -> float:
        """Mean over all notes; 0 without notes."""
        return self.manifest.num_tokens / self.manifest.num_notes if self.manifest.num_notes else 0.0

    def instruments(self) -> list[InstrumentCounts]:
        """Those that play, the one in most documents first."""
        first = FIRST_ID[TokenType.INSTRUMENT]
        every = [
            InstrumentCounts(
                program, program_name(program), int(self.documents_with[first + program]),
                int(self.token_counts[first + program]),
            )
            for program in range(DRUMS + 1)
        ]  # fmt: skip
        return sorted((one for one in every if one.cells), key=lambda one: (-one.documents, -one.cells, one.program))

    def meters(self) -> dict[str, int]:
        """Meter -> bars, the commonest first."""
        return _commonest([f"{n}/{d}" for n, d in METERS], self.bars_in_meter)

    def tempos(self) -> dict[str, int]:
        """Quarters a minute -> bars, the slowest first."""
        return {
            str(bpm): bars for bpm, bars in zip(TEMPO_BPM.tolist(), self.bars_at_tempo.tolist(), strict=True) if bars
        }

    def token_types(self) -> dict[str, int]:
        """Type -> tokens, the commonest first."""
        by_type = np.bincount(CANONICAL_TYPE, weights=self.token_counts).astype(np.int64)
        return _commonest([token_type.name for token_type in TokenType], by_type)

    def lengths(self) -> dict[str, int]:
        """Tokens of the shortest, the median and the longest document, and of the one longer than 95 %."""
        if not len(self.document_tokens):
            return {name: 0 for name, _ in QUANTILES}
        found = np.quantile(self.document_tokens, [share for _, share in QUANTILES], method="inverted_cdf")
        return {name: int(tokens) for (name, _), tokens in zip(QUANTILES, found, strict=True)}

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        manifest = self.manifest
        return {
            "num_documents": manifest.num_documents,
            "hours": round(self.seconds / 3600, 3),
            "num_bars": int(self.document_bars.sum()),
            "num_tokens": manifest.num_tokens,
            "num_notes": manifest.num_notes,
            "tokens_per_note": round(self.tokens_per_note, 4),
            "document_tokens": self.lengths(),
            "num_bytes": self.num_bytes,
            "compression_ratio": round(self.ratio, 3),
            "splits": {name: split.model_dump(mode="json") for name, split in manifest.splits.items()},
            "instruments": [asdict(one) for one in self.instruments()],
            "meters": self.meters(),
            "tempos": self.tempos(),
            "token_types": self.token_types(),
            "used_tokens": int((self.token_counts > 0).sum()),
            "vocabulary_sha256": manifest.vocabulary_sha256,
            "num_inputs": manifest.num_inputs,
            "recovered": self.recovered,
            "rejects": manifest.rejects,
            "settings": manifest.settings,
        }


def read_info(shards: Path, settings: Settings, *, progress: Progress | None = None) -> ShardsInfo:
    """Read every document of a folder once, in order, and count.

    Every frame's checksum is verified, every id, and that ``documents.jsonl`` and
    ``rejects.jsonl`` tell of the same files. Memory holds
    one document and three numbers for each.

    Args:
        shards: What ``pack`` or ``tokenize`` wrote.
        settings: They change nothing here.
        progress: Told of every document done.
    Raises:
        InputError: There is no such folder.
        ShardError: It holds no shards, or something in it is damaged; names shard and document.
    """
    info = ShardsInfo(open_shards(shards).manifest)
    pieces = open_pieces([shards], settings, Vocabulary.default())
    with closing(pieces.read(0)) as results:
        for done, result in enumerate(results, start=1):
            assert isinstance(result, Piece)  # the full vocabulary has every token
            info.add(result)
            if progress is not None:
                progress(done, pieces.total)
    _check_rejects(shards / REJECTS_FILE, info.manifest)
    return info


def _check_rejects(path: Path, manifest: ShardManifest) -> None:
    """Raise ``ShardError`` where the list of rejects is not the one that the manifest counts."""
    try:
        found = Counter(str(record["reason"]) for record in read_records(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ShardError(f"{path} is damaged ({error!r})", AGAIN) from None
    if found != Counter(manifest.rejects):
        raise ShardError(
            f"{path} has {found.total()} rejects; the manifest counts {sum(manifest.rejects.values())} or others",
            AGAIN,
        )


def bars_under(ids: np.ndarray, token_type: TokenType) -> np.ndarray:
    """In how many bars of a document every METER or every TEMPO is in force.

    Args:
        ids: (T,) canonical ids of one document.
        token_type: METER or TEMPO; the first bar has one.
    Returns:
        (K,) int64, in the order of the ids.
    """
    first, behind = FIRST_ID[token_type], FIRST_ID[TokenType(token_type + 1)]
    bar_lines = np.flatnonzero((ids >= FIRST_ID[TokenType.CHORD]) & (ids < FIRST_ID[TokenType.METER]))
    events = np.flatnonzero((ids >= first) & (ids < behind))
    bars_before = np.searchsorted(bar_lines, events) - 1
    in_force = np.append(bars_before[1:], len(bar_lines)) - bars_before
    return np.bincount(ids[events] - first, weights=in_force, minlength=behind - first).astype(np.int64)


def _commonest(names: list[str], counts: np.ndarray) -> dict[str, int]:
    """Name -> count where there is one, the commonest first."""
    order = np.argsort(-counts, kind="stable")
    return {names[number]: int(counts[number]) for number in order if counts[number]}

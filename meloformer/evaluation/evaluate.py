"""Everything about one run: how well it predicts held-out music, and how its own music compares with real music."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from meloformer.errors import InputError, ShardError, VocabularyError
from meloformer.evaluation.pieces import Piece, pieces_of, read_pieces
from meloformer.evaluation.prediction import Prediction, measure_prediction
from meloformer.evaluation.structure import Comparison, SetFigures, SetName, compare
from meloformer.generation.generate import generate
from meloformer.model.batch import Batch
from meloformer.model.device import choose_device
from meloformer.model.meloformer import MeloFormer
from meloformer.model.weights import load
from meloformer.settings import Settings
from meloformer.shards.batches import BatchLoader
from meloformer.shards.store import ShardFolder, open_shards
from meloformer.training.loss import unigram_nats

Progress = Callable[[int, int, str], None]
"""Called with what is done, of how much, and with what kind of work it is."""


@dataclass(frozen=True)
class Report:
    """What was measured."""

    run: str
    shards: str
    split: str
    seq_len: int
    prediction: Prediction | None
    """``None`` where the split has no documents."""
    compared: dict[SetName, Comparison]
    """``generated`` and ``held_out``; without pieces nothing is compared."""
    corpus: SetFigures | None
    """The training split."""
    rejected: dict[str, str] = field(default_factory=dict)
    """Name -> why a file of the pieces could not be read."""

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "run": self.run,
            "shards": self.shards,
            "split": self.split,
            "seq_len": self.seq_len,
            "prediction": self.prediction and self.prediction.to_dict(),
            **{name: comparison.to_dict() for name, comparison in self.compared.items()},
            "corpus": self.corpus and self.corpus.to_dict(),
            "rejected": self.rejected,
        }


def evaluate_run(
    run: Path,
    shards: Path,
    settings: Settings,
    *,
    pieces: Sequence[Path] = (),
    progress: Progress | None = None,
) -> Report:
    """Measure a run.

    Args:
        run: Of ``train``, a checkpoint, or a file of weights.
        shards: Those that it was trained on.
        settings: Sections ``evaluation`` and ``generation`` count, and of ``filter`` the largest file.
        pieces: Folders or files of MIDI to measure; by default ``evaluation.num`` pieces that the run writes.
        progress: Told of rows read and bars written.
    Raises:
        InputError, CheckpointError, ShardError: The run, the shards or the pieces are missing or damaged, or there is
            nothing to measure.
        VocabularyError: The run was trained on shards with another vocabulary.
    """
    chosen = settings.evaluation
    tell = progress or _no_progress
    model = load(run, device=choose_device(chosen.device))
    folder = open_shards(shards)
    if model.vocabulary != folder.vocabulary:
        raise VocabularyError(
            f"{run} has vocabulary {model.vocabulary.sha256}, the shards {shards} have {folder.vocabulary.sha256}",
            "name the shards that it was trained on with --shards",
        )
    read = read_pieces(pieces, max_bytes=settings.filter.max_file_bytes) if pieces else None
    seq_len = chosen.seq_len or model.seq_len or Settings().training.seq_len
    prediction = _prediction(model, folder, settings, seq_len, tell)
    if prediction is None and read is None and not chosen.num:
        raise ShardError(
            f"{shards} has no documents in the split {chosen.split}, and no pieces are wanted",
            "pack more music, or with a larger --set pack.val_share, or name another --split",
        )
    made = _written(model, settings, tell) if read is None else read.pieces
    compared, corpus = _compared(made, folder, settings)
    return Report(
        run=str(run),
        shards=str(shards),
        split=chosen.split,
        seq_len=seq_len,
        prediction=prediction,
        compared=compared,
        corpus=corpus,
        rejected=read.rejected if read else {},
    )


def _no_progress(done: int, total: int, what: str) -> None:
    """Tell nobody."""


def _prediction(
    model: MeloFormer, folder: ShardFolder, settings: Settings, seq_len: int, tell: Progress
) -> Prediction | None:
    chosen = settings.evaluation
    loader = BatchLoader(
        folder.split(chosen.split), folder.vocabulary, seq_len=seq_len, batch_size=chosen.batch_size, seed=0
    )
    if not loader.fragments:
        return None

    def batches() -> Iterator[Batch]:
        total = -(-loader.num_rows // loader.batch_size)
        for number, ids in enumerate(loader.batches(epoch=0)):
            yield Batch.of(list(ids), folder.vocabulary, device=model.device)
            tell(number + 1, total, "batches of held-out music")

    return measure_prediction(model, batches(), unigram_nats(folder.split("train"), folder.vocabulary))


def _written(model: MeloFormer, settings: Settings, tell: Progress) -> list[Piece]:
    """Pieces by the model itself."""
    num = settings.evaluation.num
    if not num:
        return []
    documents = generate(
        model,
        num=num,
        settings=settings.generation,
        progress=lambda done, total: tell(done, total, "bars written"),
    )
    pieces = pieces_of(documents, model.vocabulary)
    if not any(piece.num_notes for piece in pieces):
        raise InputError("the run wrote no notes", "train it for longer, or name other pieces with --pieces")
    return pieces


def _compared(
    made: list[Piece], folder: ShardFolder, settings: Settings
) -> tuple[dict[SetName, Comparison], SetFigures | None]:
    if not made:
        return {}, None
    corpus = pieces_of(folder.split("train"), folder.vocabulary)
    if not corpus:
        raise ShardError(f"{folder.path} has no training documents to compare with", "name other --shards")
    held_out = pieces_of(folder.split(settings.evaluation.split), folder.vocabulary)
    sets: dict[SetName, Sequence[Piece]] = {"generated": made}
    if held_out:
        sets["held_out"] = held_out
    return compare(sets, corpus)

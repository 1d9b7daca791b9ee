"""Write new pieces, token by token, under the grammar and the user's wishes."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from meloformer.generation.cache import PieceCache
from meloformer.generation.constraints import Constraints
from meloformer.generation.context import latest_context
from meloformer.generation.decoder import Decoder
from meloformer.generation.plan import Assignment, assignment
from meloformer.generation.sampling import Sampler
from meloformer.model.meloformer import MeloFormer
from meloformer.settings import GenerationSettings, checked
from meloformer.tokens.vocabulary import TokenType, Vocabulary

Progress = Callable[[int, int], None]
"""Called with the bars written so far and the bars of all pieces."""


class Bar(NamedTuple):
    """One bar of a piece, as soon as it is finished."""

    piece: int
    """Number of the piece, from 0 on."""
    number: int
    """Of the bar in the piece, from 0 on."""
    ids: np.ndarray
    """(T,) uint16 from its CHORD on; the first bar opens with BOS, the last ends with EOS. The bars of a piece one
    after another are its document."""
    is_last: bool


def generate(
    model: MeloFormer,
    *,
    settings: GenerationSettings | None = None,
    progress: Progress | None = None,
    **wishes: Any,
) -> list[np.ndarray]:
    """Write new pieces.

    Args:
        model: In eval mode; on any device.
        settings: What is wished for.
        progress: Told of every bar.
        wishes: Fields of :class:`~meloformer.settings.GenerationSettings` by name, such as ``bars=16``, ``num=4``,
            ``seed=1``, ``instruments="drums,bass,piano"``; they go before ``settings``. ``None`` is no wish.
    Returns:
        ``num`` documents, (T,) uint16 ids of the model's vocabulary, without a grammar error.
    Raises:
        GenerationError, SettingsError: A wish is unknown, out of range or cannot be fulfilled.
        InputError, RejectError, VocabularyError: A primer cannot be read, or not be written in the model's tokens.
    """
    given = {name: value for name, value in wishes.items() if value is not None}
    base = (settings or GenerationSettings()).model_dump(exclude_unset=True)
    chosen = checked(GenerationSettings, "generation", {**base, **given})
    task = assignment(chosen, model.vocabulary)
    documents: list[list[np.ndarray]] = [[] for _ in range(chosen.num)]
    for done, bar in enumerate(_stream(model, chosen, task), start=1):
        documents[bar.piece].append(bar.ids)
        if progress is not None:
            progress(done, task.wishes.bars * chosen.num)
    return [np.concatenate(bars) for bars in documents]


def stream(model: MeloFormer, settings: GenerationSettings | None = None) -> Iterator[Bar]:
    """:func:`generate` bar by bar: every bar as soon as it is finished, those of several pieces mixed.

    Args:
        model: In eval mode; on any device.
        settings: By default those of :class:`~meloformer.settings.GenerationSettings`.
    Returns:
        The bars; those of one piece in order, given ones among them.
    Raises:
        GenerationError, SettingsError, InputError, RejectError, VocabularyError: See :func:`generate`.
    """
    chosen = settings or GenerationSettings()
    return _stream(model, chosen, assignment(chosen, model.vocabulary))


class _Piece:
    """One piece in the making."""

    def __init__(self, number: int, task: Assignment, cache: PieceCache, vocabulary: Vocabulary, seed: int) -> None:
        self.number = number
        self.cache = cache
        self.rng = np.random.default_rng([seed, number])
        self.constraints = Constraints(task.wishes, vocabulary, task.plans, task.beginning)
        self.ids = array("H", task.beginning.tolist())
        self.num_read = 0
        """How many of the ids the model has read."""
        self.allowed: np.ndarray | None = None
        """(V,) bool, what may come next; ``None`` when the piece is finished."""
        self._ends = np.flatnonzero(vocabulary.types[task.beginning] == TokenType.CHORD).tolist()[1:]
        """Where bars end that were not handed out yet."""
        self._num_told = self._num_bars_told = 0
        self.go_on()

    def append(self, token_id: int) -> None:
        """Take one token, and all that have to come behind it."""
        self._take(token_id)
        self.go_on()

    def go_on(self) -> None:
        """Take tokens as long as only one may come."""
        self.allowed = None
        while not self.constraints.is_finished:
            allowed = self.constraints.allowed()
            if np.count_nonzero(allowed) > 1:
                self.allowed = allowed
                return
            self._take(int(allowed.argmax()))

    def _take(self, token_id: int) -> None:
        self.constraints.advance(token_id)
        state = self.constraints.state
        if state.last == TokenType.CHORD and state.bar > 0:
            self._ends.append(len(self.ids))
        self.ids.append(token_id)
        if state.last == TokenType.EOS:
            self._ends.append(len(self.ids))

    def finished_bars(self) -> Iterator[Bar]:
        """The bars that have ended since this was asked last."""
        for end in self._ends:
            ids = np.array(self.ids[self._num_told : end], dtype=np.uint16)
            self._num_told, self._num_bars_told = end, self._num_bars_told + 1
            is_last = end == len(self.ids) and self.constraints.is_finished
            yield Bar(self.number, self._num_bars_told - 1, ids, is_last)
        self._ends.clear()


@torch.inference_mode()
def _stream(model: MeloFormer, settings: GenerationSettings, task: Assignment) -> Iterator[Bar]:
    vocabulary = model.vocabulary
    decoder, sampler = Decoder(model), Sampler(settings, vocabulary)
    context = settings.context or model.seq_len
    beginning = task.beginning
    opened = decoder.new_piece()
    if len(beginning) > 1:
        opened = decoder.read(_in_sight(beginning[:-1], context, vocabulary))[0]
    pieces = []
    for number in range(settings.num):
        cache = opened if settings.num == 1 else opened.copy()
        pieces.append(_Piece(number, task, cache, vocabulary, settings.seed))
        pieces[-1].num_read = len(beginning) - 1
        yield from pieces[-1].finished_bars()
    while unfinished := [piece for piece in pieces if piece.allowed is not None]:
        logits = _next_logits(decoder, unfinished, context)
        for piece, row in zip(unfinished, logits, strict=True):
            if piece.num_read == len(piece.ids):
                assert piece.allowed is not None
                piece.append(sampler.choose(row, piece.allowed, piece.constraints, piece.rng))
        for piece in unfinished:
            yield from piece.finished_bars()


def _in_sight(ids: np.ndarray, context: int | None, vocabulary: Vocabulary) -> np.ndarray:
    """(T',) what is read of a piece of (T,) ids: all of it, or of ``context`` tokens and more the latest."""
    if context is None or len(ids) < context:
        return ids
    return latest_context(ids, 3 * context // 4, vocabulary)


def _next_logits(decoder: Decoder, pieces: list[_Piece], context: int | None) -> np.ndarray:
    """(P, V) what the model says after the next token that it has not read of each piece.

    Where it has come to ``context`` tokens since a piece was last read anew, the latest three quarters of them are.
    """
    anew = [piece for piece in pieces if context is not None and piece.cache.facts.position + 1 >= context]
    others = [piece for piece in pieces if piece not in anew]
    rows: dict[int, Tensor] = {}
    if others:
        logits = decoder.step([piece.cache for piece in others], [piece.ids[piece.num_read] for piece in others])
        rows = {piece.number: row for piece, row in zip(others, logits.unbind(), strict=True)}
    for piece in pieces:
        piece.num_read += 1
    for piece in anew:
        read = np.array(piece.ids[: piece.num_read], dtype=np.uint16)
        piece.cache, rows[piece.number] = decoder.read(_in_sight(read, context, decoder.model.vocabulary))
    return torch.stack([rows[piece.number] for piece in pieces]).cpu().numpy()

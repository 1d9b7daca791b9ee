"""Write new pieces, token by token, under the grammar and the user's wishes."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch

from meloformer.generation.constraints import Wishes, allowed_tokens, make_wishes, redirected
from meloformer.generation.context import latest_context
from meloformer.generation.sampling import sample, token_probabilities
from meloformer.model.batch import Batch
from meloformer.model.meloformer import MeloFormer
from meloformer.settings import GenerationSettings, checked
from meloformer.tokens.grammar import GrammarState
from meloformer.tokens.vocabulary import BOS, TokenType

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


class _Piece:
    """One piece in the making."""

    def __init__(self, model: MeloFormer, wishes: Wishes, rng: np.random.Generator) -> None:
        self.vocabulary = model.vocabulary
        self.wishes = wishes
        self.rng = rng
        self.state = GrammarState(self.vocabulary)
        self.ids = array("H")
        self.told = 0
        """How many of the ids were handed out."""
        self.append(BOS)

    def append(self, token_id: int) -> None:
        """Take one token."""
        self.state.advance(token_id)
        self.ids.append(token_id)

    @property
    def is_finished(self) -> bool:
        return self.state.last == TokenType.EOS

    def finished_bar(self, number: int) -> Bar | None:
        """The bar that the latest token ended, if it ended one: a CHORD ends the bar before it, EOS its own."""
        if self.state.last == TokenType.CHORD and self.state.bar > 0:
            stop, bar = len(self.ids) - 1, self.state.bar - 1
        elif self.is_finished:
            stop, bar = len(self.ids), self.state.bar
        else:
            return None
        if stop == self.told:
            return None
        ids = np.array(self.ids[self.told : stop], dtype=np.uint16)
        self.told = stop
        return Bar(number, bar, ids, self.is_finished)

    def context(self, length: int) -> np.ndarray:
        """What the model sees of it, at most ``length`` tokens."""
        return latest_context(np.array(self.ids), length, self.vocabulary)


def generate(
    model: MeloFormer,
    *,
    bars: int | None = None,
    num: int | None = None,
    seed: int | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    tempo: float | None = None,
    meter: str | None = None,
    instruments: str | None = None,
    settings: GenerationSettings | None = None,
    progress: Progress | None = None,
) -> list[np.ndarray]:
    """Write new pieces.

    Args:
        model: In eval mode; on any device.
        bars: Exactly this many bars; like all that follow, by default what ``settings`` says.
        num: Number of pieces.
        seed: Piece k of a seed is the same for any ``num``.
        temperature: 0 always takes the likeliest token.
        top_k, top_p: Sample among the likeliest tokens only.
        tempo: Quarters a minute.
        meter: Such as ``3/4``.
        instruments: Such as ``drums,bass,piano``: only these, each at least once.
        settings: Everything else, and the defaults.
        progress: Told of every bar.
    Returns:
        ``num`` documents, (T,) uint16 ids of the model's vocabulary, without a grammar error.
    Raises:
        GenerationError, SettingsError: A wish is out of range or cannot be fulfilled.
    """
    given = {
        "bars": bars, "num": num, "seed": seed, "temperature": temperature, "top_k": top_k, "top_p": top_p,
        "tempo": tempo, "meter": meter, "instruments": instruments,
    }  # fmt: skip
    base = (settings or GenerationSettings()).model_dump()
    given = {name: value for name, value in given.items() if value is not None}
    chosen = checked(GenerationSettings, "generation", {**base, **given})
    documents: list[list[np.ndarray]] = [[] for _ in range(chosen.num)]
    for done, bar in enumerate(stream(model, chosen), start=1):
        documents[bar.piece].append(bar.ids)
        if progress is not None:
            progress(done, chosen.bars * chosen.num)
    return [np.concatenate(bars) for bars in documents]


@torch.inference_mode()
def stream(model: MeloFormer, settings: GenerationSettings | None = None) -> Iterator[Bar]:
    """:func:`generate` bar by bar: every bar as soon as it is finished, those of several pieces mixed.

    Args:
        model: In eval mode; on any device.
        settings: By default those of :class:`~meloformer.settings.GenerationSettings`.
    Yields:
        The bars; those of one piece in order.
    Raises:
        GenerationError, SettingsError: A wish cannot be fulfilled; raised with the first bar.
    """
    chosen = settings or GenerationSettings()
    wishes = make_wishes(
        model.vocabulary,
        bars=chosen.bars,
        tempo=chosen.tempo,
        meter=chosen.meter,
        instruments=chosen.instruments,
        max_notes_per_bar=chosen.max_notes_per_bar,
    )
    pieces = [_Piece(model, wishes, np.random.default_rng([chosen.seed, k])) for k in range(chosen.num)]
    while unfinished := [piece for piece in pieces if not piece.is_finished]:
        contexts = [piece.context(chosen.context) for piece in unfinished]
        logits = model(Batch.of(contexts, model.vocabulary, device=model.device))
        last = torch.tensor([len(context) - 1 for context in contexts], device=model.device)
        rows = logits[torch.arange(len(contexts), device=model.device), last].float().cpu().numpy()
        for piece, row in zip(unfinished, rows, strict=True):
            allowed = allowed_tokens(piece.state, wishes)
            probabilities = token_probabilities(
                redirected(row, piece.state, allowed),
                allowed,
                temperature=chosen.temperature,
                top_k=chosen.top_k,
                top_p=chosen.top_p,
            )
            piece.append(sample(probabilities, piece.rng))
        for number, piece in enumerate(pieces):
            if (bar := piece.finished_bar(number)) is not None:
                yield bar

"""Head families that are tried, and not shipped: importing this registers them, so that ``model.heads`` may name them.

One that earns its place moves to ``EQUAL_KEY`` in ``meloformer/model/visibility.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from meloformer.midi.chords import QUALITIES
from meloformer.midi.score import DRUMS
from meloformer.model.batch import Batch
from meloformer.model.visibility import register_family
from meloformer.tokens.grid import STEPS_PER_QUARTER
from meloformer.tokens.vocabulary import TokenType, Vocabulary

PHRASE_BARS = 4
_ROOTS: dict[str, Tensor] = {}
"""Hash of a vocabulary -> (V,) root of every CHORD, 0 for all other tokens and for ``N``."""


def prepare(vocabulary: Vocabulary) -> None:
    """Let the families that ask for chords know a vocabulary, before its first batch."""
    is_chord = (vocabulary.types == TokenType.CHORD) & (vocabulary.values > 0)
    roots = np.where(is_chord, (vocabulary.values - 1) // len(QUALITIES), 0)
    _ROOTS[vocabulary.sha256] = torch.from_numpy(roots)


def chord_of(batch: Batch) -> Tensor:
    """(B, T) id of the CHORD in force; -1 before the first of a document."""
    place = torch.arange(batch.ids.shape[1], device=batch.ids.device).expand_as(batch.ids)
    last = torch.where(batch.type == TokenType.CHORD, place, -1).cummax(dim=1).values
    at = last.clamp(min=0)
    is_own = (last >= 0) & (batch.document.gather(1, at) == batch.document)
    return torch.where(is_own, batch.ids.gather(1, at), -1)


def pitch_class(batch: Batch) -> Tensor:
    """Octaves are alike; drums keep their pitch. Tokens without a pitch are one group."""
    is_drum = batch.instrument == DRUMS
    key = torch.where(is_drum, batch.pitch + 12, batch.pitch % 12)
    return torch.where(batch.pitch < 0, -1, key)


def interval(batch: Batch) -> Tensor:
    """The interval above the root of the bar's chord, whatever the key; otherwise as ``pitch_class``."""
    chord = chord_of(batch)
    roots = _ROOTS[batch.vocabulary_sha256].to(batch.ids.device)[chord.clamp(min=0)]
    key = (pitch_class(batch) - torch.where(chord >= 0, roots, 0)) % 12
    return torch.where((batch.pitch < 0) | (batch.instrument == DRUMS), pitch_class(batch), key)


def beat(batch: Batch) -> Tensor:
    """The same quarter of the bar, any instrument; tokens outside notes are one group."""
    return torch.div(batch.onset, STEPS_PER_QUARTER, rounding_mode="floor")


def phrase(batch: Batch) -> Tensor:
    """The same onset in the same bar of a phrase of four bars, counted from the start of the document in its row."""
    opens = batch.document.diff(dim=1, prepend=batch.document[:, :1] - 1) != 0
    place = torch.arange(batch.ids.shape[1], device=batch.ids.device).expand_as(batch.ids)
    first = torch.where(opens, place, 0).cummax(dim=1).values
    bar = batch.bar - batch.bar.gather(1, first)
    return bar % PHRASE_BARS * 256 + batch.onset


def document(batch: Batch) -> Tensor:
    """All that stands before, as in a plain causal transformer."""
    return torch.zeros_like(batch.ids)


FAMILIES: dict[str, Callable[[Batch], Tensor]] = {
    "pitch_class": pitch_class,
    "interval": interval,
    "beat": beat,
    "chord": chord_of,
    "phrase": phrase,
    "document": document,
}
for _name, _key in FAMILIES.items():
    register_family(_name, _key)

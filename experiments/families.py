"""Head families that are tried, and not shipped: importing this registers them, so that ``model.heads`` may name them.

One that earns its place moves to ``EQUAL_KEY`` in ``meloformer/model/visibility.py``. Keys are made by operators alone,
as facts may be tensors, arrays or numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meloformer.midi.chords import QUALITIES
from meloformer.midi.score import DRUMS
from meloformer.model.visibility import KnowsPlaces, register_family
from meloformer.tokens.grid import STEPS_PER_QUARTER

PHRASE_BARS = 4


def pitch_class(facts: KnowsPlaces) -> Any:
    """Octaves are alike; drums keep their pitch. Tokens without a pitch are one group."""
    key = facts.pitch % 12
    key = _where(facts.instrument == DRUMS, facts.pitch + 12, key)
    return _where(facts.pitch < 0, -1, key)


def interval(facts: KnowsPlaces) -> Any:
    """The interval above the root of the bar's chord, whatever the key; otherwise as ``pitch_class``.

    ``N`` counts from C, and so does what stands before the first chord.
    """
    root = (facts.chord > 0) * ((facts.chord - 1) // len(QUALITIES))
    own = pitch_class(facts)
    return _where((facts.pitch < 0) | (facts.instrument == DRUMS), own, (own - root) % 12)


def beat(facts: KnowsPlaces) -> Any:
    """The same quarter of the bar, any instrument; tokens outside notes are one group."""
    return facts.onset // STEPS_PER_QUARTER


def chord(facts: KnowsPlaces) -> Any:
    """The same harmony; what stands before the first CHORD is a group."""
    return facts.chord


def phrase(facts: KnowsPlaces) -> Any:
    """The same onset in the same bar of a phrase of four bars, counted from the start of the document in its row."""
    return facts.bar_of_document % PHRASE_BARS * 256 + facts.onset


def document(facts: KnowsPlaces) -> Any:
    """All that stands before, as in a plain causal transformer."""
    return facts.onset * 0


def _where(condition: Any, value: Any, otherwise: Any) -> Any:
    return otherwise + condition * (value - otherwise)


FAMILIES: dict[str, Callable[[KnowsPlaces], Any]] = {
    "pitch_class": pitch_class,
    "interval": interval,
    "beat": beat,
    "chord": chord,
    "phrase": phrase,
    "document": document,
}
for _name, _key in FAMILIES.items():
    register_family(_name, _key)

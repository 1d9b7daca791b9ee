"""MeloFormer: from a folder of MIDI files to a transformer, and from the transformer to multi-track music.

    import meloformer as mf

    score = mf.read_midi("song.mid")
    ids = mf.encode(score)
    model = mf.load("runs/demo")
    pieces = mf.generate(model, bars=32, seed=1)
    mf.write_midi(mf.decode(pieces[0], model.vocabulary), "new.mid")

Names are loaded when they are first used, so that ``import meloformer`` and ``meloformer --help`` are instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from meloformer.version import __version__ as __version__

if TYPE_CHECKING:
    from meloformer.generation.generate import generate, stream
    from meloformer.midi.read import read_midi
    from meloformer.midi.score import Score
    from meloformer.midi.write import write_midi
    from meloformer.model.batch import Batch
    from meloformer.model.meloformer import MeloFormer
    from meloformer.model.weights import load
    from meloformer.settings import ModelSettings
    from meloformer.tokens.decode import decode
    from meloformer.tokens.encode import encode
    from meloformer.tokens.quantise import quantise
    from meloformer.tokens.text import from_text, to_text
    from meloformer.tokens.vocabulary import Vocabulary

__all__ = [
    "Batch",
    "MeloFormer",
    "ModelSettings",
    "Score",
    "Vocabulary",
    "decode",
    "encode",
    "from_text",
    "generate",
    "load",
    "quantise",
    "read_midi",
    "stream",
    "to_text",
    "write_midi",
]

_MODULE_OF = {
    "Batch": "model.batch",
    "MeloFormer": "model.meloformer",
    "ModelSettings": "settings",
    "Score": "midi.score",
    "Vocabulary": "tokens.vocabulary",
    "decode": "tokens.decode",
    "encode": "tokens.encode",
    "from_text": "tokens.text",
    "generate": "generation.generate",
    "load": "model.weights",
    "quantise": "tokens.quantise",
    "read_midi": "midi.read",
    "stream": "generation.generate",
    "to_text": "tokens.text",
    "write_midi": "midi.write",
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'meloformer' has no attribute {name!r}")
    value = getattr(import_module(f"meloformer.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""The vocabulary: which token has which number.

Everything inside the package reckons in *canonical* ids, positions in the full vocabulary; a pruned one only maps at
the door, in :meth:`Vocabulary.to_canonical` and :meth:`Vocabulary.from_canonical`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from enum import IntEnum
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from meloformer.errors import InputError, VocabularyError
from meloformer.midi.chords import CHORD_NAMES
from meloformer.midi.score import DRUMS
from meloformer.tokens.grid import (
    DURATION_STEPS,
    MAX_BAR_STEPS,
    METERS,
    NUM_VELOCITY_BINS,
    STEPS_PER_QUARTER,
    TEMPO_BPM,
)

FORMAT_VERSION = 1


class TokenType(IntEnum):
    """What a token says; the order is the order of the ids."""

    PAD = 0
    BOS = 1
    EOS = 2
    MASK = 3
    SEP = 4
    UNK = 5
    CHORD = 6
    METER = 7
    TEMPO = 8
    INSTRUMENT = 9
    ONSET = 10
    PITCH = 11
    DURATION = 12
    VELOCITY = 13


NUM_TOKEN_TYPES = len(TokenType)
SPECIAL_TYPES = tuple(TokenType)[:6]
NOTE_TYPES = (TokenType.ONSET, TokenType.PITCH, TokenType.DURATION, TokenType.VELOCITY)

_TABLE: tuple[tuple[TokenType, list[str], list[int]], ...] = (
    *((token_type, [token_type.name], [0]) for token_type in SPECIAL_TYPES),
    (TokenType.CHORD, list(CHORD_NAMES), list(range(len(CHORD_NAMES)))),
    (TokenType.METER, [f"{n}/{d}" for n, d in METERS], list(range(len(METERS)))),
    (TokenType.TEMPO, [str(bpm) for bpm in TEMPO_BPM], list(range(len(TEMPO_BPM)))),
    (TokenType.INSTRUMENT, [f"#{p}" for p in range(DRUMS)] + ["#D"], list(range(DRUMS + 1))),
    (TokenType.ONSET, [f"T{t}" for t in range(MAX_BAR_STEPS)], list(range(MAX_BAR_STEPS))),
    (TokenType.PITCH, [f"P{p}" for p in range(128)], list(range(128))),
    (TokenType.DURATION, [f"D{d}" for d in DURATION_STEPS], DURATION_STEPS.tolist()),
    (TokenType.VELOCITY, [f"V{v}" for v in range(NUM_VELOCITY_BINS)], list(range(NUM_VELOCITY_BINS))),
)

CANONICAL_NAMES: tuple[str, ...] = tuple(name for _, names, _ in _TABLE for name in names)
CANONICAL_ID: dict[str, int] = {name: number for number, name in enumerate(CANONICAL_NAMES)}
CANONICAL_TYPE = np.array([token_type for token_type, names, _ in _TABLE for _ in names], dtype=np.int64)
"""(C,) ``TokenType`` of every canonical id."""
CANONICAL_VALUE = np.array([value for _, _, values in _TABLE for value in values], dtype=np.int64)
"""(C,) what the token says: chord, meter, tempo, velocity number; program; steps for onset and duration; pitch."""
NUM_CANONICAL = len(CANONICAL_NAMES)
FIRST_ID = {token_type: int(np.argmax(CANONICAL_TYPE == token_type)) for token_type in TokenType}
"""Canonical id of the first token of every type; all but durations count up from there by value."""

PAD, BOS, EOS, _, SEP, UNK = (FIRST_ID[token_type] for token_type in SPECIAL_TYPES)
"""Canonical ids. Special tokens are never pruned, so these hold in every vocabulary."""


class Vocabulary:
    """An ordered list of token names, with what every token says.

    Args:
        names: Token names in id order: a subsequence of the full vocabulary that keeps the six special tokens.
        counts: How often each occurs in a corpus, or ``None``.
    Raises:
        VocabularyError: A name is unknown, doubled or out of order, or a special token is missing.
    """

    def __init__(self, names: Sequence[str] = CANONICAL_NAMES, counts: Sequence[int] | None = None) -> None:
        self.names = tuple(names)
        self.counts = None if counts is None else tuple(int(count) for count in counts)
        unknown = next((name for name in self.names if name not in CANONICAL_ID), None)
        if unknown is not None:
            raise VocabularyError(f"unknown token {unknown!r} in the vocabulary")
        self.canonical = np.array([CANONICAL_ID[name] for name in self.names], dtype=np.int64)
        """(V,) canonical id of every token."""
        if (np.diff(self.canonical) <= 0).any() or self.names[: len(SPECIAL_TYPES)] != CANONICAL_NAMES[:6]:
            raise VocabularyError("the vocabulary's tokens are doubled, out of order, or lack a special token")
        if self.counts is not None and len(self.counts) != len(self.names):
            raise VocabularyError(f"{len(self.counts)} counts for {len(self.names)} tokens")

    @staticmethod
    @lru_cache(maxsize=1)
    def default() -> Vocabulary:
        """The full vocabulary."""
        return Vocabulary()

    def __len__(self) -> int:
        return len(self.names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.names == other.names

    def __hash__(self) -> int:
        return hash(self.names)

    @cached_property
    def sha256(self) -> str:
        """Hash over format version, grid and names; equal hashes mean equal ids."""
        text = "\n".join([f"hid {FORMAT_VERSION} grid={STEPS_PER_QUARTER}", *self.names])
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def types(self) -> np.ndarray:
        """(V,) ``TokenType`` of every id."""
        return CANONICAL_TYPE[self.canonical]

    @cached_property
    def values(self) -> np.ndarray:
        """(V,) what the token says, see ``CANONICAL_VALUE``."""
        return CANONICAL_VALUE[self.canonical]

    @cached_property
    def _id_of(self) -> np.ndarray:
        """(C,) id of every canonical id, -1 where this vocabulary lacks it."""
        table = np.full(NUM_CANONICAL, -1, dtype=np.int64)
        table[self.canonical] = np.arange(len(self))
        return table

    @cached_property
    def is_full(self) -> bool:
        """Whether nothing was pruned: ids are canonical ids."""
        return len(self) == NUM_CANONICAL

    def id_of(self, name: str) -> int:
        """Id of a token name.

        Raises:
            VocabularyError: There is no such token.
        """
        number = self._id_of[CANONICAL_ID[name]] if name in CANONICAL_ID else -1
        if number < 0:
            raise VocabularyError(f"the vocabulary has no token {name!r}")
        return int(number)

    def from_canonical(self, canonical_ids: np.ndarray) -> np.ndarray:
        """(T,) canonical ids -> (T,) uint16 ids of this vocabulary.

        Raises:
            VocabularyError: A token was pruned from this vocabulary.
        """
        if self.is_full:
            return canonical_ids.astype(np.uint16)
        ids = self._id_of[canonical_ids]
        if len(ids) and ids.min() < 0:
            name = CANONICAL_NAMES[int(canonical_ids[int(np.argmin(ids))])]
            raise VocabularyError(
                f"the vocabulary has no token {name!r}, which this piece needs",
                "run `meloformer build-vocab` over a corpus that has it, or leave out --prune",
            )
        return ids.astype(np.uint16)

    def to_canonical(self, ids: np.ndarray) -> np.ndarray:
        """(T,) ids of this vocabulary -> (T,) int64 canonical ids.

        Raises:
            VocabularyError: An id is negative or past the end.
        """
        ids = np.asarray(ids, dtype=np.int64)
        if len(ids) and not (0 <= int(ids.min()) and int(ids.max()) < len(self)):
            wrong = int(ids[(ids < 0) | (ids >= len(self))][0])
            raise VocabularyError(f"id {wrong} is outside this vocabulary of {len(self)} tokens")
        return ids if self.is_full else self.canonical[ids]

    def pruned(self, counts: np.ndarray) -> Vocabulary:
        """The vocabulary without the tokens that ``counts`` (V,) says never occur; special tokens stay."""
        keep = (np.asarray(counts) > 0) | (self.types < TokenType.CHORD)
        names = [name for name, kept in zip(self.names, keep, strict=True) if kept]
        return Vocabulary(names, np.asarray(counts)[keep].tolist())

    def to_json(self) -> str:
        """The vocabulary as a JSON text."""
        record: dict[str, object] = {
            "format": "meloformer-vocabulary",
            "version": FORMAT_VERSION,
            "grid": STEPS_PER_QUARTER,
            "sha256": self.sha256,
            "tokens": self.names,
        }
        if self.counts is not None:
            record["counts"] = self.counts
        return json.dumps(record, indent=1) + "\n"

    @staticmethod
    def from_json(text: str, *, where: str = "the vocabulary") -> Vocabulary:
        """Read what :meth:`to_json` wrote.

        Raises:
            VocabularyError: It is no vocabulary, of another version, or its hash does not match its tokens.
        """
        again = "make it again with `meloformer build-vocab`"
        try:
            record = json.loads(text)
            if record["format"] != "meloformer-vocabulary":
                raise KeyError("format")
            version, grid, digest = record["version"], record["grid"], record["sha256"]
            names, counts = [str(name) for name in record["tokens"]], record.get("counts")
            if counts is not None and not all(type(count) is int for count in counts):
                raise TypeError("counts are not whole numbers")
        except (ValueError, KeyError, TypeError) as error:
            raise VocabularyError(f"{where} is not a MeloFormer vocabulary ({error})", again) from None
        if (version, grid) != (FORMAT_VERSION, STEPS_PER_QUARTER):
            wanted = f"version {FORMAT_VERSION} and grid {STEPS_PER_QUARTER}"
            raise VocabularyError(f"{where} has version {version} and grid {grid}, not {wanted}", again)
        try:
            vocabulary = Vocabulary(names, counts)
        except VocabularyError as error:
            raise VocabularyError(f"{where}: {error.message}", again) from None
        if vocabulary.sha256 != digest:
            raise VocabularyError(f"{where} says sha256 {digest}, but its tokens have {vocabulary.sha256}", again)
        return vocabulary

    @staticmethod
    def load(path: str | Path) -> Vocabulary:
        """Read a ``vocab.json``.

        Raises:
            InputError: The file cannot be read.
            VocabularyError: See :meth:`from_json`.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            advice = "make one with `meloformer build-vocab`, or the shards again with `meloformer pack`"
            raise InputError(f"cannot read the vocabulary {path}: {error.strerror or error}", advice) from None
        except UnicodeDecodeError:
            raise InputError(
                f"the vocabulary {path} is no text", "give a vocab.json of `meloformer build-vocab`"
            ) from None
        return Vocabulary.from_json(text, where=str(path))

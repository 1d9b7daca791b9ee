"""The text form of HID: one line a bar and a cell, to read and to edit.

    hid 1 grid=12
    bar 1 C:maj 4/4 120
      #D   T0 P36 V24 | P42 V20 | T6 P42        ; Drums
      #33  T0 P36 D12 V22 | T24 P43 D12         ; Electric Bass (finger)
    bar 2 F:maj

Text -> ids -> text is exact for what :func:`to_text` writes. Bar numbers are for people and may be any, comments
after ``;`` and blank lines may be left out.
"""

from __future__ import annotations

from itertools import groupby

import numpy as np

from meloformer.errors import TextError
from meloformer.midi.programs import program_name
from meloformer.tokens.grammar import GrammarState, grammar_errors
from meloformer.tokens.grid import STEPS_PER_QUARTER
from meloformer.tokens.vocabulary import (
    CANONICAL_ID,
    CANONICAL_NAMES,
    CANONICAL_TYPE,
    CANONICAL_VALUE,
    FORMAT_VERSION,
    TokenType,
    Vocabulary,
)

HEADER = f"hid {FORMAT_VERSION} grid={STEPS_PER_QUARTER}"
_COMMENT_COLUMN = 44


def to_text(ids: np.ndarray, vocabulary: Vocabulary | None = None) -> str:
    """Write a document, or any beginning of one, as text.

    Args:
        ids: (T,) ids.
        vocabulary: By default the full one.
    Raises:
        VocabularyError: An id is outside the vocabulary.
    """
    canonical = (vocabulary or Vocabulary.default()).to_canonical(ids)
    lines = [HEADER]
    num_bars = 0
    line: list[str] = []
    previous = TokenType.BOS
    for token_id in canonical:
        token_type, name = TokenType(int(CANONICAL_TYPE[token_id])), CANONICAL_NAMES[token_id]
        if token_type == TokenType.CHORD:
            num_bars += 1
            lines += _finished(line)
            line = [f"bar {num_bars}", name]
        elif token_type == TokenType.INSTRUMENT:
            lines += _finished(line)
            line = [f"  {name:<4}"]
        elif token_type not in (TokenType.BOS, TokenType.EOS):
            starts_note = token_type in (TokenType.ONSET, TokenType.PITCH) and previous != TokenType.ONSET
            line.append(f"| {name}" if starts_note and len(line) > 1 else name)
        previous = token_type
    lines += _finished(line)
    return "\n".join(lines) + "\n"


def _finished(line: list[str]) -> list[str]:
    """The line as one string, with the instrument's name behind a cell; nothing for no line."""
    if not line:
        return []
    text = " ".join(line)
    if line[0].startswith("  #"):
        program = int(CANONICAL_VALUE[CANONICAL_ID[line[0].strip()]])
        text = f"{text:<{_COMMENT_COLUMN}}  ; {program_name(program)}"
    return [text]


def from_text(text: str, vocabulary: Vocabulary | None = None) -> np.ndarray:
    """Read a document from its text form.

    Args:
        text: As :func:`to_text` writes it.
        vocabulary: By default the full one.
    Returns:
        (T,) uint16 ids, from BOS to EOS.
    Raises:
        TextError: A wrong line: its number, what stands there and what may stand there.
        VocabularyError: A token that the text needs was pruned.
    """
    names: list[str] = ["BOS"]
    line_of: list[int] = [1]
    seen_header = False
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split(";")[0].split()
        if not words:
            continue
        if not seen_header:
            if " ".join(words) != HEADER:
                raise TextError(f"line {number}: {line.strip()!r} stands where {HEADER!r} must stand")
            seen_header = True
            continue
        tokens = _line_tokens(words, number)
        names += tokens
        line_of += [number] * len(tokens)
    if not seen_header:
        raise TextError(f"line 1: nothing stands where {HEADER!r} must stand")
    names.append("EOS")
    line_of.append(line_of[-1])
    ids = np.array([CANONICAL_ID[name] for name in names], dtype=np.int64)
    problems = grammar_errors(ids)
    if problems:
        at = problems[0].position
        expected = _what_may_stand(ids[:at])
        found = "the end" if names[at] == "EOS" else repr(names[at])
        raise TextError(f"line {line_of[at]}: {found} stands where {expected} may stand ({problems[0].message})")
    return (vocabulary or Vocabulary.default()).from_canonical(ids)


def _line_tokens(words: list[str], number: int) -> list[str]:
    """Token names of one line, which opens a bar or a cell.

    Raises:
        TextError: The line opens neither, holds what is no token, or parts notes where none ends.
    """
    if words[0] == "bar":
        tokens = words[2:]
        if len(words) < 3 or not words[1].isdigit():
            raise TextError(f"line {number}: {' '.join(words)!r} stands where 'bar NUMBER CHORD' may stand")
        wanted: tuple[TokenType, ...] = (TokenType.CHORD, TokenType.METER, TokenType.TEMPO)
        description = "CHORD [METER] [TEMPO]"
        groups = [tokens]
    elif words[0].startswith("#"):
        wanted = (TokenType.INSTRUMENT, TokenType.ONSET, TokenType.PITCH, TokenType.DURATION, TokenType.VELOCITY)
        description = "[T] P [D] [V]"
        groups = [list(group) for is_bar, group in groupby(words, key=lambda word: word == "|") if not is_bar]
    else:
        raise TextError(f"line {number}: {words[0]!r} stands where 'bar' or an instrument such as '#0' may stand")
    for group in groups:
        previous = -1
        for name in group:
            token_type = CANONICAL_TYPE[CANONICAL_ID[name]] if name in CANONICAL_ID else -1
            if token_type not in wanted or token_type <= previous:
                raise TextError(f"line {number}: {name!r} stands where {description} may stand")
            previous = token_type
    return [name for group in groups for name in group]


def _what_may_stand(canonical: np.ndarray) -> str:
    """The tokens that may follow, as a short list of ranges."""
    allowed = np.flatnonzero(GrammarState.after(canonical).allowed_canonical())
    parts: list[str] = []
    for _, run in groupby(enumerate(allowed), key=lambda pair: (pair[1] - pair[0], CANONICAL_TYPE[pair[1]])):
        ids = [token_id for _, token_id in run]
        first, last = CANONICAL_NAMES[ids[0]], CANONICAL_NAMES[ids[-1]]
        first, last = ("the end" if name == "EOS" else name for name in (first, last))
        parts.append(first if len(ids) == 1 else f"{first}..{last}")
    return " or ".join(parts) or "nothing"

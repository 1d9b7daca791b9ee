"""What every token knows, on a row written out by hand and on random ones."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from meloformer.midi.chords import CHORD_NAMES
from meloformer.tokens.attributes import attributes
from meloformer.tokens.decode import decode
from meloformer.tokens.grid import METER_STEPS
from meloformer.tokens.vocabulary import NOTE_TYPES, TokenType, Vocabulary
from tests.strategies import documents

OF_TOKENS = ("type", "document", "bar", "instrument", "note", "onset", "pitch", "time", "bar_of_document", "chord",
             "is_target")  # fmt: skip
#  token   document bar instrument note onset pitch time target
ROW = """
   BOS     0  0  129  -1  -1  -1   0  0
   C:maj   0  0  129  -1  -1  -1   0  1
   3/4     0  0  129  -1  -1  -1   0  1
   120     0  0  129  -1  -1  -1   0  1
   #D      0  0  128  -1  -1  -1   0  1
   T0      0  0  128   0   0  -1   0  1
   P36     0  0  128   0   0  36   0  1
   V24     0  0  128   0   0  36   0  1
   P42     0  0  128   1   0  42   0  1
   V20     0  0  128   1   0  42   0  1
   T6      0  0  128   2   6  42   6  1
   P42     0  0  128   2   6  42   6  1
   #33     0  0   33  -1  -1  -1   0  1
   T0      0  0   33   3   0  -1   0  1
   P36     0  0   33   3   0  36   0  1
   D12     0  0   33   3   0  36   0  1
   V22     0  0   33   3   0  36   0  1
   F:maj   0  1  129  -1  -1  -1  36  1
   #0      0  1    0  -1  -1  -1  36  1
   T3      0  1    0   4   3  -1  39  1
   P60     0  1    0   4   3  60  39  1
   D3      0  1    0   4   3  60  39  1
   V3      0  1    0   4   3  60  39  1
   N       0  2  129  -1  -1  -1  72  1
   EOS     0  2  129  -1  -1  -1 108  1
   SEP     1  3  129  -1  -1  -1   0  0
   2/4     1  3  129  -1  -1  -1   0  0
   120     1  3  129  -1  -1  -1   0  0
   C:maj   1  3  129  -1  -1  -1   0  1
   G:7     1  4  129  -1  -1  -1  24  1
   4/4     1  4  129  -1  -1  -1  24  1
   #1      1  4    1  -1  -1  -1  24  1
   T2      1  4    1   5   2  -1  26  1
   SEP     2  5  129  -1  -1  -1   0  0
   A:min   2  5  129  -1  -1  -1   0  0
   3/4     2  5  129  -1  -1  -1   0  0
   120     2  5  129  -1  -1  -1   0  0
   #1      2  5    1  -1  -1  -1   0  0
   T4      2  5    1   6   4  -1   4  0
   P60     2  5    1   6   4  60   4  1
   #2      2  5    2  -1  -1  -1   0  1
   C:maj   2  6  129  -1  -1  -1  36  1
   2/4     2  6  129  -1  -1  -1  36  1
   PAD    -1 -1  129  -1  -1  -1   0  0
   PAD    -1 -1  129  -1  -1  -1   0  0
"""


def test_a_row_written_out_by_hand() -> None:
    lines = [line.split() for line in ROW.strip().splitlines()]
    vocabulary = Vocabulary.default()
    facts = attributes(np.array([vocabulary.id_of(line[0]) for line in lines]), vocabulary)
    expected = np.array([[int(value) for value in line[1:]] for line in lines]).T
    names = ("document", "bar", "instrument", "note", "onset", "pitch", "time", "is_target")
    for name, column in zip(names, expected, strict=True):
        assert getattr(facts, name).tolist() == column.tolist(), name
    assert facts.bar_document.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert facts.bar_last.tolist() == [16, 22, 24, 28, 32, 40, 42]
    assert facts.bar_end_time.tolist() == [36, 72, 108, 24, 72, 36, 60]
    names = ["-1" if chord < 0 else CHORD_NAMES[chord] for chord in facts.chord.tolist()]
    of_first = ["-1", *["C:maj"] * 16, *["F:maj"] * 6, "N", "N"]
    assert names == [
        *of_first,
        "-1",
        "-1",
        "-1",
        "C:maj",
        *["G:7"] * 4,
        "-1",
        *["A:min"] * 7,
        "C:maj",
        "C:maj",
        "-1",
        "-1",
    ]
    bars = [*[0] * 17, *[1] * 6, 2, 2, *[0] * 4, *[1] * 4, *[0] * 8, 1, 1, -1, -1]
    assert facts.bar_of_document.tolist() == bars


@given(documents(), documents())
def test_facts_of_a_document_do_not_depend_on_what_stands_before_it(first: np.ndarray, second: np.ndarray) -> None:
    vocabulary = Vocabulary.default()
    alone = attributes(second, vocabulary)
    packed = attributes(np.concatenate([first, second, np.zeros(3, dtype=np.uint16)]), vocabulary)
    part = slice(len(first), len(first) + len(second))
    for name in ("type", "instrument", "onset", "pitch", "time", "bar_of_document", "chord", "is_target"):
        assert np.array_equal(getattr(packed, name)[part], getattr(alone, name)), name
    assert (packed.document[part] == 1).all()
    assert np.array_equal(packed.bar[part] - packed.bar[part][0], alone.bar)
    assert np.array_equal(packed.bar_end_time[packed.bar_document == 1], alone.bar_end_time)


@given(documents())
def test_facts_of_a_token_do_not_depend_on_what_follows(ids: np.ndarray) -> None:
    vocabulary = Vocabulary.default()
    whole = attributes(ids, vocabulary)
    cut = len(ids) // 2 + 1
    part = attributes(ids[:cut], vocabulary)
    for name in OF_TOKENS:
        assert np.array_equal(getattr(whole, name)[:cut], getattr(part, name)), name


@given(documents(), st.integers(0, 2**32 - 1))
def test_facts_of_a_token_do_not_depend_on_what_follows_against_the_grammar(ids: np.ndarray, seed: int) -> None:
    rng, vocabulary = np.random.default_rng(seed), Vocabulary.default()
    cut = int(rng.integers(1, len(ids) + 1))
    changed = np.concatenate([ids[:cut], rng.integers(1, len(vocabulary), rng.integers(1, 20))])
    before, after = attributes(ids[:cut], vocabulary), attributes(changed, vocabulary)
    for name in OF_TOKENS:
        assert np.array_equal(getattr(before, name), getattr(after, name)[:cut]), name
    num_finished = int(before.bar[-1])
    for name in ("bar_document", "bar_last", "bar_end_time"):
        assert np.array_equal(getattr(before, name)[:num_finished], getattr(after, name)[:num_finished]), name


def test_a_meter_behind_the_end_does_not_move_the_end() -> None:
    vocabulary = Vocabulary.default()
    ids = np.array([vocabulary.id_of(name) for name in ("BOS", "N", "1/4", "120", "EOS", "3/4")])
    assert attributes(ids, vocabulary).time[4] == 12


@given(documents())
def test_facts_agree_with_the_decoded_score(ids: np.ndarray) -> None:
    facts = attributes(ids, Vocabulary.default())
    score = decode(ids)
    is_pitch = facts.type == TokenType.PITCH
    assert sorted(facts.time[is_pitch].tolist()) == score.onset_ticks.tolist()
    assert facts.bar_end_time[-1] == score.end_ticks
    assert facts.note.max() + 1 == score.num_notes
    assert ((facts.note >= 0) == np.isin(facts.type, NOTE_TYPES)).all()
    lengths = np.diff(facts.bar_end_time, prepend=0)
    assert np.isin(lengths, METER_STEPS).all()


def test_a_row_of_padding_alone_has_no_targets() -> None:
    facts = attributes(np.zeros(4, dtype=np.uint16), Vocabulary.default())
    assert not facts.is_target.any()
    assert (facts.document == -1).all()

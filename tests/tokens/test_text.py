"""The text form: what it looks like, what people may change, and what a wrong line says."""

from __future__ import annotations

import numpy as np
import pytest

from meloformer.errors import TextError, VocabularyError
from meloformer.tokens.text import from_text, to_text
from meloformer.tokens.vocabulary import Vocabulary

EXAMPLE = """\
hid 1 grid=12
bar 1 C:maj 4/4 120
  #D   T0 P36 V24 | P42 V20 | T6 P42          ; Drums
  #33  T0 P36 D12 V22 | T24 P43 D14           ; Electric Bass (finger)
bar 2 F:maj
"""


def test_the_form_of_the_example() -> None:
    edited = EXAMPLE.replace("D14", "D13")
    ids = from_text(edited)
    names = [Vocabulary.default().names[token_id] for token_id in ids]
    assert names[:8] == ["BOS", "C:maj", "4/4", "120", "#D", "T0", "P36", "V24"]
    assert names[-2:] == ["F:maj", "EOS"]
    assert [line.split(";")[0].split() for line in to_text(ids).splitlines()] == [
        line.split(";")[0].split() for line in edited.splitlines()
    ]
    assert "; Electric Bass (finger)" in to_text(ids)


def test_comments_blank_lines_bar_numbers_and_spaces_are_for_people() -> None:
    loose = "; mine\n\n" + EXAMPLE.replace("bar 2", "bar 77").replace("  #33  ", "#33 ").replace(" | ", "|  |").replace(
        "|", " | "
    )
    assert np.array_equal(from_text(loose), from_text(EXAMPLE))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("hid 1 grid=12", "hid 2 grid=12", r"line 1: 'hid 2 grid=12' stands where 'hid 1 grid=12'"),
        ("bar 2 F:maj", "bar 2 F:major", r"line 5: 'F:major' stands where CHORD \[METER\] \[TEMPO\] may stand"),
        ("bar 2 F:maj", "bar 2", r"line 5: 'bar 2' stands where 'bar NUMBER CHORD' may stand"),
        (
            "bar 2 F:maj",
            "bar 2 F:maj 4/4",
            r"line 5: '4/4' stands where .*3/4 or 5/4\.\.32/16.* \(it repeats what is in force\)",
        ),
        ("bar 2 F:maj", "bars 2", r"line 5: 'bars' stands where 'bar' or an instrument such as '#0' may stand"),
        ("C:maj 4/4 120", "C:maj 4/4", r"line 3: '#D' stands where 40\.\.250 may stand"),
        ("T6 P42", "T0 P42", r"line 3: 'T0' stands where .*T1\.\.T47"),
        ("T6 P42", "P42 T6", r"line 3: 'T6' stands where \[T\] P \[D\] \[V\] may stand"),
        ("T24 P43", "P43 T24", r"line 4: 'T24' stands where \[T\] P \[D\] \[V\] may stand"),
        (" D12 V22", " V22", r"line 4: 'V22' stands where D1\.\.D384 may stand"),
        ("#33 ", "#133", r"line 4: '#133' stands where"),
        ("T24 P43", "T48 P43", r"line 4: 'T48' stands where .*T1\.\.T47.* \(it lies past the end of the bar\)"),
    ],
)
def test_a_wrong_line_says_its_number_what_stood_there_and_what_may(before: str, after: str, message: str) -> None:
    with pytest.raises(TextError, match=message):
        from_text(EXAMPLE.replace(before, after))


def test_a_document_without_bars_is_wrong() -> None:
    with pytest.raises(TextError, match=r"line 1: the end stands where N\.\.B:5 may stand"):
        from_text("hid 1 grid=12\n")
    with pytest.raises(TextError, match="line 1: nothing stands where"):
        from_text("")


def test_the_last_note_of_the_text_must_be_whole() -> None:
    with pytest.raises(TextError, match=r"line 3: the end stands where V0\.\.V31 may stand"):
        from_text("hid 1 grid=12\nbar 1 C:maj 4/4 120\n #0 T0 P60 D3")


def test_a_token_that_was_pruned_is_named() -> None:
    counts = np.ones(len(Vocabulary.default()))
    counts[Vocabulary.default().id_of("P43")] = 0
    with pytest.raises(VocabularyError, match="'P43'"):
        from_text(EXAMPLE, Vocabulary.default().pruned(counts))

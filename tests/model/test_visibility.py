"""The rules, drawn and compared with a slow reading of the text that defines them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from meloformer.errors import SettingsError
from meloformer.model.batch import Batch
from meloformer.model.visibility import (
    draw,
    finished_mask,
    own_bar_mask,
    register_family,
    regular_masks,
    summary_mask,
)
from meloformer.settings import HeadFamily, ModelSettings
from meloformer.tokens.attributes import attributes
from meloformer.tokens.vocabulary import TokenType, Vocabulary
from tests.model.paths import row_of
from tests.strategies import random_document

PIECE = "BOS N 1/4 120 #D T0 P36 V9 #0 T0 P60 D3 V9 T6 P64 N #0 T6 P64 D3 V9 EOS"


def slow_rule(row: np.ndarray, family: str, *, offsets: tuple[int, ...], type_rule: bool | str) -> np.ndarray:
    """Token by token, as the definition says it."""
    facts = attributes(row, Vocabulary.default())
    mask = np.zeros((len(row), len(row)), dtype=bool)
    for i in range(len(row)):
        for j in range(i + 1):
            same_instrument = facts.instrument[i] == facts.instrument[j]
            near = facts.bar[i] - facts.bar[j] in offsets
            is_global = facts.instrument[j] == 129
            sees = {
                "track": same_instrument,
                "onset": facts.onset[i] == facts.onset[j],
                "pitch": same_instrument and facts.pitch[i] == facts.pitch[j],
                "ensemble": near or is_global,
                "union": near or is_global or same_instrument,
            }[family]
            if type_rule and facts.note[i] >= 0 and facts.note[j] >= 0 and facts.note[i] != facts.note[j]:
                one, other = (TokenType(int(facts.type[k])).name[0] for k in (i, j))
                published = {one, other} <= {"O", "P"} or one == other == "V"
                later = one in "OV" or other in {"P": "OP", "D": "OPD"}[one]
                sees = sees and (later if type_rule == "later" else published)
            mask[i, j] = (sees and facts.document[i] == facts.document[j] and facts.document[i] >= 0) or i == j
    return mask


@pytest.mark.parametrize("type_rule", [False, True, "later"])
@pytest.mark.parametrize("family", ["union", "track", "ensemble", "onset", "pitch"])
def test_every_family_is_what_its_definition_says(family: HeadFamily, type_rule: bool | str) -> None:
    rng = np.random.default_rng(0)
    settings = ModelSettings.of_size("tiny", heads={family: 4}, type_rule=type_rule, bar_offsets=(0, 1, 3))
    for _ in range(5):
        parts = [random_document(rng, Vocabulary.default(), num_bars=5, max_tokens=40) for _ in range(2)]
        row = np.concatenate([*parts, np.zeros(3, dtype=np.uint16)])
        mask = regular_masks(Batch.of([row]), settings)[family][0].numpy()
        expected = slow_rule(row, family, offsets=(0, 1, 3), type_rule=type_rule)
        assert np.array_equal(mask, expected)


def test_summaries_see_their_bar_and_earlier_summaries_and_are_seen_when_their_bar_is_finished() -> None:
    row = row_of("BOS N 1/4 120 N N EOS BOS N 1/4 120 N EOS PAD")
    batch = Batch.of([row], num_bars=6)
    bars = ["S0", "S1", "S2", "S3", "S4", "--"]
    assert draw(summary_mask(batch)[0], bars).split() == (
        ["S0", "#.....", "S1", "##....", "S2", "###...", "S3", "...#..", "S4", "...##.", "--", ".....#"]
    )
    assert draw(own_bar_mask(batch)[0], bars).split()[1::2] == [
        "####..........",
        "....#.........",
        ".....##.......",
        ".......####...",
        "...........##.",
        "..............",
    ]
    tokens = [f"{Vocabulary.default().names[i]}" for i in row]
    assert draw(finished_mask(batch)[0], tokens).split()[1::2] == (
        ["......"] * 4 + ["#....."] + ["##...."] * 2 + ["......"] * 4 + ["...#.."] * 2 + ["......"]
    )


def test_a_summary_of_its_bar_only_sees_itself_alone() -> None:
    batch = Batch.of([row_of("BOS N 1/4 120 N N EOS BOS N 1/4 120 N EOS PAD")], num_bars=6)
    assert torch.equal(summary_mask(batch, "bar"), torch.eye(6, dtype=torch.bool)[None])


def test_a_new_family_needs_a_new_name() -> None:
    with pytest.raises(ValueError, match="already"):
        register_family("track", lambda batch: batch.instrument)
    with pytest.raises(SettingsError, match="there is no head family 'tracks'"):
        ModelSettings.of_size("tiny", heads={"tracks": 4})


GOLDEN = {
    "track": """
  BOS #
    N ##
  1/4 ###
  120 ####
   #D ....#
   T0 ....##
  P36 ....###
   V9 ....####
   #0 ........#
   T0 ........##
  P60 ........###
   D3 ........####
   V9 ........#####
   T6 ........######
  P64 ........#######
    N ####...........#
   #0 ........#######.#
   T6 ........#######.##
  P64 ........#######.###
   D3 ........#######.####
   V9 ........#######.#####
  EOS ####...........#.....#
""",
    "onset": """
  BOS #
    N ##
  1/4 ###
  120 ####
   #D #####
   T0 .....#
  P36 .....##
   V9 .....###
   #0 #####...#
   T0 .....###.#
  P60 .....###.##
   D3 .....###.###
   V9 .....###.####
   T6 .............#
  P64 .............##
    N #####...#......#
   #0 #####...#......##
   T6 .............##..#
  P64 .............##..##
   D3 .............##..###
   V9 .............##..####
  EOS #####...#......##....#
""",
    "pitch": """
  BOS #
    N ##
  1/4 ###
  120 ####
   #D ....#
   T0 ....##
  P36 ......#
   V9 ......##
   #0 ........#
   T0 ........##
  P60 ..........#
   D3 ..........##
   V9 ..........###
   T6 ..........####
  P64 ..............#
    N ####...........#
   #0 ........##......#
   T6 ........##......##
  P64 ..............#...#
   D3 ..............#...##
   V9 ..............#...###
  EOS ####...........#.....#
""",
}


@pytest.mark.parametrize("family", list(GOLDEN))
def test_the_drawn_masks_of_a_small_piece(family: HeadFamily) -> None:
    row = row_of(PIECE)
    mask = regular_masks(Batch.of([row]), ModelSettings.of_size("tiny"))[family][0]
    names = [Vocabulary.default().names[token_id] for token_id in row]
    drawn = [line.split() for line in draw(mask, names).splitlines()]
    expected = [line.split() for line in GOLDEN[family].strip().splitlines()]
    assert [name for name, _ in drawn] == [name for name, _ in expected]
    for (name, cells), (_, wanted) in zip(drawn, expected, strict=True):
        assert cells == wanted.ljust(len(row), "."), name


def test_a_drawing_can_name_its_columns() -> None:
    assert draw(torch.tensor([[True, False]]), ["a"], ["xy", "z"]) == "  x\n  yz\na #.\n"

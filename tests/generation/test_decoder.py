"""One token at a time and a whole pass: the same logits at every position."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import meloformer as mf
from experiments.families import FAMILIES
from meloformer.generation.cache import PieceCache
from meloformer.generation.decoder import Decoder
from meloformer.generation.sampling import sample
from meloformer.settings import ModelSettings
from meloformer.tokens.attributes import attributes
from meloformer.tokens.running import RunningAttributes
from meloformer.tokens.vocabulary import Vocabulary
from tests.model.paths import piece
from tests.strategies import documents

FULL = Vocabulary.default()
MASKS: dict[str, dict[str, Any]] = {
    "all families": {},
    "ensemble alone": {"heads": {"ensemble": 2}},
    "the bar before the last": {"heads": {"ensemble": 1, "track": 1}, "bar_offsets": (0, 2)},
    "the bar itself and three before": {"bar_offsets": (0, 1, 2, 4)},
    "far bars": {"heads": {"ensemble": 1, "union": 1}, "bar_offsets": (0, 3, 8)},
    "no summaries": {"heads": {"track": 1, "onset": 2, "pitch": 1}},
    "union": {"heads": {"union": 2}},
    "union and others": {"heads": {"union": 2, "track": 1, "ensemble": 1}},
    "type rule": {"type_rule": True},
    "union with type rule": {"heads": {"union": 4}, "type_rule": True},
    "later type rule": {"type_rule": "later"},
    "union with later type rule": {"heads": {"union": 4}, "type_rule": "later"},
    "summaries of their bar only": {"summaries": "bar"},
    "union with summaries of their bar only": {"heads": {"union": 2, "ensemble": 2}, "summaries": "bar"},
    "without summaries": {"summaries": "none"},
    "without summaries, far bars": {"heads": {"ensemble": 2}, "bar_offsets": (0, 3), "summaries": "none"},
    "union without summaries": {"heads": {"union": 1, "ensemble": 1}, "summaries": "none", "type_rule": "later"},
    "union alone without summaries": {"heads": {"union": 2}, "summaries": "none"},
    **{f"{family}, which is tried": {"heads": {family: 1, "ensemble": 1}} for family in FAMILIES},
    "rope by position": {"rope": "position"},
    "rope by both": {"rope": "both", "bar_offsets": (0, 1, 2, 4)},
    "rope by head": {"rope": "heads"},
    "rope by head, grouped queries": {
        "heads": {"track": 2, "ensemble": 4, "pitch": 2},
        "num_kv_heads": 4,
        "rope": "heads",
    },
    "grouped queries": {"heads": {"track": 2, "ensemble": 4, "pitch": 2}, "num_kv_heads": 4},
    "grouped queries across families": {"heads": {"track": 3, "ensemble": 3, "union": 2}, "num_kv_heads": 2},
    "one key-value head": {"heads": {"ensemble": 2, "onset": 2}, "num_kv_heads": 1, "type_rule": True},
    "shared feed-forward": {"summary_ffn": "shared"},
    "one layer": {"num_layers": 1},
}


def model_of(**changes: Any) -> mf.MeloFormer:
    torch.manual_seed(0)
    small = {"num_layers": 3, "dim": 32, "ffn_dim": 48, **changes}
    model = mf.MeloFormer(ModelSettings.of_size("tiny", **small)).eval()
    with torch.no_grad():  # as far from uniform attention as a trained model is, and norms that do something
        for name, parameter in model.named_parameters():
            parameter.mul_(1 + torch.rand_like(parameter)) if "norm" in name else parameter.mul_(8)
    return model


@torch.inference_mode()
def whole(model: mf.MeloFormer, ids: np.ndarray) -> Tensor:
    return model(mf.Batch.of([ids], model.vocabulary))[0]


def stepwise(decoder: Decoder, rows: list[np.ndarray], offset: int = 0) -> list[Tensor]:
    """The logits of several pieces, each of which starts ``offset`` steps after the one before it."""
    caches: list[PieceCache] = [decoder.new_piece() for _ in rows]
    logits: list[list[Tensor]] = [[] for _ in rows]
    for step in range(max(len(row) + offset * number for number, row in enumerate(rows))):
        at = [step - offset * number for number in range(len(rows))]
        running = [number for number, row in enumerate(rows) if 0 <= at[number] < len(row)]
        if running:
            ids = [int(rows[number][at[number]]) for number in running]
            for number, row in zip(running, decoder.step([caches[n] for n in running], ids), strict=True):
                logits[number].append(row)
    return [torch.stack(each) for each in logits]


@pytest.mark.parametrize("mask", MASKS)
def test_cached_logits_equal_a_whole_pass_whatever_the_mask(mask: str) -> None:
    model = model_of(**MASKS[mask])
    rows = [piece(1, [4, 0, 3, 6, 1, 5, 2, 7, 3, 3, 2]), piece(2, [9, 2]), piece(3, [0, 0, 0, 0, 0, 0, 2])]
    for row, found in zip(rows, stepwise(Decoder(model), rows, offset=17), strict=True):
        wanted = whole(model, row)
        assert wanted.std() > 0.5
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-5)


@settings(max_examples=12)
@given(document=documents(max_bars=7), mask=st.sampled_from(sorted(MASKS)))
def test_cached_logits_equal_a_whole_pass_on_any_document(document: np.ndarray, mask: str) -> None:
    model = model_of(**MASKS[mask])
    (found,) = stepwise(Decoder(model), [document])
    torch.testing.assert_close(found, whole(model, document), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("mask", MASKS)
def test_a_piece_that_was_read_in_one_pass_goes_on_the_same(mask: str) -> None:
    model = model_of(**MASKS[mask])
    row = piece(1, [4, 0, 3, 6, 1, 5, 2, 7])
    wanted, decoder = whole(model, row), Decoder(model)
    for start in (1, 2, 40, 101, len(row) - 2):
        cache, logits = decoder.read(row[:start])
        copied = cache.copy()
        torch.testing.assert_close(logits, wanted[start - 1], atol=1e-4, rtol=1e-5)
        for kept in (cache, copied):
            found = torch.cat([decoder.step([kept], [int(token)]) for token in row[start:]])
            torch.testing.assert_close(found, wanted[start:], atol=1e-4, rtol=1e-5)


@settings(max_examples=30)
@given(document=documents(max_bars=5))
def test_what_a_token_knows_is_told_the_same_token_by_token(document: np.ndarray) -> None:
    facts, running = attributes(document, FULL), RunningAttributes(FULL)
    names = ("type", "bar", "instrument", "note", "onset", "pitch", "time", "bar_of_document", "chord")
    for at, token in enumerate(document.tolist()):
        running.advance(token)
        told = [int(getattr(running, name)) for name in names]
        assert told == [int(getattr(facts, name)[at]) for name in names]
        read = RunningAttributes.after(document[: at + 1], FULL)
        assert vars(read) == vars(running)
        assert running.bar_end_time == attributes(document[: at + 1], FULL).bar_end_time[-1]


def test_cached_logits_equal_a_whole_pass_on_real_pieces(dev_files: list[Path]) -> None:
    model = model_of(num_layers=2, dim=64)
    rows = [mf.encode(mf.read_midi(path))[:700] for path in dev_files[::250]]
    decoder = Decoder(model)
    for row, found in zip(rows, stepwise(decoder, rows), strict=True):
        torch.testing.assert_close(found, whole(model, row), atol=1e-4, rtol=1e-5)


def test_a_row_does_not_depend_on_how_many_there_are() -> None:
    """But for rounding: the libraries of linear algebra may sum in another order where there are more rows."""
    decoder = Decoder(model_of(dim=128, ffn_dim=96))
    rows = [piece(seed, [3, 5, 2]) for seed in range(9)]
    together = stepwise(decoder, rows)
    for number in (0, 5, 8):
        alone = stepwise(decoder, rows[number : number + 1])[0]
        torch.testing.assert_close(alone, together[number], rtol=1e-5, atol=1e-5)
        chosen = []
        for logits in (alone, together[number]):
            rng = np.random.default_rng(number)
            chosen.append([sample(each, rng) for each in logits.double().softmax(-1).numpy()])
        assert chosen[0] == chosen[1]


def test_memory_grows_with_what_can_still_be_seen() -> None:
    num_bars, sizes = 48, {}
    row = piece(1, [8] * num_bars)
    for family in ("ensemble", "track"):
        decoder = Decoder(model_of(heads={family: 1}, dim=16))
        cache, sizes[family] = decoder.new_piece(), {}
        for at, token in enumerate(row.tolist()):
            decoder.step([cache], [token])
            sizes[family][at] = cache.num_bytes
    at_first, at_last = len(row) // 4, len(row) - 1
    token_bytes = 3 * 2 * 16 * 4  # layers, key and value, width, fp32
    assert sizes["track"][at_last] > 3 * sizes["track"][at_first]
    assert sizes["track"][at_last] < 1.6 * token_bytes * len(row)
    assert sizes["ensemble"][at_last] < 2 * sizes["ensemble"][at_first]
    # A bar has 4 tokens a note and 4 others; one bar twice, and for its summary too; globals and summaries.
    assert sizes["ensemble"][at_last] < 1.6 * token_bytes * (3 * (4 * 8 + 4) + 3 * num_bars)

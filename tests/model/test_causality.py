"""The gate: whatever is changed behind a token, its logits stay, under every setting.

On the dense reference they stay bit for bit. The sparse path cuts its tiles by all tokens of a row, and so changes the
order of summation: there they stay up to rounding.

And its companion: a document's logits do not depend on what else is in the row or in the batch. Both are tried on
models that are broken on purpose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from meloformer.midi.read import read_midi
from meloformer.model import dense, tiling, visibility, windows
from meloformer.model.batch import Batch
from meloformer.settings import HeadFamily, ModelSettings
from meloformer.tokens.encode import encode
from meloformer.tokens.vocabulary import TokenType, Vocabulary
from tests.model.leaks import ROUNDING, depends_on_company, documents, leaks, logits_of, model_of, two_rows

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "type rule": {"type_rule": True},
    "union": {"heads": {"union": 2}},
    "union with type rule": {"heads": {"union": 2}, "type_rule": True},
    "track": {"heads": {"track": 2}},
    "ensemble": {"heads": {"ensemble": 2}},
    "ensemble with type rule": {"heads": {"ensemble": 2}, "type_rule": True},
    "onset": {"heads": {"onset": 2}},
    "pitch": {"heads": {"pitch": 2}},
    "later type rule": {"type_rule": "later"},
    "union with later type rule": {"heads": {"union": 2}, "type_rule": "later"},
    "summaries of their bar only": {"summaries": "bar"},
    "union with summaries of their bar only": {"heads": {"union": 2}, "summaries": "bar"},
    "no summaries": {"summaries": "none"},
    "union without summaries": {"heads": {"union": 2}, "summaries": "none"},
    "some bars": {"bar_offsets": (0, 1, 2, 4)},
    "far bars": {"bar_offsets": (0, 1, 2, 4, 8)},
    "position": {"rope": "position"},
    "both": {"rope": "both"},
    "heads": {"rope": "heads"},
    "shared": {"summary_ffn": "shared"},
    "grouped": {"heads": {"track": 2, "union": 2}, "num_kv_heads": 2},
    "grouped across families": {"heads": {"track": 3, "ensemble": 3, "onset": 2}, "num_kv_heads": 2},
}
FAMILIES: tuple[HeadFamily, ...] = ("union", "track", "ensemble", "onset", "pitch")
PATHS = ["dense", "sparse"]
HAVE_NO_SPARSE_FORM = {name for name, s in SETTINGS.items() if s.get("type_rule") or "union" in s.get("heads", {})}
ON_EVERY_PATH = [
    (name, path) for name in SETTINGS for path in PATHS if path == "dense" or name not in HAVE_NO_SPARSE_FORM
]


@pytest.mark.parametrize(("name", "path"), ON_EVERY_PATH)
def test_no_logit_changes_when_what_follows_changes(name: str, path: str) -> None:
    assert leaks(model_of(**SETTINGS[name], attention=path), two_rows()) == []


@st.composite
def mask_settings(draw: st.DrawFn) -> dict[str, Any]:
    path = draw(st.sampled_from(PATHS))
    families = FAMILIES if path == "dense" else FAMILIES[1:]
    num_kv_heads = draw(st.sampled_from([1, 2, 4]))
    heads = Counter(draw(st.lists(st.sampled_from(families), min_size=4, max_size=4)))
    return {
        "attention": path,
        "heads": dict(heads),
        "num_kv_heads": num_kv_heads,
        "type_rule": path == "dense" and draw(st.sampled_from([False, True, "later"])),
        "summaries": draw(st.sampled_from(["full", "bar", "none"])),
        "bar_offsets": tuple(sorted({0, *draw(st.lists(st.integers(1, 9), max_size=3))})),
        "rope": draw(st.sampled_from(["position", "time", "both", *(["heads"] if num_kv_heads > 1 else [])])),
        "summary_ffn": draw(st.sampled_from(["own", "shared"])),
    }


@hypothesis.settings(max_examples=25)
@hypothesis.given(mask_settings(), st.integers(0, 2**32 - 1), st.floats(0.05, 0.98))
def test_no_mix_of_settings_leaks(settings: dict[str, Any], seed: int, share: float) -> None:
    rows = [np.concatenate(documents(seed + k, 2, num_bars=4, max_tokens=50)) for k in range(2)]
    assert leaks(model_of(**settings), rows, (share,), seed) == []


@pytest.mark.parametrize(
    ("name", "path"),
    [("default", "dense"), ("default", "sparse"), ("some bars", "sparse"), ("union with type rule", "dense")],
)
def test_no_real_music_leaks(name: str, path: str, dev_files: list[Path]) -> None:
    by_source = {path.parent.name: path for path in dev_files}
    rows = [encode(read_midi(path)).astype(np.int64)[:600] for path in by_source.values()]
    rows = [row for row in rows if len(row) == 600][:6]
    assert len(rows) >= 4
    assert leaks(model_of(**SETTINGS[name], attention=path), rows, (0.5,)) == []


def test_the_number_of_bar_slots_changes_nothing_but_rounding() -> None:
    model = model_of()
    rows = documents(7, 2)
    torch.testing.assert_close(
        logits_of(model, rows), logits_of(model, rows, same_shape=False), rtol=ROUNDING, atol=ROUNDING
    )


@pytest.mark.parametrize(("name", "path"), ON_EVERY_PATH)
def test_a_document_is_the_same_alone_packed_and_in_a_batch(name: str, path: str) -> None:
    assert not depends_on_company(model_of(**SETTINGS[name], attention=path))


def _unfinished(batch: Batch) -> Tensor:
    bars = torch.arange(batch.bar_document.shape[1])
    return (bars <= batch.bar[:, :, None]) & (batch.document[:, :, None] == batch.bar_document[:, None, :])


def _of_all_documents(batch: Batch) -> Tensor:
    return torch.arange(batch.bar_document.shape[1]) < batch.bar[:, :, None]


def _next_bar_too(batch: Batch) -> Tensor:
    own = visibility.own_bar_mask(batch)
    return own | own.roll(-1, dims=1)


def _one_token_ahead(batch: Batch, settings: ModelSettings) -> dict[HeadFamily, Tensor]:
    ahead = torch.eye(batch.ids.shape[1], dtype=torch.bool).roll(1, dims=1)
    return {family: mask | ahead for family, mask in visibility.regular_masks(batch, settings).items()}


def _first_row_for_all(batch: Batch, settings: ModelSettings) -> dict[HeadFamily, Tensor]:
    return {family: mask[:1].expand_as(mask) for family, mask in visibility.regular_masks(batch, settings).items()}


def _across_documents(batch: Batch) -> Tensor:
    return torch.ones(2 * batch.ids.shape[1:], dtype=torch.bool).tril().expand(len(batch.ids), -1, -1)


LEAKS: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "summaries of unfinished bars are read": (dense, "finished_mask", _unfinished),
    "summaries gather the next bar": (dense, "own_bar_mask", _next_bar_too),
    "summaries see later summaries": (dense, "summary_mask", lambda b, *_: torch.ones(1, 1, 1).bool().expand(
        len(b.ids), b.bar_document.shape[1], b.bar_document.shape[1])),
    "tokens see the next one": (dense, "regular_masks", _one_token_ahead),
}  # fmt: skip
INTRUSIONS: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "the first piece's mask serves the batch": (dense, "regular_masks", _first_row_for_all),
    "tokens see other documents": (visibility, "past_of_document", _across_documents),
    "summaries of other documents are read": (dense, "finished_mask", _of_all_documents),
}


def _without_masks(tiles: tiling.Collector, start: int, stop: int, parts: list[tiling.Part]) -> None:
    ADD(tiles, start, stop, [(low, high, None) for low, high, _ in parts])


def _rules_of_unfinished(rules: Any, places: windows.Places, bar_offsets: tuple[int, ...]) -> None:
    RULES(rules, places, bar_offsets)
    rules.is_finished[1] = True  # bar offset 0


def _keys_of_all_documents(places: windows.Places, key: np.ndarray) -> np.ndarray:
    return np.where(places.document == -1, int(key.max()) + 1, key)


ADD, RULES = tiling.Collector.add, windows._Rules.__init__
SPARSE_LEAKS: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "nothing in a tile is hidden": (tiling.Collector, "add", _without_masks),
    "summaries of unfinished bars are read": (windows._Rules, "__init__", _rules_of_unfinished),
}
SPARSE_INTRUSIONS: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "documents share keys": (windows.Places, "keys", _keys_of_all_documents),
}


@pytest.mark.parametrize("name", SPARSE_LEAKS)
def test_the_gate_catches_a_leak_of_the_sparse_path(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*SPARSE_LEAKS[name])
    assert leaks(model_of(attention="sparse"), documents(3, 1)) != []


@pytest.mark.parametrize("name", SPARSE_INTRUSIONS)
def test_the_companion_catches_an_intrusion_of_the_sparse_path(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*SPARSE_INTRUSIONS[name])
    assert depends_on_company(model_of(attention="sparse"))


@pytest.mark.parametrize("name", LEAKS)
def test_the_gate_catches_a_leak(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one is the mistake of the first public implementation."""
    monkeypatch.setattr(*LEAKS[name])
    assert leaks(model_of(), documents(3, 1)) != []


@pytest.mark.parametrize("name", INTRUSIONS)
def test_the_companion_catches_an_intrusion(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*INTRUSIONS[name])
    assert depends_on_company(model_of())


@pytest.mark.parametrize(
    ("name", "path"),
    [("default", "dense"), ("default", "sparse"), ("union with type rule", "dense"), ("grouped", "dense")],
)
def test_no_gradient_reaches_a_later_token(name: str, path: str) -> None:
    model = model_of(**SETTINGS[name], attention=path)
    row = documents(4, 1, num_bars=4, max_tokens=40)[0]
    batch = Batch.of([row])
    embedded = model.token_embedding(batch.ids).detach().requires_grad_()
    model.token_embedding.register_forward_hook(lambda *_: embedded)
    logits = model(batch)
    for position in range(0, len(row) - 1, 5):
        (gradient,) = torch.autograd.grad(logits[0, position].square().sum(), embedded, retain_graph=True)
        assert gradient[0, position + 1 :].abs().max() == 0
        assert gradient[0, position].abs().max() > 0


def test_finished_bars_are_read_from_afar() -> None:
    """A token of the last bar depends on the first bar through the summaries alone."""
    model = model_of(heads={"ensemble": 2}, bar_offsets=(0,))
    row = documents(6, 1, num_bars=6)[0]
    vocabulary = Vocabulary.default()
    note = int(np.argmax(vocabulary.types[row] == TokenType.PITCH))
    changed = row.copy()
    changed[note] = vocabulary.id_of("P7") if row[note] != vocabulary.id_of("P7") else vocabulary.id_of("P8")
    last = len(row) - 2
    assert not torch.equal(logits_of(model, [row])[0, last], logits_of(model, [changed])[0, last])

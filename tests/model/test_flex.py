"""The FlexAttention path against the dense reference: outputs, gradients, and what it refuses."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch.nn.attention import flex_attention as flex_module
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from meloformer.errors import SettingsError
from meloformer.model import flex
from meloformer.model.batch import Batch
from meloformer.model.dense import DensePath
from meloformer.model.flex import FlexPath
from meloformer.model.layout import DENSE_UP_TO, Layout
from meloformer.model.meloformer import MeloFormer
from meloformer.settings import HeadFamily, ModelSettings
from tests.model.paths import (
    ALL_FAMILIES,
    BATCHES,
    NAMES,
    PRECISION,
    Outcome,
    assert_close,
    inputs_of,
    outcome,
    piece,
    random_row,
    settings_of,
)

HEADS: tuple[dict[HeadFamily, int], ...] = (
    ALL_FAMILIES,
    {"union": 2, "track": 2},
    {"track": 3, "ensemble": 2, "union": 3},
)
NO_SUMMARIES = {"summaries": "none"}
compiling = [
    pytest.mark.usefixtures("fresh_compiler"),
    # PyTorch warns of itself where it imports its compiler.
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"),
]
on_a_cpu = [
    *compiling,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("g++") or shutil.which("clang++")), reason="compiling for a CPU needs a C++ compiler"
    ),
]
on_cuda = [
    *compiling,
    pytest.mark.filterwarnings("default"),  # PyTorch's compiler gives advice, as to allow TF32
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="FlexAttention has gradients on CUDA only; none here"),
]


def marked(marks: list[pytest.MarkDecorator]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Put all marks on a test."""
    return lambda test: reduce(lambda done, mark: mark(done), marks, test)


def settings_with(heads: dict[HeadFamily, int], head_dim: int = 32, **changes: Any) -> ModelSettings:
    return settings_of(heads=heads, dim=head_dim * sum(heads.values()), attention="flex", **changes)


def masked_attention(query: Tensor, key: Tensor, value: Tensor, *, block_mask: BlockMask, enable_gqa: bool) -> Tensor:
    """What the kernel computes, with gradients on a CPU: only pairs in listed blocks, with the mask in partial ones."""
    num_queries, num_keys = query.shape[2], key.shape[2]
    nothing = torch.zeros((), dtype=torch.int64)
    sees = block_mask.mask_mod(nothing, nothing, torch.arange(num_queries)[:, None], torch.arange(num_keys))
    sees = sees & _grid(block_mask.kv_num_blocks, block_mask.kv_indices)
    assert block_mask.full_kv_num_blocks is not None
    assert block_mask.full_kv_indices is not None
    sees = sees | _grid(block_mask.full_kv_num_blocks, block_mask.full_kv_indices)
    return scaled_dot_product_attention(query, key, value, attn_mask=sees, enable_gqa=enable_gqa)


def _grid(counts: Tensor, columns: Tensor) -> Tensor:
    """(Q, R) bool, whether a pair lies in a listed block."""
    grid = torch.zeros(columns.shape[-2:], dtype=torch.bool)
    for row, (count, listed) in enumerate(zip(counts[0, 0], columns[0, 0], strict=True)):
        grid[row, listed[:count].long()] = True
    return grid.repeat_interleave(128, 0).repeat_interleave(128, 1)


@pytest.fixture
def with_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex, "compiled", lambda: masked_attention)
    monkeypatch.setattr(flex, "HAVE_GRADIENTS", ("cpu",))


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex, "compiled", lambda: flex_module.flex_attention)
    monkeypatch.setattr(flex_module, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """Forget what was compiled, before and after; settings of the compiler too."""
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=False, recompile_limit=8):
        torch.compiler.reset()
        flex.compiled.cache_clear()
        yield
        torch.compiler.reset()
        flex.compiled.cache_clear()


def dense_outcome(batch: Batch, settings: ModelSettings, inputs: list[Tensor]) -> Outcome:
    """Of the reference in fp64, on the CPU."""
    on_cpu = replace(batch, **{name: value.cpu() for name, value in vars(batch).items() if isinstance(value, Tensor)})
    return outcome(DensePath.of(on_cpu, settings, torch.float64), [each.cpu().double() for each in inputs])


def assert_outputs(
    rows: list[np.ndarray], settings: ModelSettings, dtype: torch.dtype = torch.float32, length: int | None = None
) -> None:
    """Compare outputs alone with the reference in fp64."""
    batch = Batch.of(rows, length=length)
    inputs = inputs_of(batch, settings, dtype)
    with torch.no_grad():
        found = outputs_of(FlexPath.of(batch, settings), inputs)
        wanted = outputs_of(DensePath.of(batch, settings, torch.float64), [each.double() for each in inputs])
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == dtype
        assert one.isfinite().all()
        assert float((one.double() - other).abs().max()) <= PRECISION[dtype] * float(other.abs().max())


def outputs_of(path: FlexPath | DensePath, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
    query, key, value, summary_query, summary_key, summary_value, second_key, second_value = inputs
    return (
        path.summarise(summary_query, summary_key, summary_value, key, value),
        path.update(query, key, value, second_key, second_value),
    )


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("changes", [{}, {"type_rule": True}, {"type_rule": "later", "summaries": "bar"}, NO_SUMMARIES])
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("name", ["random", "nothing but padding", "one token", "bars of one token"])
def test_outputs_are_those_of_the_reference(name: str, heads: dict[HeadFamily, int], changes: dict[str, Any]) -> None:
    assert_outputs(BATCHES[name], settings_with(heads, **changes))


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("head_dim", [32, 64])
@pytest.mark.parametrize(
    ("heads", "num_kv_heads"),
    [(ALL_FAMILIES, 2), ({"track": 3, "ensemble": 3, "union": 2}, 4), ({"ensemble": 5, "pitch": 1}, 2)],
)
def test_shared_keys_are_exact(heads: dict[HeadFamily, int], num_kv_heads: int, head_dim: int) -> None:
    assert_outputs(BATCHES["random"], settings_with(heads, head_dim, num_kv_heads=num_kv_heads))


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_exact_to_its_precision(dtype: torch.dtype) -> None:
    assert_outputs(BATCHES["random"], settings_with(ALL_FAMILIES, num_kv_heads=2), dtype)


@pytest.mark.usefixtures("with_gradients")
@pytest.mark.parametrize("name", BATCHES)
def test_gradients_find_their_way_back_through_every_layout(name: str) -> None:
    for heads in HEADS:
        for num_kv_heads in (1, 2):
            settings = settings_with(heads, 8, num_kv_heads=num_kv_heads)
            batch = Batch.of(BATCHES[name])
            inputs = inputs_of(batch, settings, torch.float32)
            found = outcome(FlexPath.of(batch, settings), inputs)
            assert_close(found, dense_outcome(batch, settings, inputs), torch.float32)


@pytest.mark.usefixtures("uncompiled")
def test_queries_decide_the_dtype_of_the_kernel() -> None:
    batch, settings = Batch.of(BATCHES["random"]), settings_with(ALL_FAMILIES)
    path, inputs = FlexPath.of(batch, settings), inputs_of(batch, settings, torch.float32)
    mixed = [each.bfloat16() if name.endswith("query") else each for name, each in zip(NAMES, inputs, strict=True)]
    with torch.no_grad():
        for found, wanted in zip(
            outputs_of(path, mixed), outputs_of(path, [i.bfloat16() for i in inputs]), strict=True
        ):
            assert torch.equal(found, wanted)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("attention_dtype", ["auto", "fp32"])
def test_a_model_has_the_same_logits_on_both_paths(attention_dtype: str) -> None:
    torch.manual_seed(0)
    batch = Batch.of([random_row(1), random_row(2)])
    model = MeloFormer(settings_with(ALL_FAMILIES, num_layers=3, attention_dtype=attention_dtype)).eval()
    with torch.no_grad():
        flexible = model(batch)
        dense = model(batch, Layout.of(batch, settings_with(ALL_FAMILIES).model_copy(update={"attention": "dense"})))
        half = model.bfloat16()(batch)
    torch.testing.assert_close(flexible, dense, rtol=1e-5, atol=1e-5)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), dense, rtol=0.05, atol=0.05)


def test_gradients_on_a_cpu_are_refused() -> None:
    batch, settings = Batch.of(BATCHES["random"]), settings_with(ALL_FAMILIES)
    with pytest.raises(SettingsError, match=r"no gradients on the device 'cpu'.*model.attention=auto"):
        outcome(FlexPath.of(batch, settings), inputs_of(batch, settings, torch.float32))
    with pytest.raises(SettingsError, match="no gradients on the device 'cpu'"):
        MeloFormer(settings)(batch)


def test_heads_that_are_too_narrow_for_the_kernels_are_refused() -> None:
    with pytest.raises(SettingsError, match="no heads of width 8"):
        Layout.of(Batch.of(BATCHES["random"]), settings_with(ALL_FAMILIES, 8))


def test_auto_never_takes_it_on_a_cpu() -> None:
    batch = Batch.of([random_row(1)], length=DENSE_UP_TO + 1)
    for changes in ({}, {"heads": {"union": 4}}, {"type_rule": True}):
        settings = settings_of(dim=128, **changes)
        assert settings.attention == "auto"
        assert not isinstance(Layout.of(batch, settings).path, FlexPath)


@marked(on_a_cpu)
def test_recompiling_without_end_is_an_error_in_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex, "MOST_KERNELS", 1)
    flex.compiled.cache_clear()
    torch._dynamo.reset()

    def attend(num_tokens: int) -> None:
        query, key, value = torch.randn(3, num_tokens, 2, 16)
        everything = create_block_mask(lambda *_: torch.ones((), dtype=torch.bool), 1, 1, num_tokens, num_tokens, "cpu")
        flex.attend(query, key, value, everything)

    attend(128)
    with ThreadPoolExecutor(1) as other, pytest.raises(FailOnRecompileLimitHit):
        other.submit(attend, 256).result()
    flex.compiled.cache_clear()
    assert not torch._dynamo.config.fail_on_recompile_limit_hit


@marked(on_a_cpu)
def test_compiled_outputs_are_those_of_the_reference_and_other_music_compiles_nothing() -> None:
    settings = settings_with({"track": 1, "ensemble": 2, "union": 1}, num_kv_heads=2)
    assert_outputs([random_row(1), random_row(2)], settings, length=640)
    with torch.compiler.set_stance("fail_on_recompile"):
        for seed in range(3, 9):
            assert_outputs([random_row(seed, seed % 4 + 1), piece(seed, [seed] * 12)], settings, length=640)


@marked(on_cuda)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("type_rule", [False, True])
def test_compiled_gradients_are_those_of_the_reference(
    heads: dict[HeadFamily, int], type_rule: bool, dtype: torch.dtype
) -> None:
    for name in ("random", "rows of different pieces, one mostly padding", "twenty instruments"):
        for head_dim, num_kv_heads in ((32, 2), (64, 4)):
            num_kv_heads = min(num_kv_heads, sum(heads.values()))
            settings = settings_with(heads, head_dim, num_kv_heads=num_kv_heads, type_rule=type_rule)
            batch = Batch.of(BATCHES[name], device="cuda")
            inputs = [each.cuda() for each in inputs_of(batch, settings, dtype)]
            found = outcome(FlexPath.of(batch, settings), inputs)
            assert_close(found, dense_outcome(batch, settings, inputs), dtype)


@marked(on_cuda)
def test_twenty_batches_of_different_music_compile_nothing_after_the_first() -> None:
    settings = settings_with(ALL_FAMILIES, num_layers=2, num_kv_heads=2)
    model = MeloFormer(settings).cuda().bfloat16()
    for seed in range(20):
        rows = [random_row(seed, seed % 4 + 1), piece(seed, [seed % 7] * 30)]
        with torch.compiler.set_stance("fail_on_recompile" if seed else "default"):
            model(Batch.of(rows, length=1024, device="cuda")).float().square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


@marked(on_cuda)
def test_recomputed_layers_have_the_same_gradients() -> None:
    torch.manual_seed(0)
    settings = settings_with(ALL_FAMILIES)
    batch, layer = Batch.of([random_row(1)], device="cuda"), MeloFormer(settings).cuda().layers[0]
    layout = Layout.of(batch, settings)
    regular = torch.randn(*batch.ids.shape, settings.dim, device="cuda", requires_grad=True)
    summary = torch.randn(*batch.bar_document.shape, settings.dim, device="cuda", requires_grad=True)
    kept = torch.autograd.grad(layer(regular, summary, layout)[0].square().sum(), [regular, summary])
    again = checkpoint(layer, regular, summary, layout, use_reentrant=False)
    recomputed = torch.autograd.grad(again[0].square().sum(), [regular, summary])  # pyright: ignore[reportOptionalSubscript]
    for one, other in zip(kept, recomputed, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@marked(on_cuda)
def test_auto_takes_it_on_cuda_but_for_short_rows_and_for_generation() -> None:
    short, long = (Batch.of([random_row(1, 1)], length=n, device="cuda") for n in (DENSE_UP_TO, DENSE_UP_TO + 1))
    for changes in ({}, {"heads": {"union": 4}}, {"type_rule": True}):
        settings = settings_of(dim=128, **changes)
        assert isinstance(Layout.of(short, settings).path, DensePath)
        assert isinstance(Layout.of(long, settings).path, FlexPath)
        with torch.inference_mode():
            assert not isinstance(Layout.of(long, settings).path, FlexPath)
    assert not isinstance(Layout.of(long, settings_of(dim=32)).path, FlexPath)

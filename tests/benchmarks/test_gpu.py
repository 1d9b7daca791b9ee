"""The benchmark of a GPU, as far as it goes without one."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import gpu
from benchmarks.plain import PlainTransformer
from meloformer.model.batch import Batch
from meloformer.model.block_masks import BLOCK
from meloformer.model.meloformer import MeloFormer
from meloformer.model.stretches import padded_slots
from meloformer.model.visibility import finished_mask, own_bar_mask, regular_masks, summary_mask
from meloformer.settings import ModelSettings
from meloformer.tokens.vocabulary import Vocabulary
from meloformer.training.loss import target_losses


def contest(length: int = 256, **changes: Any) -> gpu.Contest:
    settings = ModelSettings.of_size("tiny", num_layers=2, attention="sparse", **changes)
    vocabulary = Vocabulary.default()
    return gpu.Contest(gpu.batch_of(None, vocabulary, length, 2, torch.device("cpu")), settings, vocabulary)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_without_cuda_it_says_so_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main([])
    assert capsys.readouterr().out == "there is no CUDA device here: nothing is measured\n"


def test_it_needs_no_package_that_reads_music_or_shards() -> None:
    missing = ("symusic", "mido", "music21", "zstandard", "safetensors", "matplotlib", "typer", "rich")
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({missing})); import benchmarks.gpu; benchmarks.gpu.main([])"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_it_measures_both_models(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(["--device", "cpu", "--size", "tiny", "--shapes", "64x2", "--repeats", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("cpu, torch ")
    cells = [cell.strip() for cell in lines[-1].split("|")[1:-1]]
    assert len(cells) == len(gpu.COLUMNS)
    assert cells[0] == "64 x 2"
    assert all(int(cell.replace(",", "")) > 0 for cell in cells[1:3])


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", ["plain", "ours"])
@pytest.mark.parametrize("changes", [{}, {"num_kv_heads": 2}, {"summary_ffn": "shared"}])
def test_products_are_counted_as_pytorch_counts_them(kind: str, changes: dict[str, Any]) -> None:
    given = contest(**changes)
    model = (PlainTransformer if kind == "plain" else MeloFormer)(given.settings, given.vocabulary)
    with FlopCounterMode(display=False) as counter:
        layout = gpu.Layout.of(given.batch, given.settings)
        target_losses(model(given.batch, layout), given.batch).mean().backward()
    counted = counter.get_flop_counts()["Global"]
    assert given.linear_flops(kind) == counted[torch.ops.aten.mm] + counted[torch.ops.aten.addmm]
    if kind == "ours":  # tiles compute some pairs that are hidden
        assert 0.2 * counted[torch.ops.aten.bmm] < given.attention_flops(kind) < counted[torch.ops.aten.bmm]


def test_visible_pairs_are_those_of_the_dense_rules() -> None:
    given = contest(length=BLOCK)
    batch: Batch = given.batch
    masks = regular_masks(batch, given.settings)
    wanted = sum(count * int(masks[family].sum()) for family, count in given.settings.heads.items())
    wanted += given.settings.heads["ensemble"] * int(finished_mask(batch).sum())
    wanted += given.settings.num_heads * int(summary_mask(batch).sum() + own_bar_mask(batch).sum())
    padding = given.settings.num_heads * (padded_slots(0, batch.ids.numel()) - batch.bar_document.numel())
    assert gpu.visible_pairs(batch, given.settings) == wanted + padding

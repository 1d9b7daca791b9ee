"""Memory of a training step on a GPU, predicted on any machine: beside what was published, real tensors, and a GPU.

python -m benchmarks.gpu_memory           print the tables; on a GPU also what is measured there
python -m benchmarks.gpu_memory --write   put them into docs/benchmarks.md too

On a CPU a real step and one without content are tracked, which must take the same: once with the kernels for CUDA stood
in for, as the prediction has it, and once on the path for CPUs.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from datetime import UTC, datetime

import torch

from benchmarks.measure import machine, table, tell
from meloformer.bench.fits import GIB, MIB, PUBLISHED
from meloformer.bench.memory import peak_step_bytes
from meloformer.bench.prediction import predict_memory
from meloformer.bench.tracking import Trial, tensors_of, track_step
from meloformer.bench.workload import made_up_rows
from meloformer.errors import OutOfMemoryError
from meloformer.model.batch import Batch
from meloformer.model.layout import Layout
from meloformer.settings import Settings
from meloformer.settings_file import load_settings

CHECKPOINTING = ("none", "ffn", "attention", "full")
WANTED = {("small", 16384, 1): "3.7", ("small", 24576, 1): "5.6", ("small", 131072, 1): "30", ("base", 8192, 4): "15"}
"""GiB at most; of the same goals in GB, 4, 6, 32 and 16."""
MEASURED = (
    ("small", 4096, 2, "none"), ("small", 4096, 8, "full"), ("small", 16384, 1, "none"), ("small", 16384, 1, "ffn"),
    ("small", 24576, 1, "none"), ("small", 65536, 1, "full"), ("base", 4096, 2, "none"), ("base", 8192, 4, "ffn"),
    ("base", 16384, 1, "attention"), ("large", 4096, 1, "none"),
)  # fmt: skip
"""Size, tokens in a row, rows, checkpointing: ten settings to measure on a GPU."""
TRACKED = (
    ("tiny", 2048, 2, "none", "muon", "bf16"), ("tiny", 4096, 1, "ffn", "adamw", "bf16"),
    ("tiny", 4096, 2, "attention", "muon", "bf16"), ("tiny", 8192, 1, "full", "adamw", "bf16"),
    ("tiny", 4096, 1, "none", "muon", "fp32"), ("small", 2048, 1, "none", "muon", "bf16"),
    ("small", 2048, 2, "ffn", "adamw", "bf16"), ("small", 4096, 1, "full", "muon", "fp32"),
)  # fmt: skip
"""The same, optimiser and precision: settings for which a CPU has the memory."""


def settings_of(
    size: str, seq_len: int, rows: int, mode: str, optimizer: str = "muon", precision: str = "bf16"
) -> Settings:
    """Of one step."""
    return load_settings(
        None,
        [f"model.size={size}", f"bench.seq_len={seq_len}", f"bench.batch_size={rows}", f"model.checkpointing={mode}",
         f"training.optimizer={optimizer}", f"training.precision={precision}"],
    )  # fmt: skip


def published_table() -> str:
    """Tensors of a step, in GiB, beside what was published and what is wanted."""
    shapes: list[tuple[str, int, int, str]]
    shapes = [(each.size, each.seq_len, each.batch_size, each.memory) for each in PUBLISHED]
    shapes.insert(3, ("small", 131072, 1, ""))
    rows: list[list[str]] = []
    for size, seq_len, count, was in shapes:
        cells = [predict_memory(settings_of(size, seq_len, count, mode, "adamw")).total / GIB for mode in CHECKPOINTING]
        wanted = WANTED.get((size, seq_len, count), "")
        rows.append([named(size, seq_len, count), *(f"{cell:.2f}" for cell in cells), wanted, was])
    columns = ("size, tokens x rows", *(f"`{mode}`" for mode in CHECKPOINTING), "wanted at most", "published")
    return table(columns, rows)


def tracked_table() -> str:
    """What the tracker finds of real tensors and of such without content, in MiB."""
    torch.set_num_threads(1)  # the tracker sees its own thread only
    rows = []
    for size, seq_len, count, mode, optimizer, precision in TRACKED:
        settings = settings_of(size, seq_len, count, mode, optimizer, precision)
        ids, vocabulary = made_up_rows(settings)
        trial = Trial(settings.model, settings.training, vocabulary, Batch.of(ids))
        for_cuda = replace(trial, model=settings.model.model_copy(update={"attention": "flex"}))
        real = sum(track_step(for_cuda).peak.values())
        predicted = predict_memory(settings).total
        on_cpu = replace(trial, model=settings.model.model_copy(update={"attention": "sparse"}), for_cuda=False)
        real_cpu = sum(track_step(on_cpu).peak.values())
        layout = Layout.of(trial.batch, on_cpu.model)
        fake_cpu = sum(track_step(replace(on_cpu, layout=layout)).peak.values())
        fake_cpu += sum(tensor.nbytes for tensor in tensors_of(layout))
        rows.append(
            [f"{named(size, seq_len, count)}, `{mode}`, {optimizer}, {precision}", f"{real / MIB:.1f}",
             f"{predicted / MIB:.1f}", f"{predicted / real - 1:+.2%}", f"{real_cpu / MIB:.1f}", f"{fake_cpu / MIB:.1f}",
             f"{fake_cpu / real_cpu - 1:+.2%}"]
        )  # fmt: skip
    return table(
        ["", "as on CUDA: real", "predicted", "off by", "as on a CPU: real", "without content", "off by"], rows
    )


def measured_table(device: torch.device) -> str:
    """Prediction beside the peak of PyTorch's allocator, on a GPU."""
    rows = []
    for size, seq_len, count, mode in MEASURED:
        settings = settings_of(size, seq_len, count, mode)
        predicted = predict_memory(settings).total
        cells = [f"{named(size, seq_len, count)}, `{mode}`", f"{predicted / GIB:.2f}"]
        try:
            measured = peak_step_bytes(settings, None, device)
        except OutOfMemoryError:
            rows.append([*cells, "out of memory", ""])
        else:
            rows.append([*cells, f"{measured / GIB:.2f}", f"{predicted / measured - 1:+.1%}"])
    head = f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}; {datetime.now(UTC):%Y-%m-%d}; GiB."
    return f"{head}\n\n{table(['', 'predicted', 'measured', 'off by'], rows)}"


def named(size: str, seq_len: int, rows: int) -> str:
    """``small, 4,096 x 2``."""
    return f"{size}, {seq_len:,} x {rows}"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    arguments = parser.parse_args()
    head = f"{machine('torch')}; {datetime.now(UTC):%Y-%m-%d}; `python -m benchmarks.gpu_memory`"
    sections = {
        "gpu-memory": f"{head}; tensors of a step, in GiB; AdamW.\n\n{published_table()}",
        "gpu-memory-tracked": f"{head}; MiB.\n\n{tracked_table()}",
    }
    if torch.cuda.is_available():
        sections["gpu-memory-measured"] = measured_table(torch.device("cuda"))
    for name, text in sections.items():
        tell(text, name, write=arguments.write)


if __name__ == "__main__":
    main()

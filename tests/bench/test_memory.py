"""The peak is that of the step, not that of the process which asks."""

from __future__ import annotations

import numpy as np
import torch

from meloformer.bench.memory import peak_step_bytes
from meloformer.bench.workload import Workload
from meloformer.settings import load_settings

MIB = 2**20


def test_the_peak_holds_the_step_and_ignores_what_the_caller_holds() -> None:
    settings = load_settings(
        None, ["model.size=tiny", "model.num_layers=1", "bench.seq_len=1024", "bench.batch_size=2"]
    )
    ballast = np.ones(800 * MIB // 8)
    peak = peak_step_bytes(settings, None, torch.device("cpu"))
    workload = Workload(settings, None, torch.device("cpu"))
    workload.step()
    logits_bytes = 4 * workload.batch.num_targets * len(workload.model.vocabulary)
    # weights and gradients, the optimisers, the logits and their gradient
    assert 2 * workload.weights_bytes + workload.optimizer_bytes + 2 * logits_bytes < peak < ballast.nbytes / 2

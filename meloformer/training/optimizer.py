"""Optimisers and the learning rate over time."""

from __future__ import annotations

import math

import torch
from torch import nn

from meloformer.settings import TrainingSettings

Optimizers = dict[str, torch.optim.Optimizer]
"""Name -> optimiser; together they hold every parameter of a model once."""

ADAM_BETAS = (0.9, 0.95)
"""As GPT-3 was trained (Brown et al., arXiv:2005.14165, appendix B)."""


def make_optimizers(model: nn.Module, settings: TrainingSettings) -> Optimizers:
    """The matrices of the layers decay; embeddings, norms and vectors do not.

    Parameters go in with their names, so that what an optimiser remembers can be stored under them.

    Source: Jordan, "Muon: An optimizer for hidden layers in neural networks"; Liu et al., "Muon is Scalable for LLM
    Training", arXiv:2502.16982, for the scaling that lets both share one learning rate.
    """
    matrices = [(name, p) for name, p in model.named_parameters() if p.dim() == 2 and "embedding" not in name]
    others = [(name, p) for name, p in model.named_parameters() if p.dim() != 2 or "embedding" in name]
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "muon":
        muon = torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
        return {"muon": muon, "adamw": torch.optim.AdamW(others, lr=rate, betas=ADAM_BETAS, weight_decay=0.0)}
    groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return {"adamw": torch.optim.AdamW(groups, lr=rate, betas=ADAM_BETAS)}


def learning_rate_at(step: int, total_steps: int, settings: TrainingSettings) -> float:
    """Learning rate of a step: a straight rise from 0, then down to ``final_rate`` of the peak.

    ``cosine`` falls all the way; ``wsd`` (warm-up, stable, decay) keeps the peak and falls in a straight line over the
    last ``decay_share`` of the steps.

    Args:
        step: 0 is the first.
        total_steps: Steps of the whole run.
        settings: Peak, warm-up and end.
    """
    warmup = max(round(settings.warmup_share * total_steps), 1)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    if settings.schedule == "wsd":
        decay = max(round(settings.decay_share * total_steps), 1)
        height = min(max((total_steps - step) / decay, 0.0), 1.0)
    else:
        progress = min((step - warmup) / max(total_steps - warmup, 1), 1.0)
        height = 0.5 * (1 + math.cos(math.pi * progress))
    return settings.learning_rate * (settings.final_rate + (1 - settings.final_rate) * height)

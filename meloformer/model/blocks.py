"""One layer: attention of both streams, then a feed-forward network for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple, Unpack

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from meloformer.model.attention import FourPhaseAttention
from meloformer.model.ffn import SwiGLU
from meloformer.model.layout import Layout
from meloformer.model.norm import RMSNorm
from meloformer.settings import ModelSettings

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


class Block(nn.Module):
    """One layer.

    Args:
        settings: Shapes.
        summary_goes_on: False in the last layer, whose summaries nobody reads once its regular tokens have: it has no
            weights that no gradient would reach. False everywhere where there are no summaries.
    """

    def __init__(self, settings: ModelSettings, *, summary_goes_on: bool) -> None:
        super().__init__()
        dim = settings.dim
        self.checkpointing = settings.checkpointing
        self.regular_attention_norm = RMSNorm(dim)
        self.summary_attention_norm = RMSNorm(dim) if settings.has_summaries else None
        self.attention = FourPhaseAttention(settings, summary_goes_on=summary_goes_on)
        self.regular_ffn_norm = RMSNorm(dim)
        self.ffn = SwiGLU(dim, settings.ffn_dim)
        self.summary_ffn_norm = RMSNorm(dim) if summary_goes_on else None
        has_own = summary_goes_on and settings.summary_ffn == "own"
        self.summary_ffn = SwiGLU(dim, settings.ffn_dim) if has_own else None

    def forward(self, regular_BTD: Tensor, summary_BMD: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """(B, T, D) and (B, M, D) streams -> the same, one layer on; a summary stream that ends here stays."""
        if self.checkpointing == "full":
            return self._recomputed(self._layer, regular_BTD, summary_BMD, layout)
        return self._layer(regular_BTD, summary_BMD, layout)

    def _layer(self, regular_BTD: Tensor, summary_BMD: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        attend = self._attend
        if self.checkpointing == "attention":
            regular_update, summary_update = self._recomputed(attend, regular_BTD, summary_BMD, layout)
        else:
            regular_update, summary_update = attend(regular_BTD, summary_BMD, layout)
        regular_BTD = self._feed_forward(regular_BTD + regular_update, self.regular_ffn_norm, self.ffn)
        if summary_update is not None and self.summary_ffn_norm is not None:
            summary_ffn = self.ffn if self.summary_ffn is None else self.summary_ffn
            summary_BMD = self._feed_forward(summary_BMD + summary_update, self.summary_ffn_norm, summary_ffn)
        return regular_BTD, summary_BMD

    def _attend(self, regular_BTD: Tensor, summary_BMD: Tensor, layout: Layout) -> tuple[Tensor, Tensor | None]:
        norm = self.summary_attention_norm
        normed_summary_BMD = summary_BMD if norm is None else norm(summary_BMD)
        return self.attention(self.regular_attention_norm(regular_BTD), normed_summary_BMD, layout)

    def _feed_forward(self, x_BND: Tensor, norm: nn.Module, ffn: nn.Module) -> Tensor:
        def update(x_BND: Tensor) -> Tensor:
            return ffn(norm(x_BND))

        if self.checkpointing in ("ffn", "attention"):
            return x_BND + self._recomputed(update, x_BND)
        return x_BND + update(x_BND)

    def _recomputed(self, compute: Callable[[Unpack[Arguments]], Result], *arguments: *Arguments) -> Result:
        """``compute(*arguments)``; what it needs for its gradients is computed again in the backward pass."""
        if not torch.is_grad_enabled():
            return compute(*arguments)
        return checkpoint(compute, *arguments, use_reentrant=False, preserve_rng_state=False)

"""One layer: attention of both streams, then a feed-forward network for each."""

from __future__ import annotations

from torch import Tensor, nn

from meloformer.model.attention import FourPhaseAttention
from meloformer.model.ffn import SwiGLU
from meloformer.model.layout import Layout
from meloformer.model.norm import RMSNorm
from meloformer.settings import ModelSettings


class Block(nn.Module):
    """One layer.

    Args:
        settings: Shapes.
        summary_goes_on: False in the last layer, whose summaries nobody reads once its regular tokens have: it has no
            weights that no gradient would reach.
    """

    def __init__(self, settings: ModelSettings, *, summary_goes_on: bool) -> None:
        super().__init__()
        dim = settings.dim
        self.regular_attention_norm = RMSNorm(dim)
        self.summary_attention_norm = RMSNorm(dim)
        self.attention = FourPhaseAttention(settings, summary_goes_on=summary_goes_on)
        self.regular_ffn_norm = RMSNorm(dim)
        self.ffn = SwiGLU(dim, settings.ffn_dim)
        self.summary_ffn_norm = RMSNorm(dim) if summary_goes_on else None
        has_own = summary_goes_on and settings.summary_ffn == "own"
        self.summary_ffn = SwiGLU(dim, settings.ffn_dim) if has_own else None

    def forward(self, regular_BTD: Tensor, summary_BMD: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """(B, T, D) and (B, M, D) streams -> the same, one layer on; a summary stream that ends here stays."""
        regular_update, summary_update = self.attention(
            self.regular_attention_norm(regular_BTD), self.summary_attention_norm(summary_BMD), layout
        )
        regular_BTD = regular_BTD + regular_update
        regular_BTD = regular_BTD + self.ffn(self.regular_ffn_norm(regular_BTD))
        if summary_update is not None and self.summary_ffn_norm is not None:
            summary_BMD = summary_BMD + summary_update
            summary_ffn = self.ffn if self.summary_ffn is None else self.summary_ffn
            summary_BMD = summary_BMD + summary_ffn(self.summary_ffn_norm(summary_BMD))
        return regular_BTD, summary_BMD

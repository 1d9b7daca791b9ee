"""Four-phase attention: the projections of both streams, and the phases one after another.

1. Summarise (SS, SR): the summary of a bar attends, in one softmax, to the summaries up to its own and to the regular
   tokens of its bar.
2. Second projection: keys and values from what came out.
3. Update (RS, RR): a regular token attends, in one softmax a head, to the regular tokens that the head's family shows
   it and, in the families that read summaries, to the second keys and values of every finished bar.

Without summaries (``model.summaries=none``) only RR is left.

Shapes: B rows, T regular tokens, M summaries, D width, H heads, K key-value heads, E width of a head.
"""

from __future__ import annotations

from torch import Tensor, nn

from meloformer.model.layout import DTYPES, Layout
from meloformer.model.rope import Rotation, rotate
from meloformer.settings import ModelSettings


class FourPhaseAttention(nn.Module):
    """One layer's attention of both streams.

    Args:
        settings: Shapes and head families.
        summary_goes_on: Whether a later layer reads the summary stream; without one there is no output projection
            for it.

    Without summaries there is no projection of theirs at all.
    """

    def __init__(self, settings: ModelSettings, *, summary_goes_on: bool) -> None:
        super().__init__()
        self.head_dim = settings.head_dim
        self.attention_dtype = DTYPES.get(settings.attention_dtype)
        dim, kv_dim = settings.dim, settings.num_kv_heads * settings.head_dim
        self.regular_query = nn.Linear(dim, dim, bias=False)
        self.regular_key = nn.Linear(dim, kv_dim, bias=False)
        self.regular_value = nn.Linear(dim, kv_dim, bias=False)
        self.regular_out = nn.Linear(dim, dim, bias=False)
        self.summary_out = None
        self.has_summaries = settings.has_summaries
        if not self.has_summaries:
            return
        self.summary_query = nn.Linear(dim, dim, bias=False)
        self.summary_key = nn.Linear(dim, kv_dim, bias=False)
        self.summary_value = nn.Linear(dim, kv_dim, bias=False)
        self.second_key = nn.Linear(dim, kv_dim, bias=False)
        self.second_value = nn.Linear(dim, kv_dim, bias=False)
        self.summary_out = nn.Linear(dim, dim, bias=False) if summary_goes_on else None

    def forward(self, regular_BTD: Tensor, summary_BMD: Tensor, layout: Layout) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Args:
            regular_BTD, summary_BMD: Both streams, normalised.
            layout: Of the batch.
        Returns:
            (B, T, D) and (B, M, D) to be added to the streams; ``None`` where the summary stream ends here.
        """
        key = self._rotated(self.regular_key(regular_BTD), layout.regular)
        value = self._split(self.regular_value(regular_BTD))
        second_key, second_value, summary_update = key[:, :0], value[:, :0], None
        if self.has_summaries:
            summarised_BMD = self._summarise(summary_BMD, key, value, layout).to(regular_BTD.dtype)
            second_key = self._rotated(self.second_key(summarised_BMD), layout.summary)
            second_value = self._split(self.second_value(summarised_BMD))
            summary_update = None if self.summary_out is None else self.summary_out(summarised_BMD)
        query = self._rotated(self.regular_query(regular_BTD), layout.regular)
        updated_BTD = layout.path.update(query, key, value, second_key, second_value).flatten(2)
        return self.regular_out(updated_BTD.to(regular_BTD.dtype)), summary_update

    def _summarise(self, summary_BMD: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
        """(B, M, D) what the summaries read."""
        return layout.path.summarise(
            self._rotated(self.summary_query(summary_BMD), layout.summary),
            self._rotated(self.summary_key(summary_BMD), layout.summary),
            self._split(self.summary_value(summary_BMD)),
            key,
            value,
        ).flatten(2)

    def _split(self, merged_BND: Tensor) -> Tensor:
        """(B, N, heads * E) -> (B, N, heads, E) of the dtype that attention is to have."""
        return merged_BND.unflatten(-1, (-1, self.head_dim)).to(self.attention_dtype or merged_BND.dtype)

    def _rotated(self, merged_BND: Tensor, by: Rotation) -> Tensor:
        """(B, N, heads * E) -> (B, N, heads, E), rotated."""
        return rotate(self._split(merged_BND), by)

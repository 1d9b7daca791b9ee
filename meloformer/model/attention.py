"""Four-phase attention, dense: what the rules of ``visibility`` say, in plain PyTorch.

1. Summarise (SS, SR): the summary of a bar attends, in one softmax, to the summaries up to its own and to the regular
   tokens of its bar.
2. Second projection: keys and values from what came out.
3. Update (RS, RR): a regular token attends, in one softmax a head, to the regular tokens that the head's family shows
   it and, in the families that read summaries, to the second keys and values of every finished bar.

Shapes: B rows, T regular tokens, M summaries, D width, H heads, K key-value heads, E width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from meloformer.model.batch import Batch
from meloformer.model.rope import Rotation, rotate, rotation
from meloformer.model.visibility import READS_SUMMARIES, finished_mask, own_bar_mask, regular_masks, summary_mask
from meloformer.settings import HeadFamily, ModelSettings


@dataclass(frozen=True)
class Layout:
    """What all layers share of one batch: rotations and masks.

    A mask is what is added to the logits, 0 where the row sees the column and minus infinity where not, with a head
    dimension of 1. PyTorch makes that of a boolean mask in every call; made once, a training step of ``tiny`` on two
    cores takes 5 % less time.
    """

    regular: Rotation
    """Of the T regular tokens."""
    summary: Rotation
    """Of the M summaries; each stands at the last token and at the end of its bar."""
    summarise: Tensor
    """(B, 1, M, M + T) what a summary sees: summaries, then regular tokens."""
    update: dict[HeadFamily, Tensor]
    """(B, 1, T, T), or (B, 1, T, T + M) for families that read summaries: regular tokens, then summaries."""

    @classmethod
    def of(cls, batch: Batch, settings: ModelSettings, dtype: torch.dtype = torch.float32) -> Layout:
        """Derive the layout of a batch, with masks of the dtype of queries and keys."""
        position = torch.arange(batch.ids.shape[1], device=batch.ids.device).expand_as(batch.ids)
        finished = finished_mask(batch)
        update: dict[HeadFamily, Tensor] = {}
        for family, mask in regular_masks(batch, settings).items():
            sees = torch.cat([mask, finished], dim=-1) if family in READS_SUMMARIES else mask
            update[family] = _additive(sees, dtype)
        return cls(
            regular=rotation(position, batch.time, settings.head_dim, settings.rope),
            summary=rotation(batch.bar_last, batch.bar_end_time, settings.head_dim, settings.rope),
            summarise=_additive(torch.cat([summary_mask(batch), own_bar_mask(batch)], dim=-1), dtype),
            update=update,
        )


def _additive(sees: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, R, C) bool -> (B, 1, R, C) 0 or minus infinity."""
    return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill_(~sees, -torch.inf)[:, None]


class FourPhaseAttention(nn.Module):
    """One layer's attention of both streams.

    Args:
        settings: Shapes and head families.
        summary_goes_on: Whether a later layer reads the summary stream; without one there is no output projection
            for it.
    """

    def __init__(self, settings: ModelSettings, *, summary_goes_on: bool) -> None:
        super().__init__()
        self.head_dim = settings.head_dim
        self.num_heads = settings.num_heads
        self.num_kv_heads = settings.num_kv_heads
        self.heads = dict(settings.heads)
        dim, kv_dim = settings.dim, settings.num_kv_heads * settings.head_dim
        self.regular_query = nn.Linear(dim, dim, bias=False)
        self.regular_key = nn.Linear(dim, kv_dim, bias=False)
        self.regular_value = nn.Linear(dim, kv_dim, bias=False)
        self.regular_out = nn.Linear(dim, dim, bias=False)
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
        key = rotate(self._split(self.regular_key(regular_BTD)), layout.regular)
        value = self._split(self.regular_value(regular_BTD))
        summarised_BMD = self._summarise(summary_BMD, key, value, layout)
        second_key = rotate(self._split(self.second_key(summarised_BMD)), layout.summary)
        second_value = self._split(self.second_value(summarised_BMD))
        query = rotate(self._split(self.regular_query(regular_BTD)), layout.regular)
        updated = self._update(query, key, value, second_key, second_value, layout)
        return self.regular_out(updated), None if self.summary_out is None else self.summary_out(summarised_BMD)

    def _summarise(self, summary_BMD: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
        """Phases SS and SR: (B, M, D), heads merged."""
        query = rotate(self._split(self.summary_query(summary_BMD)), layout.summary)
        summary_key = rotate(self._split(self.summary_key(summary_BMD)), layout.summary)
        summary_value = self._split(self.summary_value(summary_BMD))
        keys = self._for_every_head(torch.cat([summary_key, key], dim=2))
        values = self._for_every_head(torch.cat([summary_value, value], dim=2))
        return self._merge(scaled_dot_product_attention(query, keys, values, attn_mask=layout.summarise))

    def _update(
        self, query: Tensor, key: Tensor, value: Tensor, second_key: Tensor, second_value: Tensor, layout: Layout
    ) -> Tensor:
        """Phases RR and RS, family by family: (B, T, D), heads merged."""
        key, value = self._for_every_head(key), self._for_every_head(value)
        second_key, second_value = self._for_every_head(second_key), self._for_every_head(second_value)
        outputs: list[Tensor] = []
        first = 0
        for family, count in self.heads.items():
            own = slice(first, first + count)
            keys, values = key[:, own], value[:, own]
            if family in READS_SUMMARIES:
                keys = torch.cat([keys, second_key[:, own]], dim=2)
                values = torch.cat([values, second_value[:, own]], dim=2)
            outputs.append(scaled_dot_product_attention(query[:, own], keys, values, attn_mask=layout.update[family]))
            first += count
        return self._merge(torch.cat(outputs, dim=1))

    def _split(self, merged_BND: Tensor) -> Tensor:
        """(B, N, heads * E) -> (B, heads, N, E)."""
        return merged_BND.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def _merge(self, heads_BHNE: Tensor) -> Tensor:
        """(B, H, N, E) -> (B, N, D)."""
        return heads_BHNE.transpose(1, 2).flatten(2)

    def _for_every_head(self, heads_BKNE: Tensor) -> Tensor:
        """(B, K, N, E) -> (B, H, N, E): every key-value head beside each of its query heads."""
        return heads_BKNE.repeat_interleave(self.num_heads // self.num_kv_heads, dim=1)

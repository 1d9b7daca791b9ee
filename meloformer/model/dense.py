"""Four-phase attention, dense: what the rules of ``visibility`` say, with masks of all tokens by all tokens.

The reference that faster paths are tested against, the path for rows so short that nothing is won by tiles, and the
only one for rules without a sparse form: ``union`` heads and the type rule.

Shapes: B rows, T regular tokens, M summaries, H heads, K key-value heads, E width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from meloformer.errors import SettingsError
from meloformer.model.batch import Batch
from meloformer.model.visibility import READS_SUMMARIES, finished_mask, own_bar_mask, regular_masks, summary_mask
from meloformer.settings import HeadFamily, ModelSettings

LONGEST = 8192
"""Tokens in a row; one fp32 mask of that many by that many is 256 MiB."""


@dataclass(frozen=True)
class DensePath:
    """The masks of a batch.

    A mask is what is added to the logits, 0 where the row sees the column and minus infinity where not, with a head
    dimension of 1. PyTorch makes that of a boolean mask in every call; made once, a training step of ``tiny`` on two
    cores takes 5 % less time.
    """

    summarised: Tensor
    """(B, 1, M, M + T) what a summary sees: summaries, then regular tokens."""
    updated: dict[HeadFamily, Tensor]
    """(B, 1, T, T), or (B, 1, T, T + M) for families that read summaries: regular tokens, then summaries."""
    heads: dict[HeadFamily, int]

    @classmethod
    def of(cls, batch: Batch, settings: ModelSettings, dtype: torch.dtype = torch.float32) -> DensePath:
        """Derive the masks.

        Raises:
            SettingsError: The rows are longer than ``LONGEST``.
        """
        if batch.ids.shape[1] > LONGEST:
            raise SettingsError(
                f"rows of {batch.ids.shape[1]} tokens are too long for dense attention, which takes up to {LONGEST}",
                "use model.attention=auto, model.type_rule=false and no union heads in model.heads, or shorter rows",
            )
        finished = finished_mask(batch)
        updated: dict[HeadFamily, Tensor] = {}
        for family, mask in regular_masks(batch, settings).items():
            sees = torch.cat([mask, finished], dim=-1) if family in READS_SUMMARIES else mask
            updated[family] = _additive(sees, dtype)
        summarised = _additive(torch.cat([summary_mask(batch), own_bar_mask(batch)], dim=-1), dtype)
        return cls(summarised, updated, dict(settings.heads))

    def summarise(
        self, query_BMHE: Tensor, summary_key: Tensor, summary_value: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        """Phases SS and SR.

        Args:
            query_BMHE: Of the summaries.
            summary_key, summary_value: (B, M, K, E) of the summaries.
            key, value: (B, T, K, E) of the regular tokens.
        Returns:
            (B, M, H, E).
        """
        keys, values = torch.cat([summary_key, key], dim=1), torch.cat([summary_value, value], dim=1)
        query = query_BMHE.transpose(1, 2)
        num_heads = query.shape[1]
        return _attend(query, _heads_first(keys, num_heads), _heads_first(values, num_heads), self.summarised)

    def update(
        self, query_BTHE: Tensor, key: Tensor, value: Tensor, second_key: Tensor, second_value: Tensor
    ) -> Tensor:
        """Phases RR and RS, family by family.

        Args:
            query_BTHE: Of the regular tokens.
            key, value: (B, T, K, E) of the regular tokens.
            second_key, second_value: (B, M, K, E) of what the summaries read.
        Returns:
            (B, T, H, E).
        """
        query, num_heads = query_BTHE.transpose(1, 2), query_BTHE.shape[2]
        all_keys, all_values = _heads_first(key, num_heads), _heads_first(value, num_heads)
        second_key, second_value = _heads_first(second_key, num_heads), _heads_first(second_value, num_heads)
        outputs: list[Tensor] = []
        first = 0
        for family, count in self.heads.items():
            own = slice(first, first + count)
            keys, values = all_keys[:, own], all_values[:, own]
            if family in READS_SUMMARIES:
                keys = torch.cat([keys, second_key[:, own]], dim=2)
                values = torch.cat([values, second_value[:, own]], dim=2)
            outputs.append(_attend(query[:, own], keys, values, self.updated[family]))
            first += count
        return torch.cat(outputs, dim=2)


def _attend(query_BHNE: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """(B, N, H, E) of the dtype of the queries, under autocast too."""
    with torch.autocast(query_BHNE.device.type, enabled=False):
        mask = mask.to(query_BHNE.dtype)
        return scaled_dot_product_attention(query_BHNE, key, value, attn_mask=mask).transpose(1, 2)


def _heads_first(keys_BNKE: Tensor, num_heads: int) -> Tensor:
    """(B, H, N, E): every key-value head beside each of its query heads."""
    return keys_BNKE.transpose(1, 2).repeat_interleave(num_heads // keys_BNKE.shape[2], dim=1)


def _additive(sees: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, R, C) bool -> (B, 1, R, C) 0 or minus infinity."""
    return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill_(~sees, -torch.inf)[:, None]

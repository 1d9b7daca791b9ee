"""Four-phase attention, sparse: the tiles of every head family and of the summaries.

Shapes: B rows, T regular tokens, M summaries, H heads, K key-value heads, E width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from meloformer.model.batch import Batch
from meloformer.model.tiled import HeadRun, More, head_runs, tiled_attention
from meloformer.model.tiling import Tiling, equal_key_tiling
from meloformer.model.visibility import EQUAL_KEY, families_with_summaries
from meloformer.model.windows import Places, summary_tiling, window_tiling
from meloformer.settings import HeadFamily, ModelSettings


@dataclass(frozen=True)
class SparsePath:
    """The tiles of a batch. Plain tensors, so that it can be made in another process."""

    summarised: Tiling
    """Queries are summaries; keys are summaries, then regular tokens."""
    updated: dict[HeadFamily, Tiling]
    """Queries are regular tokens; keys are regular tokens, then, for ``ensemble``, globals and summaries."""
    globals: Tensor
    """(G,) numbers of the global tokens, of all B * T."""
    heads: dict[HeadFamily, int]

    @staticmethod
    def fits(settings: ModelSettings) -> bool:
        """Whether the rules have a sparse form."""
        return not settings.type_rule and "union" not in settings.heads

    @classmethod
    def of(cls, batch: Batch, settings: ModelSettings) -> SparsePath:
        """Derive the tiles.

        Raises:
            ValueError: The rules have no sparse form.
        """
        if not cls.fits(settings):
            raise ValueError("union heads and the type rule have no sparse form")
        places, device = Places.of(batch), batch.ids.device
        updated: dict[HeadFamily, Tiling] = {}
        for family in settings.heads:
            if family in EQUAL_KEY:
                key = EQUAL_KEY[family](batch).cpu().numpy().reshape(-1)
                updated[family] = equal_key_tiling(places.keys(key), device)
            else:
                reads = family in families_with_summaries(settings)
                updated[family] = window_tiling(places, settings.bar_offsets, device, reads_summaries=reads)
        return cls(
            summarised=summary_tiling(places, device, reads_earlier=settings.summaries != "bar"),
            updated=updated,
            globals=torch.from_numpy(places.globals).to(device),
            heads=dict(settings.heads),
        )

    def summarise(
        self, query_BMHE: Tensor, summary_key: Tensor, summary_value: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        """Phases SS and SR; arguments and result as in :meth:`DensePath.summarise`."""
        num_heads, num_kv_heads = query_BMHE.shape[2], key.shape[2]
        runs = head_runs(0, num_heads, num_heads // num_kv_heads, self.summarised)
        more = More(None, key.flatten(0, 1), value.flatten(0, 1))
        query, own_key, own_value = (each.flatten(0, 1) for each in (query_BMHE, summary_key, summary_value))
        return tiled_attention(query, own_key, own_value, runs, more).view_as(query_BMHE)

    def update(
        self, query_BTHE: Tensor, key: Tensor, value: Tensor, second_key: Tensor, second_value: Tensor
    ) -> Tensor:
        """Phases RR and RS; arguments and result as in :meth:`DensePath.update`."""
        num_heads, num_kv_heads = query_BTHE.shape[2], key.shape[2]
        runs: list[HeadRun[Tiling]] = []
        first = 0
        for family, count in self.heads.items():
            runs += head_runs(first, count, num_heads // num_kv_heads, self.updated[family])
            first += count
        far = None
        if "ensemble" in self.heads:
            far = More(self.globals, second_key.flatten(0, 1), second_value.flatten(0, 1))
        query, key, value = (each.flatten(0, 1) for each in (query_BTHE, key, value))
        return tiled_attention(query, key, value, runs, far).view_as(query_BTHE)

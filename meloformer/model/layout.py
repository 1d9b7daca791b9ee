"""What all layers share of one batch: rotations, and the path that attention takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from meloformer.errors import SettingsError
from meloformer.model.batch import Batch
from meloformer.model.dense import DensePath
from meloformer.model.flex import FlexPath
from meloformer.model.rope import Rotation, rotation
from meloformer.model.sparse import SparsePath
from meloformer.settings import ModelSettings

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""Of queries, keys and values, by the names that ``model.attention_dtype`` has for them."""
DENSE_UP_TO = 512
"""Tokens in a row up to which ``auto`` is dense."""


class AttentionPath(Protocol):
    """How attention is computed; see :class:`~meloformer.model.dense.DensePath`."""

    def summarise(
        self, query_BMHE: Tensor, summary_key: Tensor, summary_value: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        """Phases SS and SR: (B, M, H, E)."""
        ...

    def update(
        self, query_BTHE: Tensor, key: Tensor, value: Tensor, second_key: Tensor, second_value: Tensor
    ) -> Tensor:
        """Phases RR and RS: (B, T, H, E)."""
        ...


@dataclass(frozen=True)
class Layout:
    """Made once a batch from token attributes, where the batch is; can be sent to another process."""

    regular: Rotation
    """Of the T regular tokens."""
    summary: Rotation
    """Of the M summaries; each stands at the last token and at the end of its bar."""
    path: AttentionPath

    @classmethod
    def of(
        cls,
        batch: Batch,
        settings: ModelSettings,
        dtype: torch.dtype = torch.float32,
        *,
        device: torch.device | None = None,
    ) -> Layout:
        """Derive the layout of a batch.

        Args:
            batch: Rows of tokens.
            settings: Rules, and the path to take.
            dtype: Of the model's weights.
            device: For which ``auto`` chooses a path; by default the batch's. The layout is where the batch is.
        Raises:
            SettingsError: The path cannot be taken: a sparse one with rules that have no sparse form, a dense one with
                rows that are too long, or FlexAttention with heads that are too narrow.
        """
        position = torch.arange(batch.ids.shape[1], device=batch.ids.device).expand_as(batch.ids)
        return cls(
            regular=rotation(position, batch.time, settings.head_dim, settings.rope, settings.num_kv_heads),
            summary=rotation(
                batch.bar_last, batch.bar_end_time, settings.head_dim, settings.rope, settings.num_kv_heads
            ),
            path=_path(batch, settings, DTYPES.get(settings.attention_dtype, dtype), device or batch.ids.device),
        )


def _path(
    batch: Batch, settings: ModelSettings, dtype: torch.dtype, device: torch.device
) -> DensePath | SparsePath | FlexPath:
    chosen = _automatic(batch, settings, device) if settings.attention == "auto" else settings.attention
    if chosen == "dense":
        return DensePath.of(batch, settings, dtype)
    if chosen == "flex":
        if not FlexPath.fits(settings):
            raise SettingsError(
                f"model.attention is flex, which has no heads of width {settings.head_dim}", "use model.attention=auto"
            )
        return FlexPath.of(batch, settings)
    if not SparsePath.fits(settings):
        raise SettingsError(
            "model.attention is sparse, but union heads and the type rule have no sparse form",
            "use model.attention=auto",
        )
    return SparsePath.of(batch, settings)


def _automatic(batch: Batch, settings: ModelSettings, device: torch.device) -> Literal["dense", "sparse", "flex"]:
    """What ``auto`` takes.

    A kernel of FlexAttention takes seconds to compile for every new shape. So short rows have none, and generation,
    whose rows grow with every token, has none either; it is what runs in inference mode.
    """
    if batch.ids.shape[1] <= DENSE_UP_TO:
        return "dense"
    if device.type == "cuda" and FlexPath.fits(settings) and not torch.is_inference_mode_enabled():
        return "flex"
    return "sparse" if SparsePath.fits(settings) else "dense"

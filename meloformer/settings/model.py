"""Settings of the transformer."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, Field, model_validator

from meloformer.settings.section import Positive, Section, checked

Size = Literal["tiny", "small", "base", "large", "xlarge"]
HEAD_FAMILIES = ["union", "track", "ensemble", "onset", "pitch"]
"""Those that may stand in ``model.heads``; experiments add their own, see ``model.visibility.register_family``."""


def _is_family(name: str) -> str:
    if name not in HEAD_FAMILIES:
        raise ValueError(f"there is no head family {name!r}; there are {', '.join(HEAD_FAMILIES)}")
    return name


HeadFamily = Annotated[str, AfterValidator(_is_family)]
Summaries = Literal["full", "bar", "none"]
Rope = Literal["position", "time", "both", "heads"]
TypeRule = Literal[True, "later"]
"""The rule of types as it was published first, or as it was published later."""


class SizeRow(NamedTuple):
    """One row of the table of sizes."""

    num_layers: int
    dim: int
    num_heads: int
    ffn_dim: int
    num_kv_heads: int
    summary_ffn: Literal["own", "shared"]


SIZES: dict[str, SizeRow] = {
    "tiny": SizeRow(num_layers=4, dim=128, num_heads=4, ffn_dim=384, num_kv_heads=4, summary_ffn="own"),
    "small": SizeRow(num_layers=6, dim=256, num_heads=4, ffn_dim=1408, num_kv_heads=4, summary_ffn="own"),
    "base": SizeRow(num_layers=12, dim=512, num_heads=8, ffn_dim=2816, num_kv_heads=8, summary_ffn="shared"),
    "large": SizeRow(num_layers=16, dim=768, num_heads=12, ffn_dim=4096, num_kv_heads=4, summary_ffn="shared"),
    "xlarge": SizeRow(num_layers=24, dim=1024, num_heads=16, ffn_dim=5632, num_kv_heads=4, summary_ffn="shared"),
}


def equal_heads(num_heads: int) -> dict[HeadFamily, int]:
    """The default mix: equal shares of ``track``, ``ensemble``, ``onset`` and ``pitch``."""
    return {"track": num_heads // 4, "ensemble": num_heads // 4, "onset": num_heads // 4, "pitch": num_heads // 4}


class ModelSettings(Section):
    """The transformer. ``size`` fills in what is not given."""

    size: Size = "small"
    """Row of the table of sizes that the next six fields default to."""
    num_layers: Positive = Field(default=0, validate_default=False)
    """Number of layers."""
    dim: Positive = Field(default=0, validate_default=False)
    """Width of the residual streams; a multiple of the number of heads, and a head size divisible by 4."""
    ffn_dim: Positive = Field(default=0, validate_default=False)
    """Width inside a SwiGLU."""
    heads: dict[HeadFamily, Positive] = Field(default_factory=dict)
    """Head family -> number of heads; the order is the order of the heads."""
    num_kv_heads: Positive = Field(default=0, validate_default=False)
    """Key-value heads; each serves the same number of query heads."""
    summary_ffn: Literal["own", "shared"] | None = None
    """Whether the summary stream has a feed-forward network of its own."""
    type_rule: bool | Literal["later"] = False
    """Hide types of tokens from each other: ``true`` as published first (T and P see T P, V sees V, D nothing of other
    notes), ``"later"`` as published later (T and V see all, P sees T P, D sees T P D). The prototype learnt better
    without."""
    summaries: Summaries = "full"
    """``full``: the summary of a bar reads its bar and earlier summaries; ``bar``: only its bar; ``none``: there are no
    summaries, and no weights for them."""
    bar_offsets: tuple[Annotated[int, Field(ge=0)], ...] = (0,)
    """Bars that the ``ensemble`` and ``union`` heads read in full, counted back from a token's own, which is 0; of the
    others they read summaries."""
    rope: Rope = "time"
    """What rotary positions count: grid steps of musical time, tokens (``position``), half of the dimensions each
    (``both``), or the first, third, ... key-value head tokens and the others time (``heads``)."""
    attention: Literal["auto", "dense", "sparse", "flex"] = "auto"
    """How attention is computed, not what. ``dense`` is the reference, with masks of all tokens by all tokens;
    ``sparse`` reads only what is seen, and has no ``union`` heads and no type rule; ``flex`` does the same by compiled
    kernels for CUDA, with all rules; ``auto`` takes the fastest."""
    checkpointing: Literal["none", "ffn", "attention", "full"] = "none"
    """What is computed again in the backward pass to save memory: nothing, the feed-forward networks, these and
    attention each on its own, or whole layers. Loss and gradients are the same; each step takes longer and needs less
    memory."""
    attention_dtype: Literal["auto", "bf16", "fp32"] = "auto"
    """Of queries, keys and values: that of the model, or another by a detour, to measure what the detour costs."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_size(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        row = SIZES.get(given.get("size", "small"))
        if row is None:
            return given
        filled: dict[str, Any] = {name: value for name, value in row._asdict().items() if name != "num_heads"}
        filled["heads"] = equal_heads(row.num_heads)
        if "heads" in given and "num_kv_heads" not in given:
            try:
                num_heads = sum(given["heads"].values())
            except (AttributeError, TypeError):
                num_heads = 0
            if num_heads and (row.num_kv_heads == row.num_heads or num_heads % row.num_kv_heads):
                filled["num_kv_heads"] = num_heads
        return {**filled, **given}

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        if not self.heads:
            raise ValueError("heads names no family")
        if self.dim % self.num_heads or self.head_dim % 4:
            raise ValueError(f"dim {self.dim} over {self.num_heads} heads gives no head size divisible by 4")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"{self.num_heads} heads do not share {self.num_kv_heads} key-value heads evenly")
        if self.rope == "heads" and self.num_kv_heads == 1:
            raise ValueError("rope is heads, which takes two key-value heads or more; use rope=position")
        if 0 not in self.bar_offsets:
            raise ValueError("bar_offsets must contain 0, the bar itself")
        return self

    @property
    def has_summaries(self) -> bool:
        """Whether there are any."""
        return self.summaries != "none"

    @property
    def num_heads(self) -> int:
        """Query heads of a layer."""
        return sum(self.heads.values())

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.dim // self.num_heads

    @classmethod
    def of_size(cls, size: Size, **changes: Any) -> ModelSettings:
        """The settings of one size, with some fields changed.

        Raises:
            SettingsError: The size is unknown or a value does not fit.
        """
        return checked(cls, "model", {"size": size, **changes})

"""Every setting, with its default and its reason, as frozen pydantic models.

A command takes ``--config FILE.toml`` and repeated ``--set section.field=value``;
:func:`~meloformer.settings_file.load_settings` lays them over the defaults, validates once, and the rest of the program
trusts what it gets.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from meloformer.settings.data import FilterSettings, PackSettings, TokenSettings
from meloformer.settings.measures import BenchSettings, EvaluationSettings
from meloformer.settings.model import (
    HEAD_FAMILIES,
    SIZES,
    HeadFamily,
    ModelSettings,
    Rope,
    Size,
    SizeRow,
    Summaries,
    TypeRule,
    equal_heads,
)
from meloformer.settings.music import GenerationSettings, RenderSettings, TypeName
from meloformer.settings.section import Positive, Section, checked, first_problem
from meloformer.settings.training import TrainingSettings

__all__ = [
    "HEAD_FAMILIES",
    "SIZES",
    "BenchSettings",
    "EvaluationSettings",
    "FilterSettings",
    "GenerationSettings",
    "HeadFamily",
    "ModelSettings",
    "PackSettings",
    "Positive",
    "RenderSettings",
    "Rope",
    "Section",
    "Settings",
    "Size",
    "SizeRow",
    "Summaries",
    "TokenSettings",
    "TrainingSettings",
    "TypeName",
    "TypeRule",
    "checked",
    "equal_heads",
    "first_problem",
]


class Settings(Section):
    """All sections, as in a TOML file."""

    filter: FilterSettings = Field(default_factory=FilterSettings)
    tokens: TokenSettings = Field(default_factory=TokenSettings)
    pack: PackSettings = Field(default_factory=PackSettings)
    model: ModelSettings = Field(default_factory=ModelSettings)
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    generation: GenerationSettings = Field(default_factory=GenerationSettings)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)
    render: RenderSettings = Field(default_factory=RenderSettings)
    bench: BenchSettings = Field(default_factory=BenchSettings)

    def with_training(self, **changes: Any) -> Settings:
        """The same with some fields of the training changed; they are taken as they are."""
        return self.model_copy(update={"training": self.training.model_copy(update=changes)})

"""What an experiment is: variants that differ in a few settings, and nothing else."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import Field

import experiments.families  # noqa: F401 (variants may name its families)
from meloformer.errors import InputError, SettingsError
from meloformer.settings import Positive, Section, Settings, checked
from meloformer.settings_file import load_settings, validate_settings

CONFIGS = Path(__file__).parent / "configs"


class Variant(Section):
    """One of the things that are compared."""

    plain: bool = False
    """The plain causal transformer, with the shape that ``model`` has."""
    model: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)


class Experiment(Section):
    """A file in ``configs/``."""

    name: str
    title: str
    question: str
    steps: Positive
    """How long each variant is trained where the command does not say."""
    model: dict[str, Any] = Field(default_factory=dict)
    """Of all variants."""
    training: dict[str, Any] = Field(default_factory=dict)
    variants: dict[str, Variant]
    """The first is what the others are compared with."""

    def settings_of(self, variant: str, overrides: list[str] | None = None) -> Settings:
        """The settings of one variant.

        Args:
            variant: Its name.
            overrides: Texts ``section.field=value`` that win over all.
        Raises:
            SettingsError: A setting is unknown or out of range.
        """
        chosen = self.variants[variant]
        record = {"model": {**self.model, **chosen.model}, "training": {**self.training, **chosen.training}}
        settings = validate_settings(record)
        if not overrides:
            return settings
        given = {f"{section}.{name}": value for section, fields in record.items() for name, value in fields.items()}
        wanted = {text.partition("=")[0].strip() for text in overrides}
        return load_settings(None, overrides, {name: value for name, value in given.items() if name not in wanted})


def names() -> list[str]:
    """All experiments."""
    return sorted(path.stem for path in CONFIGS.glob("*.toml"))


def load_experiment(name: str) -> Experiment:
    """Read an experiment and check every variant.

    Raises:
        InputError: There is none of that name.
        SettingsError: It, or a variant, has a wrong setting.
    """
    path = CONFIGS / f"{name}.toml"
    if not path.is_file():
        raise InputError(f"there is no experiment {name!r}", f"there are {', '.join(names())}")
    try:
        record = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is no TOML: {error}") from None
    experiment = checked(Experiment, name, {"name": name, **record})
    for variant in experiment.variants:
        experiment.settings_of(variant)
    return experiment

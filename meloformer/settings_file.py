"""Settings as people give them: a TOML file, ``section.field=value`` texts and named options; and back to TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from meloformer.errors import SettingsError
from meloformer.settings import ModelSettings, Settings, SizeRow, first_problem


def load_settings(
    config: Path | None = None,
    overrides: Sequence[str] | None = None,
    options: Mapping[str, object] | None = None,
    *,
    recipe: Sequence[str] = (),
) -> Settings:
    """Defaults, then a recipe, the TOML file, ``section.field=value`` texts, and named options, validated once.

    Args:
        config: A TOML file, or ``None``.
        overrides: Texts such as ``model.heads={track=2,ensemble=2}``; the right side is TOML, or else a plain string.
        options: ``{"training.seq_len": 4096}``; a value of ``None`` means "not given".
        recipe: Texts like the overrides that stand in for the defaults.
    Raises:
        SettingsError: A file that cannot be read, an unknown setting, or a value out of range.
    """
    merged: dict[str, Any] = {}
    _put_texts(merged, recipe)
    if config is not None:
        try:
            given = tomllib.loads(config.read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingsError(f"cannot read the settings {config}: {error.strerror or error}") from None
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            said = "it is no text" if isinstance(error, UnicodeDecodeError) else error
            raise SettingsError(f"the settings {config} are no TOML: {said}", "see docs/settings.md") from None
        for section, fields in given.items():
            if isinstance(fields, dict):
                merged.setdefault(section, {}).update(fields)
            else:
                merged[section] = fields
    _put_texts(merged, overrides or [])
    for name, value in (options or {}).items():
        if value is not None:
            _put(merged, name, value)
    return validate_settings(merged)


def _put_texts(record: dict[str, Any], texts: Sequence[str]) -> None:
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise SettingsError(f"--set {text!r} has no '='", "write --set section.field=value")
        _put(record, name.strip(), _parse_value(value.strip()))


def validate_settings(record: dict[str, Any]) -> Settings:
    """Nested plain values -> :class:`Settings`.

    Raises:
        SettingsError: An unknown setting or a value out of range; the first problem, named.
    """
    try:
        return Settings.model_validate(record)
    except ValidationError as error:
        raise SettingsError(first_problem(error, _all_names()), "see docs/settings.md for all settings") from None


def _all_names() -> list[str]:
    """Of the sections, and of their fields behind them."""
    sections = {name: field.annotation for name, field in Settings.model_fields.items()}
    fields = [f"{name}.{field}" for name, section in sections.items() for field in section.model_fields]  # pyright: ignore
    return [*sections, *fields]


def to_toml(settings: Settings) -> str:
    """The settings as TOML that ``--config`` takes.

    Fields that are ``None`` are left out, and so are fields of the model that its size says, so that another ``--size``
    beside the file really is another size.
    """
    record = settings.model_dump(mode="json", exclude_none=True)
    shape = {*SizeRow._fields, "heads"}
    changed = beside_size(settings.model)
    record["model"] = {name: value for name, value in record["model"].items() if name not in shape or name in changed}
    return tomli_w.dumps(record)


def beside_size(model: ModelSettings) -> dict[str, Any]:
    """The size, and the fields that are otherwise than it says or than their defaults."""
    of_size = ModelSettings.of_size(model.size).model_dump(mode="json")
    record = model.model_dump(mode="json")
    return {name: value for name, value in record.items() if name == "size" or value != of_size[name]}


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _put(record: dict[str, Any], name: str, value: object) -> None:
    section, dot, field_name = name.partition(".")
    inner = record.setdefault(section, {})
    if not dot or not isinstance(inner, dict):
        raise SettingsError(f"{name!r} is no setting", "write section.field, such as model.type_rule")
    inner[field_name] = value

"""What all sections are, and how a wrong one is told."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from meloformer.errors import SettingsError

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Base of all sections: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


SectionType = TypeVar("SectionType", bound=Section)


def checked(section: type[SectionType], name: str, values: dict[str, Any]) -> SectionType:
    """One section from plain values.

    Raises:
        SettingsError: An unknown field or a value out of range, named ``name.field``.
    """
    try:
        return section(**values)
    except ValidationError as error:
        raise SettingsError(first_problem(error, section.model_fields, prefix=f"{name}.")) from None


def first_problem(error: ValidationError, known: Collection[str], prefix: str = "") -> str:
    """The first problem of a failed validation in one sentence, with the setting's name and the value found.

    Args:
        error: Of pydantic.
        known: Names of settings, of which an unknown one may be a misspelling.
        prefix: What stands before a name.
    """
    problem = error.errors()[0]
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        close = get_close_matches(name, known, n=1)
        return f"unknown setting {prefix}{name}" + (f", did you mean {prefix}{close[0]}?" if close else "")
    message = problem["msg"].removeprefix("Value error, ")
    return f"setting {prefix}{name}: {message} (found {problem['input']!r})" if prefix + name else message

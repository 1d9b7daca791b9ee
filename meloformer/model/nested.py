"""A function over all tensors of a value, however deep they lie in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

Value = TypeVar("Value")


def map_nested(value: Value, kind: type, function: Callable[[Any], object]) -> Value:
    """The same value with every part of a kind replaced.

    Args:
        value: Dataclasses, dicts, named and plain tuples within each other; all else is left as it is.
        kind: Of the parts, such as ``Tensor``.
        function: Part -> what takes its place.
    """
    if isinstance(value, kind):
        return cast(Value, function(value))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: map_nested(getattr(value, f.name), kind, function) for f in fields(value)})
    if isinstance(value, dict):
        return cast(Value, {name: map_nested(part, kind, function) for name, part in value.items()})
    if isinstance(value, tuple):
        parts = [map_nested(part, kind, function) for part in value]
        return cast(Value, type(value)(*parts) if hasattr(value, "_fields") else tuple(parts))
    return value


def to_arrays(value: Value) -> Value:
    """With NumPy arrays for tensors of the CPU: these travel between processes as bytes, without a file for each."""
    return map_nested(value, Tensor, lambda tensor: tensor.numpy())


def to_tensors(value: Value, device: torch.device | str = "cpu") -> Value:
    """With tensors on a device for NumPy arrays."""
    return map_nested(value, np.ndarray, lambda array: torch.from_numpy(array).to(device))

"""What PyTorch is asked to do, seen from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

See = Callable[[str, Sequence[Any], list[Tensor]], None]


class Watched(TorchDispatchMode):
    """Inside, a function is told of every operation of this thread: its name, its arguments, the tensors it gives."""

    def __init__(self, see: See) -> None:
        super().__init__()
        self._see = see

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        results = result if isinstance(result, (tuple, list)) else [result]
        self._see(str(func), args, [each for each in results if isinstance(each, Tensor)])
        return result

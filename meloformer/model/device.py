"""Which device to work on."""

from __future__ import annotations

import torch

from meloformer.errors import SettingsError

DEVICE_TYPES = ("cpu", "cuda", "mps")


def choose_device(name: str) -> torch.device:
    """``auto`` is CUDA where it is present, else the CPU; any other name must be a device that is present.

    Raises:
        SettingsError: There is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.partition(":")[0] not in DEVICE_TYPES:
        raise SettingsError(f"there is no device {name!r}", f"devices are auto, {', '.join(DEVICE_TYPES)}")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0][:120]
        raise SettingsError(f"device {name!r} cannot be used here ({reason})", "use --device cpu") from None
    return device

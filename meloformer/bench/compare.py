"""Settings side by side: the same step with one setting changed, in turns."""

from __future__ import annotations

import difflib
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from meloformer.bench.memory import capped, peak_step_bytes
from meloformer.bench.prediction import PredictedMemory, predict_memory
from meloformer.bench.throughput import timed_step
from meloformer.bench.workload import Workload
from meloformer.errors import OutOfMemoryError, SettingsError
from meloformer.model.device import choose_device
from meloformer.settings import ModelSettings, Settings, TrainingSettings

SECTIONS = {"model": ModelSettings, "training": TrainingSettings}
SAID_BY_BENCH = ("seq_len", "batch_size", "seed", "device")
"""Fields of ``training`` that the measured step has from ``bench``."""
OF_BENCH = ("seq_len", "batch_size")
"""Those of them that can be compared."""
CROWDED = "out of memory beside the others"
EXAMPLE = "write --compare checkpointing=none,ffn"


@dataclass
class Contestant:
    """One value of the setting."""

    value: str
    settings: Settings
    predicted: PredictedMemory | None = None
    """On CUDA; ``None`` where there is no prediction."""
    measured_bytes: int | None = None
    """Peak of a step here."""
    problem: str = ""
    """Why nothing was measured."""
    seconds: list[float] = field(default_factory=list)
    """Of every step: wall on CUDA, CPU time of the process on a CPU, where other programs disturb the wall clock."""

    @property
    def predicted_bytes(self) -> int | None:
        """Of all tensors."""
        return self.predicted and self.predicted.total

    def time_ratio(self, first: Contestant) -> float | None:
        """Median over the turns of this step by the first one's in the same turn."""
        pairs = list(zip(self.seconds, first.seconds, strict=False))
        return statistics.median(own / other for own, other in pairs) if pairs else None

    def to_dict(self, first: Contestant) -> dict[str, Any]:
        """For ``--json``, with ratios to the first contestant."""
        return {
            "value": self.value,
            "predicted_bytes": self.predicted_bytes,
            "predicted_parts": self.predicted and self.predicted.to_dict(),
            "measured_bytes": self.measured_bytes,
            "seconds": self.seconds,
            "time_ratio": self.time_ratio(first),
            "predicted_ratio": _ratio(self.predicted_bytes, first.predicted_bytes),
            "measured_ratio": _ratio(self.measured_bytes, first.measured_bytes),
            "problem": self.problem or None,
        }  # fmt: skip


def _ratio(own: float | None, first: float | None) -> float | None:
    return own / first if own is not None and first else None


def split_comparison(text: str) -> tuple[str, list[str]]:
    """``checkpointing=none,ffn`` -> the full name of the setting, and the values as texts.

    Commas inside brackets and braces divide nothing: ``heads={track=2,onset=2},{union=4}`` has two values.

    Raises:
        SettingsError: There is no ``=``, fewer than two values, or no such setting.
    """
    name, equals, values = text.partition("=")
    parts = [part.strip() for part in _split_outside(values)]
    if not equals or len(parts) < 2 or not all(parts):
        raise SettingsError(f"--compare {text!r} does not name a setting and two values or more", EXAMPLE)
    if len(set(parts)) < len(parts):
        raise SettingsError(f"--compare {text!r} names a value twice", EXAMPLE)
    return _full_name(name.strip()), parts


def _split_outside(text: str) -> list[str]:
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "{[") - (letter in "}]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _full_name(name: str) -> str:
    known = [
        f"{section}.{own}"
        for section, model in SECTIONS.items()
        for own in model.model_fields
        if section == "model" or own not in SAID_BY_BENCH
    ] + [f"bench.{own}" for own in OF_BENCH]
    for full in known:
        if name in (full, full.partition(".")[2]):
            return full
    near = difflib.get_close_matches(name, [*known, *(full.partition(".")[2] for full in known)], 1)
    hint = (
        f"did you mean {near[0]}?" if near else "see model and training in docs/settings.md, or seq_len and batch_size"
    )
    raise SettingsError(f"--compare knows no setting {name!r}", hint)


def compare(
    contestants: list[Contestant], shards: Path | None, on_progress: Callable[[int, int], None] | None = None
) -> None:
    """Fill in memory, then times in turns. What runs out of memory gets a ``problem`` and takes no part.

    Raises:
        SettingsError: The device is not there, or a path cannot take the settings.
        InputError, ShardError: The shards cannot be used.
    """
    chosen = contestants[0].settings.bench
    device = choose_device(chosen.device)
    total, done = len(contestants) * (1 + chosen.warmup + chosen.repeats), 0

    def tick() -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(done, total)

    for contestant in contestants:
        try:
            contestant.predicted = predict_memory(contestant.settings)
        except SettingsError as error:  # heads that are too narrow for FlexAttention: a CPU may still take them
            contestant.problem = error.message
        try:
            contestant.measured_bytes = peak_step_bytes(contestant.settings, shards, device)
        except OutOfMemoryError:
            contestant.problem = "out of memory"
        tick()
    with capped(contestants[0].settings, device):
        _take_turns([each for each in contestants if each.measured_bytes is not None], shards, device, tick)


def _take_turns(
    contestants: list[Contestant], shards: Path | None, device: torch.device, tick: Callable[[], None]
) -> None:
    """All workloads are there at once; one that has no room beside the others drops out."""
    workloads: dict[str, Workload] = {}
    bench = contestants[0].settings.bench if contestants else None
    for turn in range(bench.warmup + bench.repeats if bench else 0):
        for contestant in contestants:
            if contestant.problem == CROWDED:
                continue
            try:
                if contestant.value not in workloads:
                    workloads[contestant.value] = Workload(contestant.settings, shards, device)
                wall, process = timed_step(workloads[contestant.value])
            except torch.OutOfMemoryError:
                contestant.problem = CROWDED
                workloads.pop(contestant.value, None)
                contestant.seconds.clear()
                continue
            if bench and turn >= bench.warmup:
                contestant.seconds.append(process if device.type == "cpu" else wall)
            tick()

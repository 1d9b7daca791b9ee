"""Results of experiments: one JSON object a line, and what makes a result the one that is asked for."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from experiments.train import Outcome
from meloformer.model.weights import sha256_of, weights_of
from meloformer.settings import Settings
from meloformer.training.state import COMPUTED_BY

Record = dict[str, Any]
SAME_RUN = ("seed", "rise", "seq_len", "data", "settings")
"""Where these are equal, one run has the results at all ends."""
SAME_RESULT = (*SAME_RUN, "steps")
"""Where these are equal, so is the result."""
IDENTITY = ("experiment", "variant", "budget", *SAME_RESULT)
"""``budget`` says why it ends there: all take as many steps, or as long as so many steps of the first variant."""


def identity(experiment: str, variant: str, settings: Settings, data: str, *, plain: bool) -> Record:
    """What is asked for, whatever the number of steps.

    Args:
        experiment, variant: Names.
        settings: Sections ``model`` and ``training``.
        data: Fingerprint of the training documents.
        plain: Whether the model is the plain causal transformer.
    """
    return {
        "experiment": experiment,
        "variant": variant,
        "seed": settings.training.seed,
        "seq_len": settings.training.seq_len,
        "data": data,
        "settings": digest_of(settings, plain=plain),
    }


def digest_of(settings: Settings, *, plain: bool) -> str:
    """Equal for settings that make the same model by the same steps; how attention is computed does not count."""
    record = {
        "plain": plain,
        "model": settings.model.model_dump(mode="json", exclude=set(COMPUTED_BY)),
        "training": settings.training.model_dump(mode="json", exclude={"device", "seed", "steps", "epochs"}),
    }
    if settings.training.init is not None:
        record["training"]["init"] = sha256_of(weights_of(settings.training.init))
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def of_equal(record: Record, wanted: Record) -> Record:
    """What was measured for a record, as the result of another one to which it is equal."""
    return {**{name: value for name, value in record.items() if name not in (*IDENTITY, "cost")}, **wanted}


def is_same(one: Record, other: Record, names: Sequence[str] = IDENTITY) -> bool:
    """Whether two records agree in these."""
    return all(one.get(name) == other.get(name) for name in names)


def read_results(path: Path) -> list[Record]:
    """The results in a file; a line that was cut off is none."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def write_result(path: Path, record: Record) -> None:
    """Append one, behind whole lines only."""
    text = path.read_bytes() if path.is_file() else b""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write((b"" if not text or text.endswith(b"\n") else b"\n") + json.dumps(record).encode() + b"\n")


def machine() -> str:
    """What computes."""
    return f"{torch.get_num_threads()} threads, {platform.machine()}, torch {torch.__version__}"


def to_record(outcome: Outcome) -> Record:
    """What is kept of a variant."""
    return {
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 2),
        "parameters": outcome.parameters,
        "targets": outcome.targets,
        "training_loss": round(outcome.training_loss, 5),
        "evaluation_seconds": round(outcome.evaluation_seconds, 2),
        "prediction": outcome.prediction.to_dict(),
        "curve": outcome.curve,
        "machine": machine(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }

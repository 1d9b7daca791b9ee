"""A run's folder: its settings, its vocabulary, its log of losses.

runs/NAME/
  settings.toml     what the run was made with; ``train --config`` takes it
  vocab.json        the vocabulary of its ids
  metrics.jsonl     a line a step, and a line a validation
  loss.png          the same as a picture
  tensorboard/      the same as TensorBoard events
  samples/          a short piece every so many steps
  checkpoints/      see ``checkpoint``
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from meloformer.errors import InputError, OutputError
from meloformer.files import whole_folder, write_text
from meloformer.model.weights import CHECKPOINTS_FOLDER, SETTINGS_FILE, is_packaged
from meloformer.settings import Settings
from meloformer.settings_file import load_settings, to_toml
from meloformer.shards.manifest import VOCABULARY_FILE
from meloformer.tokens.vocabulary import Vocabulary

METRICS_FILE = "metrics.jsonl"
LOSS_PICTURE = "loss.png"
EVENTS_FOLDER = "tensorboard"
SAMPLES_FOLDER = "samples"
RUN_PARTS = (
    SETTINGS_FILE,
    VOCABULARY_FILE,
    METRICS_FILE,
    LOSS_PICTURE,
    EVENTS_FOLDER,
    CHECKPOINTS_FOLDER,
    SAMPLES_FOLDER,
)
"""What a run's folder holds."""


def refuse_existing(run: Path) -> None:
    """Nothing of another run is written over.

    Raises:
        OutputError: Something is at ``run`` already, or the name is taken.
    """
    _refuse_the_name(run)
    if run.exists() and not run.is_dir():
        raise OutputError(f"{run} is a file, not a folder", "choose another --out")
    if run.exists() and any(run.iterdir()):
        raise OutputError(f"{run} exists already", "go on with --resume, or choose another --out")


def refuse_missing(run: Path) -> None:
    """Only a run can be resumed.

    Raises:
        InputError: There is no run at ``run``.
        OutputError: The name is taken.
    """
    _refuse_the_name(run)
    if not (run / SETTINGS_FILE).is_file():
        raise InputError(f"there is no run to resume at {run} (no {SETTINGS_FILE})", "start one without --resume")


def _refuse_the_name(run: Path) -> None:
    if is_packaged(run):
        raise OutputError(f"{run} is the name of the model in the package", "choose another --out")


def make_run_folder(run: Path, settings: Settings, vocabulary: Vocabulary) -> None:
    """A new run's folder, which appears with its settings and vocabulary in it.

    Raises:
        OutputError: There is a run already, or the folder cannot be written.
    """
    refuse_existing(run)
    with whole_folder(run) as folder:
        write_text(folder / SETTINGS_FILE, to_toml(settings))
        write_text(folder / VOCABULARY_FILE, vocabulary.to_json())


def shards_of(source: Path) -> Path | None:
    """The shards that a run was trained on; ``None`` where weights belong to none.

    Args:
        source: A run, one of its checkpoints, or the weights in one.
    Raises:
        SettingsError: The run's settings cannot be read.
    """
    if is_packaged(source):
        return None
    places = (source, *source.resolve().parents[:3])
    config = next((place / SETTINGS_FILE for place in places if (place / SETTINGS_FILE).is_file()), None)
    return load_settings(config).training.shards if config else None


def cut_metrics(run: Path, step: int) -> None:
    """Drop what was logged after the step that a run goes on from, and a line that was cut off."""
    path = run / METRICS_FILE
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError, KeyError, TypeError):
            if json.loads(line)["step"] <= step:
                kept.append(line)
    write_text(path, "".join(f"{line}\n" for line in kept))

"""``manifest.json``: what a stage wrote, for the next stage to check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from meloformer.errors import InputError, MeloFormerError
from meloformer.settings import Settings

FORMAT_VERSION = 2
SHARDS = "meloformer-shards"
FILTERED = "meloformer-filter"
MANIFEST_FILE = "manifest.json"
VOCABULARY_FILE = "vocab.json"
REJECTS_FILE = "rejects.jsonl"
DOCUMENTS_FILE = "documents.jsonl"
LIST_FILE = "manifest.jsonl"
FILES_OF = {
    SHARDS: (MANIFEST_FILE, VOCABULARY_FILE, REJECTS_FILE, DOCUMENTS_FILE, "*-[0-9][0-9][0-9][0-9][0-9].hid.zst"),
    FILTERED: (MANIFEST_FILE, LIST_FILE),
}
"""Stage -> patterns of the files that its folder consists of."""
_NAME_OF = {SHARDS: "shards", FILTERED: "list of filtered files"}

Split = Literal["train", "val", "test", "all"]
Count = Annotated[int, Field(ge=0)]
Sections = dict[str, dict[str, Any]]
"""Name of a section of the settings -> its fields."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ShardCounts(_Record):
    """One file; a file of other size or content than this is not the one that was written."""

    file: Annotated[str, Field(pattern=r"^[a-z]+-\d{5}\.hid\.zst$")]
    num_documents: Count
    num_tokens: Count
    num_bytes: Count


class SplitCounts(_Record):
    """What one split holds."""

    num_documents: Count = 0
    num_tokens: Count = 0
    shards: tuple[ShardCounts, ...] = ()
    """In order."""


class FilterManifest(_Record):
    """Of a filtered list of files."""

    format: Literal["meloformer-filter"] = FILTERED
    version: int = FORMAT_VERSION
    num_inputs: Count
    num_kept: Count
    rejects: dict[str, Count]
    """Reason -> number of files."""
    settings: Sections
    """What the list depends on."""


class ShardManifest(_Record):
    """Of a folder of shards."""

    format: Literal["meloformer-shards"] = SHARDS
    version: int = FORMAT_VERSION
    vocabulary_sha256: str
    num_inputs: Count
    """Files that were looked at: documents plus rejects."""
    num_documents: Count
    num_tokens: Count
    num_notes: Count
    rejects: dict[str, Count]
    """Reason -> number of files."""
    splits: dict[str, SplitCounts]
    settings: Sections
    """What the documents depend on: ``tokens``, ``pack``, and ``filter`` where they were judged."""


ManifestType = TypeVar("ManifestType", FilterManifest, ShardManifest)


def format_of(folder: Path) -> str | None:
    """What stage wrote a folder, or ``None`` where it has no manifest that says so."""
    try:
        found = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))["format"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None


def read_manifest(
    folder: Path, model: type[ManifestType], *, error: type[MeloFormerError] = InputError, command: str
) -> ManifestType:
    """The manifest of a folder.

    Args:
        folder: What a stage wrote.
        model: Which manifest it must have.
        error: What to raise otherwise.
        command: What makes such a folder.
    Raises:
        MeloFormerError: As ``error`` says: there is no manifest, one of another stage or version, or a damaged one.
    """
    path = folder / MANIFEST_FILE
    wanted = model.model_fields["format"].default
    hint = f"make the {_NAME_OF[wanted]} again with `{command}`"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise error(
            f"{folder} holds no {_NAME_OF[wanted]} ({MANIFEST_FILE}: {problem.strerror})",
            f"make the {_NAME_OF[wanted]} with `{command}`",
        ) from None
    except ValueError as problem:
        raise error(f"{path} is no manifest ({problem})", hint) from None
    if not isinstance(record, dict) or record.get("format") != wanted:
        found = record.get("format") if isinstance(record, dict) else None
        raise error(f"{folder} holds {found or 'something else'}, not {wanted}", hint)
    if record.get("version") != FORMAT_VERSION:
        raise error(f"{folder} has version {record.get('version')}, this program reads {FORMAT_VERSION}", hint)
    try:
        return model.model_validate(record)
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise error(f"{path} is damaged ({where}: {first['msg']})", hint) from None


def sections_of(settings: Settings, *names: str) -> Sections:
    """Sections of the settings as a manifest records them: without who reads, which changes nothing."""
    dumped: Sections = settings.model_dump(mode="json", include=set(names))
    if "pack" in dumped:
        for field in ("workers", "scheduler"):
            del dumped["pack"][field]
    return dumped

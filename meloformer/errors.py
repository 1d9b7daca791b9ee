"""The error family: everything here is something a user can fix.

    MeloFormerError
    ├── SettingsError      an unknown setting, or a value out of range
    ├── InputError         a path that is missing, empty or unreadable
    ├── OutputError        a path that cannot be written, a full disk
    ├── RejectError        one piece of music that cannot be used; carries a countable reason
    ├── VocabularyError    a vocabulary that is damaged or not the one expected
    ├── GrammarError       ids that are not a HID document
    ├── TextError          a wrong line in the text form
    ├── ShardError         a foreign, damaged or mismatched shard
    ├── CheckpointError    a foreign, damaged or mismatched checkpoint
    ├── RankError          another process of a run has gone
    ├── GenerationError    a wish that the grammar or the vocabulary cannot fulfil
    └── OutOfMemoryError   a training step that needs more memory than there is

The command line turns each into one line and exit code 1. ``ValueError`` is for the misuse of a public function,
``assert`` for invariants only.
"""

from __future__ import annotations


class MeloFormerError(Exception):
    """Something a user can fix.

    Args:
        message: What went wrong, where, and the value that was found, in one sentence without a full stop.
        hint: What to do next, usually a command; ``None`` where there is nothing to add.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}; {self.hint}"


class SettingsError(MeloFormerError):
    """An unknown setting, or a value out of range."""


class InputError(MeloFormerError):
    """A path that is missing, empty or unreadable."""


class OutputError(MeloFormerError):
    """A path that cannot be written, or a full disk."""


class RejectError(MeloFormerError):
    """One piece of music that cannot be used.

    Args:
        reason: A short name in kebab-case under which rejects are counted, such as ``not-midi``.
        message: What was found, in one sentence.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.args = (reason, message)  # so that it survives pickling between processes
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.message} ({self.reason})"


class VocabularyError(MeloFormerError):
    """A vocabulary that is damaged or not the one expected."""


class GrammarError(MeloFormerError):
    """Ids that are not a HID document."""


class TextError(MeloFormerError):
    """A wrong line in the text form."""


class ShardError(MeloFormerError):
    """A foreign, damaged or mismatched shard."""


class CheckpointError(MeloFormerError):
    """A foreign, damaged or mismatched checkpoint."""


class RankError(MeloFormerError):
    """Another process of a run has gone."""


class GenerationError(MeloFormerError):
    """A wish that the grammar or the vocabulary cannot fulfil."""


class OutOfMemoryError(MeloFormerError):
    """A training step that needs more memory than there is."""

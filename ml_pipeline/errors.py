"""The one tree of errors that this package raises on purpose.

    MlPipelineError
    ├── SettingsError        pipeline.yaml or the environment is wrong
    ├── CheckpointError      a source or a checkpoint file cannot be read, or is not what it claims to be
    │   ├── SourceUnreachableError   a source does not answer, is not trusted, or does not let us in
    │   ├── CheckpointChangedError   the file was written anew while it was looked at or copied
    │   └── UnknownCheckpointError   a name that a user wrote fits no checkpoint, or several
    ├── AdapterError         an adapter's files are damaged, hostile, unsupported, or do not fit the base model
    │   └── AdapterNotAppliedError   the model answers as without it
    ├── BackendError         a model cannot be loaded or cannot answer
    ├── NativeCrashError     the process that scored a checkpoint was ended by a signal
    ├── SuiteError           a suite or rubric file is wrong
    ├── ResponseFileError    a file of responses cannot be read, or holds none
    ├── ImportFileError      a file to import cannot be read, or is of no known kind
    ├── AlertError           nobody could be told of a failed check
    ├── RunCancelledError    whoever asked for the work wants no more of it
    └── StoreError           scores could not be written or read
        ├── StoreLockedError   another process holds the DuckDB file
        └── StoreFullError     the disk is full

Every message says what is wrong, where, and how to mend it. Validators collect all problems before they raise:
see `MlPipelineError.from_problems`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from ml_pipeline.printable import without_controls


class MlPipelineError(Exception):
    """Base of every error that a user can mend.

    A message may hold names and words of other machines, and goes to terminals and logs: what would move a cursor there
    is a space in it.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(without_controls(one) if isinstance(one, str) else one for one in args))

    @classmethod
    def from_problems(cls, where: str, problems: Sequence[str], remedy: str = "") -> Self:
        """Build one error out of every problem found at `where`, one line each, with the remedy last."""
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = [f"{where}: {count}", *(f"  - {problem}" for problem in problems)]
        if remedy:
            lines.append(f"  {remedy}")
        return cls("\n".join(lines))


class SettingsError(MlPipelineError):
    """pipeline.yaml or the environment is wrong."""


class CheckpointError(MlPipelineError):
    """A source or a checkpoint file cannot be read, or is not what it claims to be."""


class SourceUnreachableError(CheckpointError):
    """A source as a whole does not answer, is not trusted, or does not let us in; what was known of it stays."""


class SourceRefusesError(SourceUnreachableError):
    """A source is not trusted or does not let us in: without a person, trying again changes nothing."""


class CheckpointChangedError(CheckpointError):
    """The file was written anew while it was looked at or copied."""


class UnknownCheckpointError(CheckpointError):
    """A name that a user wrote fits no checkpoint, or several."""


class AdapterError(MlPipelineError):
    """An adapter's files are damaged, hostile, unsupported, or do not fit the base model."""


class AdapterNotAppliedError(AdapterError):
    """The model answers with the adapter as it does without."""


class BackendError(MlPipelineError):
    """A model cannot be loaded or cannot answer."""


class NativeCrashError(MlPipelineError):
    """The process that scored a checkpoint was ended by a signal: a native library crashed."""


class SuiteError(MlPipelineError):
    """A suite or rubric file is wrong."""


class ResponseFileError(MlPipelineError):
    """A file of responses cannot be read, holds no response, or was written while it was read."""


class ImportFileError(MlPipelineError):
    """A file to import cannot be read, or is of no known kind."""


class AlertError(MlPipelineError):
    """Nobody could be told of a failed check; it waits for the next try."""


class RunCancelledError(MlPipelineError):
    """Whoever asked for the work wants no more of it. What was finished is in the completion cache."""


class StoreError(MlPipelineError):
    """Scores could not be written or read."""


class StoreLockedError(StoreError):
    """Another process holds the DuckDB file."""


class StoreFullError(StoreError):
    """The disk is full."""

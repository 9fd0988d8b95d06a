"""What the training-log sensor remembers of every log between two ticks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import TypeAdapter, ValidationError

from ml_pipeline.checkpoints.log_files import LogFile


@dataclass(frozen=True, slots=True)
class SeenLog:
    """A file as it was when it was last looked at: up to which byte, its time, and whether it is a log at all."""

    offset: int
    mtime_ns: int
    is_log: bool


@dataclass
class LogCursor:
    """Seen files by source and path; `dumped` and `parsed` turn it into Dagster's text and back."""

    sources: dict[str, dict[str, SeenLog]] = field(default_factory=dict)

    def is_unchanged(self, log: LogFile) -> bool:
        """Whether the file is as it was."""
        seen = self.seen(log)
        return seen is not None and (seen.offset, seen.mtime_ns) == (log.size_bytes, log.mtime_ns)

    def seen(self, log: LogFile) -> SeenLog | None:
        """The file as it was, if it was there."""
        return self.sources.get(log.source, {}).get(log.path)

    def note(self, log: LogFile, *, is_log: bool) -> None:
        """Remember the file as it is now."""
        self.sources.setdefault(log.source, {})[log.path] = SeenLog(log.size_bytes, log.mtime_ns, is_log)

    def keep_only(self, source: str, logs: Sequence[LogFile]) -> None:
        """Forget the files of a source that are there no more."""
        there = {log.path for log in logs}
        self.sources[source] = {path: seen for path, seen in self.sources.get(source, {}).items() if path in there}

    def dumped(self) -> str:
        """The cursor as text."""
        return _CURSOR.dump_json(self.sources).decode()

    @classmethod
    def parsed(cls, text: str | None) -> LogCursor:
        """The cursor out of its text; of another form, as after an upgrade, it is an empty one: all is looked at."""
        try:
            return cls(_CURSOR.validate_json(text or "{}"))
        except ValidationError:
            return cls()


_CURSOR = TypeAdapter(dict[str, dict[str, SeenLog]])

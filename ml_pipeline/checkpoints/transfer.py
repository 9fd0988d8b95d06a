"""Copies one file from its source, going on where an earlier attempt broke off, and proves that it is whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from threading import Event

from ml_pipeline.checkpoints.part_file import PartFile
from ml_pipeline.checkpoints.source import Source
from ml_pipeline.errors import CheckpointChangedError, CheckpointError, SourceRefusesError
from ml_pipeline.printable import printable

Progress = Callable[[int, int], None]
"""Called with the bytes that are here and the bytes in all."""

_CHUNK_BYTES = 2**18
_WORTH_ANOTHER_TRY_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One version of one file: the one in `source` at `path` that has this size and modification time."""

    source: Source
    path: str
    size_bytes: int
    mtime_ns: int

    @property
    def place(self) -> str:
        """How messages name it."""
        return f"source {self.source.name}: {printable(self.path)}"

    @property
    def id(self) -> str:
        """The hash of what tells it from every other file and version."""
        text = f"{self.source.name}\n{self.source.identity}\n{self.path}\n{self.size_bytes}\n{self.mtime_ns}"
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]

    def require_unchanged(self) -> None:
        """Ask the source whether this version is still there.

        Raises:
            CheckpointChangedError: another one is.
            CheckpointError: none is, or the source does not answer.
        """
        now = self.source.stat(self.path)
        if (now.size_bytes, now.mtime_ns) != (self.size_bytes, self.mtime_ns):
            raise CheckpointChangedError(
                f"{self.place} changed since it was discovered ({self.size_bytes} bytes then, {now.size_bytes} now). "
                "Score it again once training has left it."
            )


def copy_file(file: SourceFile, part: FileIO, progress: Progress, waits_s: Sequence[float], stop: Event) -> str:
    """Append what `part` lacks of `file` and return the sha256 over all its bytes in hexadecimal.

    The part's own bytes are read again first, so that the hash covers what lies on this disk. Afterwards the part is
    durable. A broken transfer is taken up again after each of `waits_s` seconds, counted anew when it got somewhere;
    `stop` ends it. When this raises, the part keeps what came, for the next attempt.

    Raises:
        CheckpointChangedError: the file has another size or time than `file` says; the part is of no use any more.
        SourceRefusesError: the source is not trusted or does not let us in; not tried again.
        CheckpointError: it cannot be read, or broke off again and again, or `stop` was set.
        StoreFullError, StoreError: the part cannot be written.
    """
    with PartFile(part) as out:
        here = out.begin(file.size_bytes)
        failures, counted_from = 0, here
        while True:
            try:
                progress(here, file.size_bytes)
                for chunk in _chunks(file, here):
                    out.append(chunk)
                    here += len(chunk)
                    progress(here, file.size_bytes)
                    _require_going_on(file, here, stop)
                file.require_unchanged()
                return out.finish()
            except (CheckpointChangedError, SourceRefusesError):
                raise
            except CheckpointError as error:
                _require_going_on(file, here, stop)
                if here - counted_from >= _WORTH_ANOTHER_TRY_BYTES:
                    failures, counted_from = 0, here
                if failures == len(waits_s):
                    raise CheckpointError(
                        f"{file.place}: the transfer broke off {failures + 1} times, {_kept(file, here)}. Last: {error}"
                    ) from error
                stop.wait(waits_s[failures])
                failures += 1


def _chunks(file: SourceFile, offset: int) -> Iterator[bytes]:
    """The file's bytes from `offset` to its size; what lies beyond is never read."""
    try:
        with file.source.open(file.path, offset) as incoming:
            while offset < file.size_bytes:
                chunk = incoming.read(min(_CHUNK_BYTES, file.size_bytes - offset))
                if not chunk:
                    file.require_unchanged()
                    raise CheckpointError(f"{file.place} ended after {offset} of {file.size_bytes} bytes.")
                offset += len(chunk)
                yield chunk
    except (OSError, EOFError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise CheckpointError(f"{file.place} cannot be read after {offset} bytes: {reason}.") from error


def _require_going_on(file: SourceFile, here: int, stop: Event) -> None:
    if stop.is_set():
        raise CheckpointError(f"{file.place}: the transfer was stopped, {_kept(file, here)}.")


def _kept(file: SourceFile, here: int) -> str:
    return f"with {here} of {file.size_bytes} bytes kept: the next attempt goes on from there"

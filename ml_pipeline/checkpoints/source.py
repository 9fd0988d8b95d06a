"""Where checkpoints come from: one interface for every kind of source, and the local folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from ml_pipeline.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a folder in a source."""

    name: str
    is_folder: bool
    size_bytes: int
    mtime_ns: int


class Source(Protocol):
    """A place that holds run folders. Paths are relative to the source, with forward slashes; "" is its root."""

    name: str

    def list_folder(self, path: str) -> list[Entry]:
        """The regular files and folders in `path`, unsorted; raises CheckpointError when it cannot be read."""

    def open(self, path: str, offset: int = 0) -> BinaryIO:
        """Open a file for reading from byte `offset` on; raises CheckpointError when it cannot be read.

        Reading raises OSError, EOFError or CheckpointError when the connection breaks.
        """

    def stat(self, path: str) -> Entry:
        """Size and time of one file or folder; raises CheckpointError when it is not there."""


class LocalFolder:
    """A folder of this machine.

    Symbolic links are followed only as far as they stay inside the folder, so that a link laid there by somebody else
    cannot make the program read other files.
    """

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.root = root.resolve()

    def list_folder(self, path: str) -> list[Entry]:
        """The regular files and folders in `path`; entries that vanish meanwhile or are neither are left out."""
        with self._readable(path) as folder, os.scandir(folder) as entries:
            return [entry for item in entries if (entry := self._entry(Path(item.path))) is not None]

    def open(self, path: str, offset: int = 0) -> BinaryIO:
        """Open a file for reading from byte `offset` on."""
        with self._readable(path) as file:
            opened = file.open("rb")
            opened.seek(offset)
            return opened

    def stat(self, path: str) -> Entry:
        """Size and time of one file or folder."""
        with self._readable(path) as file:
            entry = self._entry(file)
        if entry is None:
            raise CheckpointError(f"source {self.name}: {path!r} is neither a file nor a folder.")
        return entry

    def _entry(self, path: Path) -> Entry | None:
        try:
            real = path.resolve(strict=True)
            info = real.stat()
        except (OSError, RuntimeError):
            return None
        if not real.is_relative_to(self.root) or not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)):
            return None
        return Entry(path.name, stat.S_ISDIR(info.st_mode), info.st_size, info.st_mtime_ns)

    @contextmanager
    def _readable(self, path: str) -> Iterator[Path]:
        try:
            real = self.root.joinpath(PurePosixPath(path)).resolve(strict=True)
            if not real.is_relative_to(self.root):
                raise CheckpointError(f"source {self.name}: {path!r} leads out of {self.root}. Copy the files inside.")
            yield real
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise CheckpointError(
                f"source {self.name}: cannot read {path or '.'!r} in {self.root}: {reason}. "
                "Mend the path or the permissions, or sources in pipeline.yaml."
            ) from error

"""Where checkpoints come from: one interface for every kind of source, and the local folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol, TypeVar

from ml_pipeline.errors import CheckpointError, SourceUnreachableError
from ml_pipeline.source_settings import DEFAULT_RUN_PREFIX

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a folder in a source. With `trouble` it cannot be used, and the text says why."""

    name: str
    is_folder: bool
    size_bytes: int
    mtime_ns: int
    trouble: str = ""


class Source(Protocol):
    """A place that holds run folders. Paths are relative to the source, with forward slashes; "" is its root.

    Names that are no UTF-8 are given with surrogates (`surrogateescape`), as Python does for local files. A method on
    one path raises CheckpointError when it cannot be read; one on several gives the error as that path's result, and
    raises SourceUnreachableError when the source as a whole is not there.
    """

    name: str
    run_prefix: str
    """How the names of its run folders begin; the rest is the run's name."""

    @property
    def identity(self) -> str:
        """What is read, whatever the source is called; what is remembered of it goes by this."""

    @property
    def mtime_granularity_ns(self) -> int | None:
        """Two changes of a folder that are nearer than this may show the same time; None: folders have no times."""

    def list_folder(self, path: str) -> list[Entry]:
        """The regular files and folders in `path`, unsorted."""

    def list_folders(self, paths: Sequence[str]) -> dict[str, list[Entry] | CheckpointError]:
        """As `list_folder`, for many at once."""

    def stat(self, path: str) -> Entry:
        """Size and time of one file or folder."""

    def stats(self, paths: Sequence[str]) -> dict[str, Entry | CheckpointError]:
        """As `stat`, for many at once."""

    def read_starts(self, wanted: Mapping[str, int]) -> dict[str, bytes | CheckpointError]:
        """The first so many bytes of each file, or all of a shorter one."""

    def open(self, path: str, offset: int = 0) -> BinaryIO:
        """Open a file for reading, from `offset` bytes after its start."""


class LocalFolder:
    """A folder of this machine.

    Symbolic links are followed only as far as they stay inside the folder, so that a link laid there by somebody else
    cannot make the program read other files.
    """

    mtime_granularity_ns = 20 * 10**6
    """Linux stamps files with the time of its last tick, at most 10 ms ago."""
    run_prefix = DEFAULT_RUN_PREFIX

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.root = root.resolve()

    @property
    def identity(self) -> str:
        """The folder's address."""
        return self.root.as_uri()

    def list_folder(self, path: str) -> list[Entry]:
        """The regular files and folders in `path`; entries that vanish meanwhile or are neither are left out."""
        with self._readable(path) as folder, os.scandir(folder) as entries:
            return [entry for item in entries if (entry := self._entry(Path(item.path))) is not None]

    def list_folders(self, paths: Sequence[str]) -> dict[str, list[Entry] | CheckpointError]:
        """As `list_folder`, for each."""
        return each(self.list_folder, paths)

    def stat(self, path: str) -> Entry:
        """Size and time of one file or folder."""
        with self._readable(path) as file:
            entry = self._entry(file)
        if entry is None:
            raise CheckpointError(f"source {self.name}: {path!r} is neither a file nor a folder.")
        return entry

    def stats(self, paths: Sequence[str]) -> dict[str, Entry | CheckpointError]:
        """As `stat`, for each."""
        return each(self.stat, paths)

    def read_starts(self, wanted: Mapping[str, int]) -> dict[str, bytes | CheckpointError]:
        """The first bytes of each file."""
        return each(lambda path: self._read_start(path, wanted[path]), wanted)

    def open(self, path: str, offset: int = 0) -> BinaryIO:
        """Open a file for reading."""
        with self._readable(path) as file:
            opened = file.open("rb")
            opened.seek(offset)
            return opened

    def _read_start(self, path: str, length: int) -> bytes:
        with self._readable(path) as file, file.open("rb") as opened:
            return opened.read(length)

    def _entry(self, path: Path) -> Entry | None:
        try:
            real = path.resolve(strict=True)
            info = real.stat()
        except (OSError, RuntimeError) as error:
            if path.is_symlink():
                return bad_link(path.name, str(error.strerror if isinstance(error, OSError) else "a circle of links"))
            return None
        if not real.is_relative_to(self.root):
            return bad_link(path.name, f"it leads out of {self.root}. Copy the files inside")
        if not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)):
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


def bad_link(name: str, reason: str) -> Entry:
    """The entry of a link that cannot be followed."""
    return Entry(name, False, 0, 0, trouble=f"a link that cannot be followed: {reason}")


def each(read: Callable[[str], Result], paths: Iterable[str]) -> dict[str, Result | CheckpointError]:
    """What `read` gives for each path, or the error that it raises for it; for sources that read one by one.

    Raises:
        SourceUnreachableError: the source as a whole is not there.
    """
    found: dict[str, Result | CheckpointError] = {}
    for path in paths:
        try:
            found[path] = read(path)
        except SourceUnreachableError:
            raise
        except CheckpointError as error:
            found[path] = error
    return found

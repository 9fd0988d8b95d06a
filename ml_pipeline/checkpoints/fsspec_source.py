"""Run folders in object storage, or on any other file system that the optional package fsspec knows."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, BinaryIO, TypeVar, cast

from ml_pipeline.addresses import reason, secrets_in, shown_url
from ml_pipeline.checkpoints.source import Entry
from ml_pipeline.errors import CheckpointError
from ml_pipeline.source_settings import DEFAULT_RUN_PREFIX

_READ_BYTES = 8 * 2**20
_CALLS_AT_ONCE = 8
Result = TypeVar("Result")

_TIME_FIELDS = ("mtime", "LastModified", "last_modified", "updated", "modified", "last_commit", "created")
_VERSION_FIELDS = ("ETag", "etag", "md5Hash", "checksum", "generation", "version_id", "VersionId", "blob_id", "sha256")
_FOLDED_NS = 10**6


class FsspecFolder:
    """A folder at an fsspec URL. Symbolic links are not followed.

    The file system is opened when it is used first, so that one that is not installed or cannot be reached fails only
    its own source. `timeout_s` bounds every answer where the file system has such a bound.
    """

    mtime_granularity_ns = sys.maxsize
    """An object store has no folders whose times could say that nothing changed in them."""
    run_prefix = DEFAULT_RUN_PREFIX

    def __init__(self, name: str, url: str, options: Mapping[str, Any], timeout_s: float) -> None:
        self.name = name
        self.identity = shown_url(url)
        """The folder's address, as messages show it."""
        self._url = url
        self._options = dict(options)
        self._timeout_s = timeout_s
        self._opened: tuple[Any, str] | None = None

    def list_folder(self, path: str) -> list[Entry]:
        """The regular files and folders in `path`; what is neither, or has no proper name, is left out.

        Raises:
            CheckpointError: it cannot be read, or the file system is not installed.
        """
        with self._problems("list", path):
            file_system, folder, limits = self._place(path)
            file_system.invalidate_cache()
            listed = file_system.ls(folder, detail=True, **limits)
            entries = [entry for info in listed if (entry := _entry(folder, info)) is not None]
        return list({entry.name: entry for entry in entries}.values())

    def list_folders(self, paths: Sequence[str]) -> dict[str, list[Entry] | CheckpointError]:
        """As `list_folder`, several at a time."""
        return self._at_once(self.list_folder, paths)

    def open(self, path: str, offset: int = 0) -> BinaryIO:
        """Open a file for reading from byte `offset` on; raises CheckpointError when it cannot be read."""
        return cast(BinaryIO, io.BufferedReader(self._reader(path, offset), _READ_BYTES))

    def stat(self, path: str) -> Entry:
        """Size and time of one file or folder; raises CheckpointError when it is not there.

        Asked of the parent's listing: on several file systems the answer for a single file has other fields, so that
        it would seem to have changed.
        """
        found = self.stats([path])[path]
        if isinstance(found, CheckpointError):
            raise found
        return found

    def stats(self, paths: Sequence[str]) -> dict[str, Entry | CheckpointError]:
        """As `stat`, with one listing for all that lie in the same folder."""
        listed = self.list_folders(sorted({path.rpartition("/")[0] for path in paths}))
        return {path: self._find(path, listed[path.rpartition("/")[0]]) for path in paths}

    def read_starts(self, wanted: Mapping[str, int]) -> dict[str, bytes | CheckpointError]:
        """The first so many bytes of each file, or all of a shorter one; several at a time."""
        return self._at_once(lambda path: self._reader(path, 0).read(wanted[path]) or b"", list(wanted))

    def read_range(self, path: str, start: int, end: int) -> bytes:
        """The bytes from `start` up to `end` of a file; raises CheckpointError when they cannot be read."""
        with self._problems("read", path):
            file_system, full, limits = self._place(path)
            return bytes(file_system.cat_file(full, start=start, end=end, **limits))

    def _reader(self, path: str, offset: int) -> _RangeReader:
        with self._problems("open", path):
            file_system, full, limits = self._place(path)
            return _RangeReader(self, path, int(file_system.info(full, **limits)["size"]), offset)

    def _find(self, path: str, siblings: list[Entry] | CheckpointError) -> Entry | CheckpointError:
        if isinstance(siblings, CheckpointError):
            return siblings
        name = path.rpartition("/")[2]
        missing = CheckpointError(f"source {self.name}: there is no {path!r} in {self.identity}.")
        return next((entry for entry in siblings if entry.name == name), missing)

    def _at_once(self, read: Callable[[str], Result], paths: Sequence[str]) -> dict[str, Result | CheckpointError]:
        def result(path: str) -> Result | CheckpointError:
            try:
                return read(path)
            except CheckpointError as error:
                return error

        if paths and self._opened is None:
            result(paths[0])  # opens the file system once for all threads
        with ThreadPoolExecutor(_CALLS_AT_ONCE) as pool:
            return dict(zip(paths, pool.map(result, paths), strict=True))

    def _place(self, path: str) -> tuple[Any, str, dict[str, float]]:
        """The file system, the whole path on it, and the arguments that bound a call."""
        if path and ("\0" in path or any(part in ("", ".", "..") for part in path.split("/"))):
            raise CheckpointError(
                f"source {self.name}: {path!r:.200} is no path inside the source. Rename what is called so."
            )
        if self._opened is None:
            self._opened = self._open_file_system()
        file_system, root = self._opened
        limits = {"timeout": self._timeout_s} if getattr(file_system, "async_impl", False) else {}
        return file_system, f"{root}/{path}" if path else root, limits

    def _open_file_system(self) -> tuple[Any, str]:
        if secrets := secrets_in(self._url, self._options):
            raise CheckpointError(
                f"source {self.name}: sources.{self.name} in pipeline.yaml holds what looks like a secret "
                f"({', '.join(secrets)}), which does not belong there. Use the environment or the files in which "
                "the file system itself looks for it."
            )
        protocol = self._url.partition("://")[0]
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise CheckpointError(
                f"source {self.name}: {self.identity} needs the Python package fsspec. "
                "Run: pip install 'ml_pipeline[remote]'"
            ) from error
        try:
            file_system, root = url_to_fs(
                self._url, skip_instance_cache=True, use_listings_cache=False, **self._options
            )
        except ImportError as error:
            raise CheckpointError(
                f"source {self.name}: {protocol}:// needs one more Python package: {error}. Install it with pip."
            ) from error
        except ValueError as error:
            raise CheckpointError(
                f"source {self.name}: {self.identity} cannot be opened: {reason(error)} "
                f"Mend sources.{self.name} in pipeline.yaml."
            ) from error
        return file_system, str(root).rstrip("/")

    @contextmanager
    def _problems(self, action: str, path: str) -> Iterator[None]:
        try:
            yield
        except CheckpointError:
            raise
        except Exception as error:  # every file system has errors of its own kinds
            raise CheckpointError(
                f"source {self.name}: cannot {action} {path or '.'!r} in {self.identity}: {reason(error)} "
                f"Check the connection, the rights, and sources.{self.name} in pipeline.yaml."
            ) from error


class _RangeReader(io.RawIOBase):
    """Reads a file by ranges, each bounded in time, with nothing cached in between."""

    def __init__(self, folder: FsspecFolder, path: str, size_bytes: int, offset: int) -> None:
        self._folder = folder
        self._path = path
        self._size_bytes = size_bytes
        self._at = offset

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size_bytes)
        if end <= self._at:
            return 0
        content = self._folder.read_range(self._path, self._at, end)[: len(buffer)]
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


def _entry(folder: str, info: Mapping[str, Any]) -> Entry | None:
    full = str(info["name"]).rstrip("/")
    name = full[len(folder) + 1 :]
    if full.strip("/") != f"{folder}/{name}".strip("/") or name in ("", ".", "..") or "/" in name or "\0" in name:
        return None
    kind, size_bytes = info.get("type"), info.get("size")
    if info.get("islink") or kind not in ("file", "directory"):
        return None
    if kind == "directory":
        return Entry(name, True, 0, _version_ns(info))
    if not isinstance(size_bytes, int) or size_bytes < 0:
        return None
    return Entry(name, False, size_bytes, _version_ns(info))


def _version_ns(info: Mapping[str, Any]) -> int:
    """The modification time in ns since 1970, in which the content's own mark is folded where there is one.

    The mark (an etag, a checksum) takes the place of everything below a millisecond, so that an object that is
    overwritten within one tick of its store's clock shows as changed. Without a time it is all there is.
    """
    time_ns = next((t for name in _TIME_FIELDS if (t := _time_ns(info.get(name))) is not None), None)
    marks = [f"{name}={info[name]}".replace('"', "") for name in _VERSION_FIELDS if info.get(name)]
    if not marks:
        return time_ns or 0
    mark = int.from_bytes(hashlib.sha256("\n".join(marks).encode()).digest()[:6])
    return mark if time_ns is None else time_ns - time_ns % _FOLDED_NS + mark % _FOLDED_NS


def _time_ns(value: Any) -> int | None:
    if isinstance(value, Mapping):
        value = value.get("date")
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime):
        value = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**33:
        return None
    return round(value * 10**6) * 1000

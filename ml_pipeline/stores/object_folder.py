"""The Parquet store's folder in object storage, through the optional package fsspec and what it loads.

An object is put or copied in one step: readers see the old one or the new one. Credentials are found by the file system
itself, in the environment or its own files.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from ml_pipeline.addresses import reason, secrets_in, shown_url
from ml_pipeline.errors import StoreError
from ml_pipeline.files import own_cache
from ml_pipeline.stores.locks import locked
from ml_pipeline.stores.store_folder import StoredFile

_ONE_STEP = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory")
_WRITING = ("write", "keep")
"""Where these do not find something, it is the bucket that is not there."""
_TIMEOUT_S = 60.0


class ObjectFolder:
    """A StoreFolder at an address; the file system is opened when it is used first.

    Raises:
        StoreError: (by the constructor) files there cannot be replaced in one step, or the address holds a password.
    """

    def __init__(self, url: str) -> None:
        self._shown = shown_url(url).rstrip("/")
        protocol = url.partition("://")[0]
        if protocol not in _ONE_STEP:
            raise StoreError(
                f"stores.parquet: a file at {protocol}:// cannot be replaced in one step, so that a crash could harm "
                f"it. Name a folder on a disk or an address with {', '.join(_ONE_STEP[:-1])}."
            )
        if secrets_in(url, {}):
            raise StoreError(
                f"stores.parquet: {self._shown} holds a password, which does not belong in pipeline.yaml. Use the "
                "environment or the files in which the file system itself looks for it."
            )
        self._url = url
        self._opened: tuple[Any, str] | None = None

    def place(self, name: str) -> str:
        """The file's address."""
        return f"{self._shown}/{name}"

    def names(self, folder: str) -> list[str]:
        """As StoreFolder has it; raises StoreError."""
        try:
            with self._problems("list", folder):
                system, path, limits = self._at(folder)
                listed = system.ls(path, detail=True, **limits)
        except FileNotFoundError:
            return []
        return [str(info["name"]).rpartition("/")[2] for info in listed if info["type"] == "file"]

    def below(self, folder: str) -> list[StoredFile]:
        """As StoreFolder has it; raises StoreError."""
        with self._problems("list", folder):
            system, path, limits = self._at(folder)
            _, root, _ = self._at("")
            found: Mapping[str, Any] = system.find(path, detail=True, **limits)
        names = {full[len(root) :].lstrip("/"): info for full, info in found.items()}
        return [
            StoredFile(name, self.place(name), int(info["size"]), _modified_s(info))
            for name, info in sorted(names.items())
        ]

    def exists(self, name: str) -> bool:
        """As StoreFolder has it; raises StoreError."""
        return self.mark(name) is not None

    def mark(self, name: str) -> Hashable:
        """All that the store says of the object, its ETag or version among it."""
        try:
            with self._problems("look at", name):
                system, path, limits = self._at(name)
                return repr(sorted(system.info(path, **limits).items(), key=lambda item: str(item[0])))
        except FileNotFoundError:
            return None

    def read(self, name: str) -> bytes:
        """As StoreFolder has it; raises FileNotFoundError, StoreError."""
        with self._problems("read", name):
            system, path, limits = self._at(name)
            return bytes(system.cat_file(path, **limits))

    def sha256(self, name: str) -> str:
        """As StoreFolder has it; raises FileNotFoundError, StoreError."""
        return hashlib.sha256(self.read(name)).hexdigest()

    def opened(self, name: str, *, whole: bool) -> Any:
        """The object in memory when all of it is wanted and else something that asks for ranges of it."""
        if whole:
            return pa.BufferReader(self.read(name))
        with self._problems("open", name):
            system, path, limits = self._at(name)
            size_bytes = int(system.info(path, **limits)["size"])
        return pa.PythonFile(_Ranges(self, name, size_bytes), mode="r")

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """The bytes from `start` up to `end`; raises FileNotFoundError, StoreError."""
        with self._problems("read", name):
            system, path, limits = self._at(name)
            return bytes(system.cat_file(path, start=start, end=end, **limits))

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """As StoreFolder has it, from a temporary file of this machine; raises StoreError."""
        with tempfile.TemporaryDirectory(prefix="ml_pipeline-") as folder:
            temporary = Path(folder) / "written"
            yield temporary
            with self._problems("write", name):
                system, path, limits = self._at(name)
                system.put_file(str(temporary), path, **limits)

    def write(self, name: str, data: bytes) -> None:
        """As StoreFolder has it; raises StoreError."""
        with self._problems("write", name):
            system, path, limits = self._at(name)
            system.pipe_file(path, data, **limits)

    def keep(self, name: str, target: str) -> None:
        """As StoreFolder has it: the object store copies it itself; raises StoreError."""
        with self._problems("keep", name):
            system, path, limits = self._at(name)
            system.cp_file(path, self._at(target)[1], **limits)

    def remove(self, names: Iterable[str]) -> None:
        """As StoreFolder has it; raises StoreError."""
        for name in names:
            try:
                with self._problems("delete", name):
                    system, path, limits = self._at(name)
                    system.rm_file(path, **limits)
            except FileNotFoundError:
                continue

    def locked(self, name: str, *, shared: bool) -> AbstractContextManager[None]:
        """As StoreFolder has it, by a file of this machine and user; raises StoreLockedError, StoreError."""
        digest = hashlib.sha256(self.place(name).encode()).hexdigest()[:24]
        return locked(own_cache() / "locks" / f"{digest}.lock", shared=shared)

    def remove_leftovers(self) -> int:
        """Nothing: what was not put whole is not there."""
        return 0

    def _at(self, name: str) -> tuple[Any, str, dict[str, float]]:
        """The file system, the whole path on it, and the arguments that bound a call."""
        if self._opened is None:
            self._opened = self._open_file_system()
        system, root = self._opened
        limits = {"timeout": _TIMEOUT_S} if getattr(system, "async_impl", False) else {}
        return system, f"{root}/{name}".rstrip("/"), limits

    def _open_file_system(self) -> tuple[Any, str]:
        protocol = self._url.partition("://")[0]
        try:
            from fsspec.core import url_to_fs

            system, root = url_to_fs(self._url, skip_instance_cache=True, use_listings_cache=False)
        except ImportError as error:
            extra = "s3" if protocol.startswith("s3") else "remote"
            raise StoreError(
                f"stores.parquet: {self._shown} needs one more Python package: {error}. "
                f"Run: pip install 'ml_pipeline[{extra}]'"
            ) from error
        except ValueError as error:
            raise StoreError(f"stores.parquet: {self._shown} cannot be opened: {reason(error)}") from error
        return system, str(root).rstrip("/")

    @contextmanager
    def _problems(self, action: str, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # every file system has errors of its own kinds
            not_there = isinstance(error, FileNotFoundError) and action not in _WRITING
            if not_there or isinstance(error, StoreError):
                raise
            raise StoreError(
                f"cannot {action} {self.place(name)}: {reason(error)} Check the connection, the rights, and "
                "stores.parquet in pipeline.yaml, then run again: what was there before is unharmed."
            ) from error


class _Ranges(io.RawIOBase):
    """Reads an object by ranges."""

    def __init__(self, folder: ObjectFolder, name: str, size_bytes: int) -> None:
        self._folder = folder
        self._name = name
        self._size_bytes = size_bytes
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        starts = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size_bytes}
        self._position = starts[whence] + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        end = self._size_bytes if size is None or size < 0 else min(self._position + size, self._size_bytes)
        if end <= self._position:
            return b""
        data = self._folder.read_range(self._name, self._position, end)
        self._position += len(data)
        return data


def _modified_s(info: Mapping[str, Any]) -> float:
    """When an object was put, in s since 1970, by the name that its file system has for that; 0 if it does not say."""
    times = (info.get(name) for name in ("LastModified", "last_modified", "mtime", "updated", "modified", "created"))
    for value in times:
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return 0.0

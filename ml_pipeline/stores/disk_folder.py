"""The Parquet store's folder on a disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Hashable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from ml_pipeline.errors import StoreError
from ml_pipeline.files import (
    fsync,
    keep_as,
    remove_leftovers,
    replacing,
    store_errors,
    write_atomically,
)
from ml_pipeline.stores.locks import locked
from ml_pipeline.stores.store_folder import StoredFile


class DiskFolder:
    """A StoreFolder at `path`, which is made by the first write."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def place(self, name: str) -> str:
        """The file's path."""
        return str(self.path / name)

    def names(self, folder: str) -> list[str]:
        """As StoreFolder has it; raises StoreError."""
        path = self.path / folder
        with store_errors("list", path):
            try:
                return [name for name in os.listdir(path) if not name.startswith(".")]  # noqa: PTH208 (twice as fast)
            except FileNotFoundError:
                return []

    def below(self, folder: str) -> list[StoredFile]:
        """As StoreFolder has it, links left out; raises StoreError."""
        found = []
        with store_errors("list", self.path / folder):
            for path in sorted((self.path / folder).rglob("*")):
                if path.is_file() and not path.is_symlink() and not path.name.startswith("."):
                    info = path.stat()
                    name = path.relative_to(self.path).as_posix()
                    found.append(StoredFile(name, str(path), info.st_size, info.st_mtime))
        return found

    def exists(self, name: str) -> bool:
        """As StoreFolder has it."""
        return (self.path / name).exists()

    def mark(self, name: str) -> Hashable:
        """The file's inode, size and time; a file that takes another's place has another inode."""
        try:
            with _errors("look at", self.path / name):
                info = (self.path / name).stat()
        except FileNotFoundError:
            return None
        return info.st_ino, info.st_size, info.st_mtime_ns

    def read(self, name: str) -> bytes:
        """As StoreFolder has it; raises FileNotFoundError, StoreError."""
        with _errors("read", self.path / name):
            return (self.path / name).read_bytes()

    def sha256(self, name: str) -> str:
        """As StoreFolder has it; raises FileNotFoundError, StoreError."""
        with _errors("read", self.path / name), (self.path / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def opened(self, name: str, *, whole: bool) -> str:
        """The path, which pyarrow reads best itself."""
        return str(self.path / name)

    def replacing(self, name: str) -> AbstractContextManager[Path]:
        """As StoreFolder has it; raises StoreFullError, StoreError."""
        return replacing(self.path / name)

    def write(self, name: str, data: bytes) -> None:
        """As StoreFolder has it; raises StoreFullError, StoreError."""
        write_atomically(self.path / name, data)

    def keep(self, name: str, target: str) -> None:
        """As StoreFolder has it, without a copy where the disk can; raises StoreFullError, StoreError."""
        keep_as(self.path / name, self.path / target)

    def remove(self, names: Iterable[str]) -> None:
        """As StoreFolder has it, with folders that are empty then; raises StoreError."""
        folders = set()
        for name in names:
            path = self.path / name
            with store_errors("delete", path):
                path.unlink(missing_ok=True)
            folders.add(path.parent)
        for folder in folders:
            with suppress(OSError):
                folder.rmdir()
            if folder.is_dir():
                with store_errors("write", folder):
                    fsync(folder)

    def locked(self, name: str, *, shared: bool) -> AbstractContextManager[None]:
        """As StoreFolder has it; raises StoreLockedError, StoreError."""
        return locked(self.path / name, shared=shared)

    def remove_leftovers(self) -> int:
        """As StoreFolder has it; raises StoreError."""
        return remove_leftovers(self.path) if self.path.exists() else 0


@contextmanager
def _errors(action: str, path: Path) -> Iterator[None]:
    """As `store_errors`, but that a file is not there stays FileNotFoundError."""
    try:
        with store_errors(action, path):
            yield
    except StoreError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise error.__cause__ from None
        raise

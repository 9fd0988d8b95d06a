"""What the Parquet store asks of the folder that it lies in, be that on a disk or in object storage.

Names are relative to the folder, with `/` between their parts. A file that is not there is a FileNotFoundError;
everything else that goes wrong is a StoreError.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file, where it lies (a path or an address), its size, and when it was written, in s since 1970."""

    name: str
    place: str
    size_bytes: int
    modified_s: float


class StoreFolder(Protocol):
    """A folder whose files are replaced whole, in one step each."""

    def place(self, name: str) -> str:
        """Where a file lies, for people: a path or an address."""

    def names(self, folder: str) -> list[str]:
        """The names of the finished files right in `folder`, without it; none where there is no such folder."""

    def below(self, folder: str) -> list[StoredFile]:
        """The finished files at any depth below `folder`, by name."""

    def exists(self, name: str) -> bool:
        """Whether a file is there."""

    def mark(self, name: str) -> Hashable:
        """Something that is another whenever the file was replaced; None while it is not there."""

    def read(self, name: str) -> bytes:
        """A file's content."""

    def sha256(self, name: str) -> str:
        """The SHA-256 of a file's content, in hex."""

    def opened(self, name: str, *, whole: bool) -> Any:
        """What pyarrow reads a Parquet file from; `whole` when all of it is wanted."""

    def replacing(self, name: str) -> AbstractContextManager[Path]:
        """A local path to write to; at the end of the body the file becomes that, durably and in one step.

        When the body raises, the old file stays.
        """

    def write(self, name: str, data: bytes) -> None:
        """Replace a file, as `replacing` does."""

    def keep(self, name: str, target: str) -> None:
        """Keep a file durably as `target` too; one that is there already counts as kept."""

    def remove(self, names: Iterable[str]) -> None:
        """Remove files, durably; those that are gone already do not matter."""

    def locked(self, name: str, *, shared: bool) -> AbstractContextManager[None]:
        """Hold the lock called `name`, alone or with others, among the processes of this machine."""

    def remove_leftovers(self) -> int:
        """Remove what killed writers left half made; return how many files."""

"""The sha256 of a file, worked out once a process for as long as the file stays as it is."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path


def file_sha256(path: Path) -> str:
    """Return the sha256 of the file at `path` in hexadecimal.

    Remembered by path, size, times and inode, so that asking again costs one stat. The change time is among them
    because a copy that keeps the modification time would go unnoticed otherwise.

    Raises:
        OSError: the file cannot be read.
    """
    status = path.stat()
    return _file_sha256(str(path.absolute()), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


@functools.lru_cache(maxsize=4096)
def _file_sha256(path: str, size_bytes: int, mtime_ns: int, ctime_ns: int, inode: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

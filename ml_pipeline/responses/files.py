"""Finds the files of responses in a folder, and names their partitions."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from ml_pipeline.checkpoints.naming import escaped, unescaped
from ml_pipeline.errors import ResponseFileError, StoreError
from ml_pipeline.stores.rows import check_partition_key

_SUFFIX = ".jsonl"


@dataclass(frozen=True, slots=True)
class ResponseFile:
    """A file as it was found: its partition's key, its size in bytes and its modification time in ns since 1970."""

    key: str
    size_bytes: int
    mtime_ns: int


@dataclass(slots=True)
class FoundFiles:
    """What one look found: files to be scored, how many are still being written, and what cannot be taken."""

    files: list[ResponseFile] = field(default_factory=list)
    growing: int = 0
    problems: list[str] = field(default_factory=list)


def find_response_files(folder: Path, *, now_ns: int, settle_s: float) -> FoundFiles:
    """Look for `*.jsonl` in a folder, which may be missing; hidden files and folders in it are passed over.

    A file that was touched within `settle_s` seconds is left for a later look. So is one whose time lies as little
    ahead of this machine's clock.

    Raises:
        ResponseFileError: the folder cannot be listed.
    """
    found = FoundFiles()
    try:
        with os.scandir(folder) as entries:
            names = sorted(e.name for e in entries if e.name.endswith(_SUFFIX) and not e.name.startswith("."))
    except FileNotFoundError:
        return found
    except OSError as error:
        raise ResponseFileError(f"{folder} cannot be listed: {error.strerror}. Mend its permissions.") from error
    for name in names:
        try:
            info = (folder / name).lstat()
        except OSError:  # gone since it was listed
            continue
        if not stat.S_ISREG(info.st_mode):
            found.problems.append(
                f"{folder / name!s:.300} is not a plain file. Put a copy of what it stands for there."
            )
            continue
        key = file_partition_key(name)
        try:
            check_partition_key(key)
        except StoreError as error:
            found.problems.append(f"{name!a:.300} in {folder} cannot be scored. Rename it: {error}")
            continue
        if abs(now_ns - info.st_mtime_ns) < settle_s * 1e9:
            found.growing += 1
        else:
            found.files.append(ResponseFile(key, info.st_size, info.st_mtime_ns))
    return found


def file_partition_key(name: str) -> str:
    """The partition of the file of this name, which may lack its `.jsonl`."""
    return escaped(name.removesuffix(_SUFFIX))


def file_name(partition_key: str) -> str:
    """The name of the file that a partition is of.

    Raises:
        ResponseFileError: the key is of no file.
    """
    stem = unescaped(partition_key)
    if "/" in stem or "\0" in stem or escaped(stem) != partition_key:
        raise ResponseFileError(
            f"{partition_key!r:.100} names no file of responses: it must be a file's name without {_SUFFIX}, other "
            "characters than letters, digits, '.', '_' and '-' written as =XX. The response-file sensor adds those it "
            "finds."
        )
    return f"{stem}{_SUFFIX}"

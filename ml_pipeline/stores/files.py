"""Writing files so that a crash or a full disk leaves the old file or the new one, never half of one."""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ml_pipeline.errors import StoreError, StoreFullError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK, errno.ENOSYS})
_TEMPORARY_SUFFIX = ".tmp"


@contextmanager
def store_errors(action: str, path: Path) -> Iterator[None]:
    """Turn an OSError of the body into a StoreError that says what failed, where, and how to mend it.

    Raises:
        StoreFullError: the disk, a quota or the process's file size limit is used up.
        StoreError: any other OSError.
    """
    try:
        yield
    except OSError as error:
        what = f"cannot {action} {path}: {error.strerror or error}"
        if error.errno in _FULL:
            raise StoreFullError(
                f"{what}. Free space on that disk (or raise the quota or limit), then run again: "
                "what was there before is unharmed."
            ) from error
        if error.errno in _FORBIDDEN:
            raise StoreError(
                f"{what}. Make {path.parent} writable for this user, or set another folder under `stores` "
                "or `data_dir` in pipeline.yaml."
            ) from error
        raise StoreError(f"{what}. Check the disk and the folder {path.parent}, then run again.") from error


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path`: temporary file in the same folder, fsync, rename, fsync of the folder.

    Readers see the old content or the new. On failure the temporary file is removed and the old content stays; after
    a kill the temporary file may stay, which `remove_leftovers` clears.

    Raises:
        StoreFullError, StoreError: as in `store_errors`.
    """
    with store_errors("write", path):
        temporary = write_temporary(path, data)
        try:
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        fsync_folder(path.parent)


def write_temporary(path: Path, data: bytes) -> Path:
    """Write `data` durably beside `path` under a temporary name and return that; the caller renames it.

    Raises:
        OSError: and then nothing is left behind.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_TEMPORARY_SUFFIX}")
    # Not `tempfile`: its files are private to one user, and scores are for the whole group to read.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    return temporary


def keep_as(source: Path, target: Path) -> None:
    """Keep `source` durably under `target` as well; an existing `target` counts as kept.

    Raises:
        StoreFullError, StoreError: as in `store_errors`.
    """
    with store_errors("keep the superseded version as", target):
        make_folder(target.parent)
        try:
            os.link(source, target)
        except FileExistsError:
            return
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            write_atomically(target, source.read_bytes())
        fsync_folder(target.parent)


def make_folder(folder: Path) -> None:
    """Make `folder` and its parents, each durably.

    Raises:
        OSError: it cannot be made.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    fsync_folder(folder.parent)


def fsync_folder(folder: Path) -> None:
    """Make renames and removals in `folder` survive a power cut.

    Raises:
        OSError: the folder cannot be opened or synced.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_temporary(path: Path) -> bool:
    """Whether `path` is a file that a killed writer left, or a running one is writing."""
    return path.name.startswith(".") and path.name.endswith(_TEMPORARY_SUFFIX)


def remove_leftovers(folder: Path, *, older_than_s: float = 3600) -> int:
    """Remove temporary files below `folder` that no living writer can still own; return how many.

    Raises:
        StoreError: a folder cannot be read or changed.
    """
    limit, removed = time.time() - older_than_s, 0
    with store_errors("clear temporary files in", folder):
        for path in folder.rglob(f".*{_TEMPORARY_SUFFIX}"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < limit:
                    path.unlink()
                    removed += 1
    return removed

"""Writing files so that a crash or a full disk leaves the old file or the new one, never half of one."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ml_pipeline.errors import StoreError, StoreFullError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK, errno.ENOSYS})
_TEMPORARY_SUFFIX = ".tmp"
_PIECE_BYTES = 2**20
_SECONDS_BETWEEN_TRIES = 0.02


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


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; at the end of the body it is synced and renamed to `path`.

    Readers see the old content or the new. The temporary name is unique, so several may write at once and the last to
    finish wins. When the body raises, the temporary file is removed and the old content stays; after a kill it may
    stay, which `remove_leftovers` clears.

    Raises:
        StoreFullError, StoreError: as in `store_errors`.
    """
    with store_errors("write", path):
        make_folder(path.parent)
        temporary = temporary_beside(path)
        try:
            yield temporary
            fsync(temporary)
            temporary.replace(path)
            fsync(path.parent)
        finally:
            with suppress(OSError):
                temporary.unlink()


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` as `replacing` does, with its errors."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def temporary_beside(path: Path) -> Path:
    """A name of its own in the same folder, by which `is_temporary` and `remove_leftovers` know it."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}{_TEMPORARY_SUFFIX}")


def write_temporary(path: Path, data: bytes) -> Path:
    """Write `data` durably beside `path` under a temporary name and return that; the caller renames it.

    Raises:
        OSError: and then nothing is left behind.
    """
    make_folder(path.parent)
    temporary = temporary_beside(path)
    try:
        temporary.write_bytes(data)
        fsync(temporary)
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
        fsync(target.parent)


@contextmanager
def locked_within(path: Path, longest_s: float) -> Iterator[bool]:
    """Hold the lock of the file `path`, made if need be, until the end of the body or of the process.

    The body is told whether it could be had within `longest_s`, or another process held it all the while.

    Raises:
        StoreError: the file cannot be made.
    """
    with store_errors("lock", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield _flocked(descriptor, time.monotonic() + longest_s)
    finally:
        os.close(descriptor)


def _flocked(descriptor: int, give_up_at: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= give_up_at:
                return False
            time.sleep(_SECONDS_BETWEEN_TRIES)


def make_folder(folder: Path) -> None:
    """Make `folder` and its parents, each durably.

    Raises:
        OSError: it cannot be made.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    fsync(folder.parent)


def fsync(path: Path) -> None:
    """Make a file's content, or renames and removals in a folder, survive a power cut.

    Raises:
        OSError: it cannot be opened or synced.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def modified_ns(path: Path) -> int:
    """When a file was modified last, in nanoseconds since 1970; 0 for one that is not there any more."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def bounded_lines(
    file: BinaryIO, most_bytes: int, seen: Callable[[bytes], object] = lambda piece: None
) -> Iterator[bytes | None]:
    """Each line of a file, its end included; None for one of more than `most_bytes` without its end.

    Of such a line no more than a piece is ever in memory. `seen` is told every byte that is read.
    """
    while line := file.readline(most_bytes + 1):
        seen(line)
        too_long = len(line) > most_bytes and not line.endswith(b"\n")
        piece = line if too_long else b""
        while piece and not piece.endswith(b"\n"):
            piece = file.readline(_PIECE_BYTES)
            seen(piece)
        yield None if too_long else line


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

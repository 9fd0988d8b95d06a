"""Writing files so that a crash or a full disk leaves the old file or the new one, never half of one.

What is made is for the user alone, whatever the umask says: folders 0700, files 0600. Answers of models, prompts and
points may be private, and so may be what a training is called. `share_files` has it otherwise.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ml_pipeline.errors import StoreError, StoreFullError

if TYPE_CHECKING:
    from ml_pipeline.settings import Sharing

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK, errno.ENOSYS})
_TEMPORARY_SUFFIX = ".tmp"
_PIECE_BYTES = 2**20
_SECONDS_BETWEEN_TRIES = 0.02
_ALL = 0o777

_ALLOWED: dict[Sharing, int] = {"none": 0o700, "group": 0o770, "all": 0o755}


class _Modes:
    """What of a file's mode is allowed in this process, and the umask that it had before it was told."""

    allowed = _ALLOWED["none"]
    umask_before: int | None = None


def share_files(sharing: Sharing) -> None:
    """Say for whom this process makes files from now on, and what it starts: the user alone, the group too, or all.

    Sets the umask as well, for what libraries write by themselves: DuckDB, SQLite, Dagster. For a program of ours, and
    not for a notebook, whose other files are none of our business.
    """
    _Modes.allowed = _ALLOWED[sharing]
    before = os.umask(_ALL & ~_Modes.allowed)
    if _Modes.umask_before is None:
        _Modes.umask_before = before


@contextmanager
def sharing_within() -> Iterator[None]:
    """Let what `share_files` changes in the body end with it."""
    allowed, umask_before = _Modes.allowed, _Modes.umask_before
    umask = os.umask(0o077)
    os.umask(umask)
    try:
        yield
    finally:
        _Modes.allowed, _Modes.umask_before = allowed, umask_before
        os.umask(umask)


@contextmanager
def named_by_user() -> Iterator[None]:
    """Make files in the body as any other program would: they lie where the user said, and the user's umask holds."""
    allowed, _Modes.allowed = _Modes.allowed, _ALL
    ours = None if _Modes.umask_before is None else os.umask(_Modes.umask_before)
    try:
        yield
    finally:
        _Modes.allowed = allowed
        if ours is not None:
            os.umask(ours)


def file_mode() -> int:
    """The mode that a new file is made with; the umask may take more from it."""
    return _Modes.allowed & 0o666


def folder_mode() -> int:
    """The mode that a new folder is made with; the umask may take more from it."""
    return _Modes.allowed


def lock_file(path: Path) -> int:
    """A descriptor of a file that is there to be locked, made if need be; its content stays, and no link is followed.

    Raises:
        OSError: it cannot be made, or is a link.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, file_mode())


def own_cache() -> Path:
    """The folder of this user for what belongs to no project: `ml_pipeline` in $XDG_CACHE_HOME or ~/.cache.

    Where there is no home that can be written to, a folder of the system's temporary one, whose name can be foreseen:
    it is taken only if it is this user's and nobody else can have laid it there.

    Raises:
        StoreError: somebody else owns it, or it is a link.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    try:
        homes = Path(named) if os.path.isabs(named) else Path.home() / ".cache"  # noqa: PTH117 (of a plain string)
        return _own_folder(homes / "ml_pipeline")
    except (OSError, RuntimeError):  # there is no home
        temporary = Path(tempfile.gettempdir()) / f"ml_pipeline-{os.getuid()}"
        with store_errors("make", temporary):
            return _own_folder(temporary)


def _own_folder(folder: Path) -> Path:
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    # Asked of the open folder: a name could be laid anew between two looks at it.
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise StoreError(f"{folder} is a link or no folder, laid there by somebody. Remove it.") from error
        raise
    try:
        info = os.fstat(descriptor)
        if info.st_uid != os.getuid():
            raise StoreError(
                f"{folder} belongs to another user (number {info.st_uid}). Have it removed, or set XDG_CACHE_HOME to a "
                "folder of your own."
            )
        if stat.S_IMODE(info.st_mode) & 0o077:
            os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)
    return folder


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
            allow(temporary)
            fsync(temporary)
            temporary.replace(path)
            fsync(path.parent)
        finally:
            with suppress(OSError):
                temporary.unlink()


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` as `replacing` does, with its errors."""
    with replacing(path) as temporary:
        _write_new(temporary, data)


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
        _write_new(temporary, data)
        fsync(temporary)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    return temporary


def allow(path: Path) -> None:
    """Take from a file's mode what `share_files` does not allow; what somebody else wrote has any.

    Raises:
        OSError: it is not there, or not this user's.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & ~_Modes.allowed:
        path.chmod(mode & _Modes.allowed)


def _write_new(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, file_mode())
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


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
        descriptor = lock_file(path)
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
    folder.mkdir(mode=folder_mode(), exist_ok=True)
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

"""The copy of the database for analysts: whoever holds it open keeps nobody from writing the database.

It is a file of its own that is replaced whole, so an open shell goes on reading what it opened, and sees newer rows
when it opens the file again. A copy has the modification time of the database that it was made of.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ml_pipeline.errors import StoreError
from ml_pipeline.files import remove_leftovers, replacing, store_errors
from ml_pipeline.stores.duckdb_files import connection, queued
from ml_pipeline.stores.duckdb_holder import snapshot_path

_READ_ONLY = 0o444
_PIECE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A copy of the database: where, its size, the seconds it took, and of those how long writers had to wait.

    `is_new` is false where the copy that was there already has all rows.
    """

    path: Path
    size_bytes: int
    seconds: float
    held_s: float
    is_new: bool


def make_snapshot(database: Path, lock_timeout_s: float) -> Snapshot:
    """Copy the database to `snapshot_path`, unless it has not changed since it was copied last.

    Writers wait while the file is copied, which takes no time where the file system can share the blocks (Btrfs, XFS).
    Readers of the old copy keep it until they close it.

    Raises:
        StoreError: there is no database, or the copy cannot be written. The old copy stays.
        StoreLockedError: another process holds the database for longer than `lock_timeout_s`.
        StoreFullError: the disk is full.
    """
    started = time.monotonic()
    target = snapshot_path(database)
    if not database.exists():
        raise StoreError(f"{database} does not exist. Score a checkpoint first, or run `ml-pipeline rebuild`.")
    if _is_current(database, target):
        return Snapshot(target, target.stat().st_size, time.monotonic() - started, 0.0, is_new=False)
    with replacing(target) as temporary:
        remove_leftovers(target.parent)
        held_s = _copy(database, temporary, lock_timeout_s)
        temporary.chmod(_READ_ONLY)
        # Of somebody who wrote into the old copy all the same: DuckDB would take it for the new one's.
        _log_of(target).unlink(missing_ok=True)
        size_bytes = temporary.stat().st_size
    return Snapshot(target, size_bytes, time.monotonic() - started, held_s, is_new=True)


def _is_current(database: Path, target: Path) -> bool:
    with store_errors("look at", database):
        if not target.exists() or _log_of(database).exists():
            return False
        now, then = database.stat(), target.stat()
    return (now.st_size, now.st_mtime_ns) == (then.st_size, then.st_mtime_ns)


def _copy(database: Path, temporary: Path, lock_timeout_s: float) -> float:
    """Copy the file while nobody writes it; return for how many seconds that kept writers waiting."""
    # Without a log everything is in the file, and other readers need not go away.
    settled = not _log_of(database).exists()
    with queued(database, lock_timeout_s, shared=settled):
        started = time.monotonic()
        # Opened first and closed last: closing any descriptor of a file drops all of a process's locks on it, and so
        # DuckDB's.
        with (
            database.open("rb") as source,
            connection(database, lock_timeout_s, read_only=settled, queue=False) as connected,
            temporary.open("wb") as target,
        ):
            if not settled:
                connected.execute("CHECKPOINT")
            made = os.fstat(source.fileno())
            _copy_bytes(source, target, made.st_size)
        os.utime(temporary, ns=(made.st_mtime_ns, made.st_mtime_ns))
        return time.monotonic() - started


def _copy_bytes(source: BinaryIO, target: BinaryIO, size: int) -> None:
    """Copy `size` bytes from the beginning, by the kernel where it can: then it shares the blocks if it can."""
    done = 0
    if hasattr(os, "copy_file_range"):
        with suppress(OSError):
            while done < size:
                copied = os.copy_file_range(source.fileno(), target.fileno(), size - done, done, done)
                if not copied:
                    break
                done += copied
    source.seek(done)
    target.seek(done)
    shutil.copyfileobj(source, target, _PIECE_BYTES)


def _log_of(database: Path) -> Path:
    """DuckDB's write-ahead log, which holds what a killed process did not get into the file."""
    return database.with_name(f"{database.name}.wal")

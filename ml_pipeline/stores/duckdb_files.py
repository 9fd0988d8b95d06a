"""Opening a DuckDB file that other processes use too: bounded waits, and errors with the remedy.

DuckDB lets one process write a file, or many read it. Connections here are held for one short transaction. Processes
of this package queue at `<file>.lock` besides: DuckDB's own lock is on the file's content, so it cannot protect one
that opens the file just while a rebuild puts another in its place.
"""

from __future__ import annotations

import fcntl
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

import duckdb

from ml_pipeline.errors import StoreError, StoreFullError
from ml_pipeline.files import allow, lock_file, make_folder, store_errors
from ml_pipeline.stores.duckdb_holder import holders, locked

_FULL = ("no space left on device", "quota exceeded", "file too large")
_THREADS = threading.RLock()
"""Threads of one process share DuckDB's lock, so it does not keep their transactions from conflicting; this does."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.02, 0.5


@contextmanager
def connection(
    path: Path, lock_timeout_s: float, *, read_only: bool = False, queue: bool = True
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that is closed at the end of the body, whatever happens in it.

    Times read as UTC, and DuckDB is kept from downloading extensions. Without `queue` the caller is inside `queued`
    already, or nobody else knows the file.

    Raises:
        StoreLockedError: another process still holds the file after `lock_timeout_s`.
        StoreFullError: the disk is full.
        StoreError: the file is damaged, not writable, or of a newer DuckDB; or the body's SQL failed.
    """
    if not read_only:
        with store_errors("make the folder of", path):
            make_folder(path.parent)
    started = time.monotonic()
    with queued(path, lock_timeout_s, shared=read_only) if queue else nullcontext(), _duckdb_errors(path):
        connected = _connect(path, lock_timeout_s, started + lock_timeout_s, read_only)
        try:
            connected.execute("SET TimeZone = 'UTC'; SET autoinstall_known_extensions = false")
            yield connected
        finally:
            connected.close()


@contextmanager
def queued(path: Path, lock_timeout_s: float, *, shared: bool = False) -> Iterator[None]:
    """Keep the other threads and processes of this package from the file, or from writing it if `shared`.

    Raises:
        StoreLockedError: they still use it after `lock_timeout_s`.
        StoreError: the lock's file cannot be made.
    """
    lock = path.with_name(f"{path.name}.lock")
    give_up_at = time.monotonic() + lock_timeout_s
    if not _THREADS.acquire(timeout=lock_timeout_s):
        raise locked(path, lock_timeout_s, "another thread of this same process")
    try:
        with ExitStack() as stack:
            if not shared or (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
                with store_errors("open", lock):
                    descriptor = lock_file(lock)
                stack.callback(os.close, descriptor)
                _flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, give_up_at, path, lock, lock_timeout_s)
            yield
    finally:
        _THREADS.release()


def _flock(descriptor: int, kind: int, give_up_at: float, path: Path, lock: Path, lock_timeout_s: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= give_up_at:
                raise locked(path, lock_timeout_s, holders(lock)) from None
            time.sleep(_FIRST_WAIT_S)


@contextmanager
def transaction(connected: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Commit the body's changes together, or none of them."""
    connected.execute("BEGIN")
    try:
        yield
        connected.execute("COMMIT")
    except BaseException:
        # A failed COMMIT has already rolled back, and then there is nothing left to roll back.
        with suppress(duckdb.Error):
            connected.execute("ROLLBACK")
        raise


def quoted(name: str) -> str:
    """`name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"


def _connect(path: Path, lock_timeout_s: float, give_up_at: float, read_only: bool) -> duckdb.DuckDBPyConnection:
    wait_s = _FIRST_WAIT_S
    while True:
        try:
            is_new = not path.exists()
            connected = duckdb.connect(str(path), read_only=read_only)
            if is_new and path.exists():  # not of one in memory
                allow(path)
            return connected
        except duckdb.Error as error:
            if not _is_locked(error):
                raise
            left_s = give_up_at - time.monotonic()
            if left_s <= 0:
                raise locked(path, lock_timeout_s, holders(path, str(error))) from error
            # The jitter keeps two waiting processes from meeting at every try.
            time.sleep(min(left_s, wait_s * random.uniform(0.5, 1.0)))
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)


def _is_locked(error: duckdb.Error) -> bool:
    text = str(error)
    # Threads of one process share a lock, and cannot open the file to read and to write at once.
    return "Could not set lock" in text or "different configuration than existing connections" in text


@contextmanager
def _duckdb_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        text = str(error)
        if any(sign in text.lower() for sign in _FULL):
            raise StoreFullError(
                f"cannot write {path}: {text}. Free space on that disk (or raise the quota or limit), "
                "then run again (or `ml-pipeline rebuild`): the old rows are unharmed."
            ) from error
        raise StoreError(f"{path}: {text}. {_remedy(error, text)}") from error


def _remedy(error: duckdb.Error, text: str) -> str:
    if "does not exist" in text and isinstance(error, duckdb.IOException):
        return "Score a checkpoint first, or make the database from the Parquet files with `ml-pipeline rebuild`."
    if "Read-only file system" in text or "Permission denied" in text:
        return "Make the file and its folder writable for this user, or set stores.duckdb in pipeline.yaml."
    if "version number" in text:
        return "Upgrade this installation's duckdb, or move the file away and run `ml-pipeline rebuild`."
    if isinstance(error, (duckdb.IOException, duckdb.FatalException, duckdb.InternalException)):
        return "If the file is damaged, move it away and run `ml-pipeline rebuild`."
    if isinstance(error, duckdb.ConstraintException):
        return "The old rows are unharmed."
    return "Check the SQL; `SHOW TABLES` and `DESCRIBE <table>` list what there is."

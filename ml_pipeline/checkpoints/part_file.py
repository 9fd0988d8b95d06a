"""The part file of a transfer: written, hashed and synced in the background, so that the connection never waits."""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from io import FileIO
from pathlib import Path

from ml_pipeline.files import store_errors

SYNCED_EVERY_BYTES = 64 * 2**20
"""After a power cut at most twice this much is transferred again."""

_READ_BYTES = 4 * 2**20
_MOST_CHUNKS_WAITING = 64


class PartFile:
    """What came of a file so far. Used as a context manager; at its end everything that was given is in the file.

    Errors of writing surface in a later call, or at the end.
    """

    def __init__(self, part: FileIO) -> None:
        self._part = part
        self._path = Path(str(part.name))
        self._digest = hashlib.sha256()
        self._written_bytes = 0
        self._broken = False
        self._writer = ThreadPoolExecutor(1, "write part")
        self._syncer = ThreadPoolExecutor(1, "sync part")
        self._writes: deque[Future[None]] = deque()
        self._sync: Future[None] | None = None

    def begin(self, size_bytes: int) -> int:
        """Hash what is here of a file of `size_bytes` and return how much that is.

        What cannot be relied on is cut off: all of a part that is too long, and of one from before this machine was
        started last what may never have reached the disk.

        Raises:
            StoreFullError, StoreError: the part cannot be read or cut.
        """
        with store_errors("continue", self._path):
            info = os.fstat(self._part.fileno())
            usable = info.st_size if info.st_size <= size_bytes else 0
            if info.st_mtime < _started_at():
                usable = max(0, usable - usable % SYNCED_EVERY_BYTES - SYNCED_EVERY_BYTES)
            self._part.truncate(usable)
            self._part.seek(0)
            while chunk := self._part.read(_READ_BYTES):
                self._digest.update(chunk)
        self._written_bytes = usable
        return usable

    def append(self, chunk: bytes) -> None:
        """Add bytes; waits only when the disk is slower than the connection.

        Raises:
            StoreFullError, StoreError: bytes given before could not be written.
        """
        while len(self._writes) >= _MOST_CHUNKS_WAITING:
            self._writes.popleft().result()
        self._writes.append(self._writer.submit(self._write, chunk))

    def finish(self) -> str:
        """Make everything durable and return the sha256 over all bytes in hexadecimal.

        Raises:
            StoreFullError, StoreError: something could not be written.
        """
        self._drain()
        self._sync_now()
        return self._digest.hexdigest()

    def __enter__(self) -> PartFile:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self._drain()
        finally:
            self._writer.shutdown()
            self._syncer.shutdown()

    def _drain(self) -> None:
        while self._writes:
            self._writes.popleft().result()

    def _write(self, chunk: bytes) -> None:
        if self._broken:
            return
        try:
            with store_errors("write", self._path):
                view = memoryview(chunk)
                while view:
                    view = view[self._part.write(view) :]
        except BaseException:
            self._broken = True  # what waits behind this chunk must not be written in its place
            raise
        self._digest.update(chunk)
        before, self._written_bytes = self._written_bytes, self._written_bytes + len(chunk)
        if before // SYNCED_EVERY_BYTES < self._written_bytes // SYNCED_EVERY_BYTES:
            if self._sync is not None:
                self._sync.result()
            self._sync = self._syncer.submit(self._sync_now)

    def _sync_now(self) -> None:
        with store_errors("write", self._path):
            os.fsync(self._part.fileno())


def _started_at() -> float:
    """When this machine started, in s since 1970; later rather than earlier where time asleep is not counted."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.time() - time.clock_gettime(clock)

"""Holding files: locks that the system frees when their holder ends, however it ends.

Whoever uses a file of a cache holds a shared lock on it; whoever writes or removes one needs the exclusive lock.
"""

from __future__ import annotations

import fcntl
import os
import weakref
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


class Lease:
    """Files held against removal until `release`, or until nobody refers to the lease any more."""

    def __init__(self, descriptors: Iterable[int] = ()) -> None:
        self._end = weakref.finalize(self, _close_all, list(descriptors))

    def release(self) -> None:
        """Let go of the files; again does nothing."""
        self._end()


def lease(paths: Iterable[Path]) -> Lease | None:
    """Hold these files, or None when one of them is not there.

    To be called where nobody removes files meanwhile: in `CacheRoom.changing`.

    Raises:
        OSError: a file is there and cannot be opened.
    """
    descriptors: list[int] = []
    try:
        for path in paths:
            descriptors.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            fcntl.flock(descriptors[-1], fcntl.LOCK_SH)
    except BaseException as error:
        _close_all(descriptors)
        if isinstance(error, FileNotFoundError):
            return None
        raise
    return Lease(descriptors)


def try_lock(descriptor: int) -> bool:
    """Take the exclusive lock of an open file; False when somebody else holds the file."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_held(path: Path) -> bool:
    """Whether somebody uses or writes this file at the moment; one that is not there is not held."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not try_lock(descriptor)
    finally:
        os.close(descriptor)


def _close_all(descriptors: list[int]) -> None:
    while descriptors:
        with suppress(OSError):
            os.close(descriptors.pop())

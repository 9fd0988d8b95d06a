"""A lock that many may share or one may have alone, among the processes and threads of one machine."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ml_pipeline.errors import StoreLockedError
from ml_pipeline.files import lock_file, make_folder, store_errors

_WAIT_S = 0.005


@contextmanager
def locked(path: Path, *, shared: bool, timeout_s: float = 60.0) -> Iterator[None]:
    """Hold the lock at `path` for the body: with others (`shared`), or alone.

    Who waits to be alone holds up those who come later, so that a steady stream of them does not keep it out.

    Raises:
        StoreLockedError: it cannot be had within `timeout_s`.
        StoreError: its file cannot be made.
    """
    give_up_at = time.monotonic() + timeout_s
    with store_errors("write", path):
        make_folder(path.parent)
    with ExitStack() as held:
        with _flock(path.with_name(f"{path.name}.queue"), shared, give_up_at):
            held.enter_context(_flock(path, shared, give_up_at))
        yield


@contextmanager
def _flock(path: Path, shared: bool, give_up_at: float) -> Iterator[None]:
    with store_errors("write", path):
        descriptor = lock_file(path)
    try:
        with store_errors("lock", path):
            while True:
                try:
                    fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= give_up_at:
                        raise StoreLockedError(
                            f"{path} is held by another process of this package. Wait for it to end (`fuser {path}` "
                            "names it), then run again."
                        ) from None
                    time.sleep(_WAIT_S)
        yield
    finally:
        os.close(descriptor)

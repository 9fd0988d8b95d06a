"""Writing a file so that nobody ever sees half of it, and a full disk leaves nothing behind."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from ml_pipeline.errors import StoreError, StoreFullError

TEMPORARY_SUFFIX = ".tmp"


@contextlib.contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """Give a temporary path beside `out` to write to; at the end of the block it is synced and renamed to `out`.

    The temporary name is unique, so two processes may write the same file at once and the last to finish wins. When the
    block raises, the temporary file is removed and `out` stays as it was.

    Raises:
        StoreFullError: the disk is full, or the quota used up.
        StoreError: the folder cannot be written to.
    """
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        temporary.replace(out)
        # The rename itself survives a power cut only once the folder is synced too.
        _sync(out.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFullError(
                f"{out}: the disk is full. Free some space (converted adapters in {out.parent} may be deleted: "
                "they are made again), or set another folder in pipeline.yaml."
            ) from error
        raise StoreError(f"{out}: cannot be written: {error.strerror}. Check the folder's permissions.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

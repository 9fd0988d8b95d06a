"""A disk of our own, in memory: small, so that it can be filled, and made read-only for root too."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_FILLER = "filler"
_SUDO = [] if os.geteuid() == 0 else ["sudo", "-n"]


@dataclass(frozen=True)
class Disk:
    """A mounted disk."""

    folder: Path

    def fill(self, left_bytes: int) -> None:
        """Leave so much room."""
        status = os.statvfs(self.folder)
        with (self.folder / _FILLER).open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, status.f_bavail * status.f_frsize - left_bytes))

    def make_room(self) -> None:
        """Undo `fill`."""
        (self.folder / _FILLER).unlink()

    def remount(self, mode: str) -> None:
        """Make it read-only (`ro`) or writable again (`rw`)."""
        subprocess.run([*_SUDO, "mount", "-o", f"remount,{mode}", str(self.folder)], check=True)


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Disk]:
    """A disk until the end of the body; where none can be mounted the test is skipped, or fails if CI=true."""
    folder.mkdir(exist_ok=True)
    command = [*_SUDO, "mount", "-t", "tmpfs", "-o", f"{options},uid={os.getuid()}", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True) if shutil.which(command[0]) else None
    if done is None or done.returncode:
        reason = f"tmpfs cannot be mounted here: {done.stderr.strip() if done else 'no sudo'}"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    try:
        yield Disk(folder)
    finally:
        subprocess.run([*_SUDO, "umount", "-l", str(folder)], check=True)

"""Real programs that tests start: where they come from, and starting and ending them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest


def require_binary(name: str, debian_package: str) -> str:
    """The path of a program; without it the test is skipped, or fails where CI=true must have it."""
    found = shutil.which(name)
    if found:
        return found
    reason = f"`{name}` is not installed (Debian: apt-get install {debian_package})"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    """A loopback port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: Sequence[str], log: Path, ready: Callable[[], bool], timeout_s: float = 30) -> Iterator[None]:
    """Run a server until the end of the body; its output goes to `log`, and is shown if it never gets ready."""
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as process:
        try:
            give_up_at = time.monotonic() + timeout_s
            while not ready():
                if process.poll() is not None or time.monotonic() > give_up_at:
                    pytest.fail(f"{command[0]} did not get ready:\n{log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()

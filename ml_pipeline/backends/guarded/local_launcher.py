"""The server as a child of this process, on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress

from ml_pipeline.errors import BackendError

_END_WAIT_S = 10.0
_PIECE_BYTES = 1 << 16


class LocalLauncher:
    """Starts guards as child processes."""

    where = "this machine"

    def launch(self, command: Sequence[str], timeout_s: float) -> LocalLink:
        """Start a guard; raises BackendError when there is no such program."""
        try:
            # A group of its own: Ctrl-C in the terminal must not end the server before we are done with it.
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            raise BackendError(
                f"mlx_server on {self.where}: cannot run {command[0]}: {error.strerror}. "
                "Set backend.python to a Python that has mlx-lm installed."
            ) from error
        return LocalLink(process)


class LocalLink:
    """A guard's pipes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr

    def send(self, data: bytes) -> None:
        """Write to the guard's standard input."""
        view = memoryview(data)
        try:
            while view:
                view = view[self._stdin.write(view) :]
        except ValueError as error:
            raise OSError("the link is closed") from error

    def receive(self) -> bytes:
        """Wait for its standard output."""
        return _read(self._stdout.fileno())

    def receive_error(self) -> bytes:
        """Wait for its standard error."""
        return _read(self._stderr.fileno())

    def connect(self, port: int, timeout_s: float) -> socket.socket:
        """Connect to a port of this machine's loopback."""
        return socket.create_connection(("127.0.0.1", port), timeout_s)

    def close(self) -> None:
        """End its input and wait for its end; its output stays readable for those who still read."""
        with suppress(OSError):
            self._stdin.close()
        try:
            self.process.wait(_END_WAIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def abandon(self) -> None:
        """Kill it; the server ends with it."""
        self.process.kill()
        self.close()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _PIECE_BYTES)
    except OSError:
        return b""

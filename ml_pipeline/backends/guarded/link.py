"""What connects us with the guard where the model is: its three streams, and sockets to the server's port."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ml_pipeline.backends.guarded import guard
from ml_pipeline.backends.loopback_http import Socket

# Nothing in it needs more than the shell's simplest quoting. The working folder is dropped from the module path: it is
# the user's home, where a file called json.py would be imported instead of Python's.
_BOOTSTRAP = "import base64,sys;sys.path=[p for p in sys.path if p];exec(base64.b64decode(sys.argv.pop(1)))"


class Link(Protocol):
    """A running guard. The guard ends its server when the link is closed or breaks."""

    def send(self, data: bytes) -> None:
        """Write to the guard's standard input. Raises OSError when the link is broken."""

    def receive(self) -> bytes:
        """Wait for its standard output; no bytes at the end."""

    def receive_error(self) -> bytes:
        """Wait for its standard error; no bytes at the end."""

    def connect(self, port: int, timeout_s: float) -> Socket:
        """Connect to a port on the guard's own loopback. Raises OSError, TimeoutError when it takes too long."""

    def close(self) -> None:
        """End the guard's input, and the link with it. Safe to call twice."""

    def abandon(self) -> None:
        """Drop a link that no longer answers, with the connection that carries it."""


class Launcher(Protocol):
    """Starts guards on one host."""

    where: str

    def launch(self, command: Sequence[str], timeout_s: float) -> Link:
        """Run the guard's command. Raises BackendError when that cannot even be tried."""


def guard_command(python: Sequence[str], lost_after_s: float) -> list[str]:
    """The command that runs the guard under the host's `python`; it ends after so many seconds of silence."""
    source = base64.b64encode(Path(guard.__file__).read_bytes()).decode("ascii")
    return [*python, "-c", _BOOTSTRAP, source, str(lost_after_s)]

"""The server on another machine: started over an SSH connection, reached through channels of the same connection."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import paramiko

from ml_pipeline.errors import BackendError

_PIECE_BYTES = 1 << 16
_LOOPBACK = "127.0.0.1"
_END_WAIT_S = 10.0


class SshLauncher:
    """Starts guards on `host` over connections that `open_transport` gives: open, authenticated, host key checked.

    The connection stays the caller's. It is closed here only when it no longer answers, so that the next call of
    `open_transport` has to make a new one.
    """

    def __init__(self, host: str, open_transport: Callable[[], paramiko.Transport]) -> None:
        self.where = host
        self._open_transport = open_transport

    def launch(self, command: Sequence[str], timeout_s: float) -> SshLink:
        """Run the guard's command, every word of it quoted for the host's shell.

        Raises:
            BackendError: the connection cannot be had, or the host opens no session.
        """
        try:
            transport = self._open_transport()
            with _closed_after(transport, timeout_s):
                channel = transport.open_session(timeout=timeout_s)
                channel.exec_command(f"exec {shlex.join(command)}")
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise BackendError(
                f"mlx_server on {self.where}: cannot start a program over SSH: {error or type(error).__name__}. "
                "Check that the host is up and lets this user run commands."
            ) from error
        return SshLink(transport, channel, self.where)


class SshLink:
    """A guard's exec channel, and the connection that it shares with the tunnels."""

    def __init__(self, transport: paramiko.Transport, channel: paramiko.Channel, where: str) -> None:
        self._transport = transport
        self._channel = channel
        self._where = where

    def send(self, data: bytes) -> None:
        """Write to the guard's standard input."""
        with _as_os_errors():
            self._channel.sendall(data)

    def receive(self) -> bytes:
        """Wait for its standard output."""
        return self._read(self._channel.recv)

    def receive_error(self) -> bytes:
        """Wait for its standard error."""
        return self._read(self._channel.recv_stderr)

    def connect(self, port: int, timeout_s: float) -> ChannelSocket:
        """Open a direct-tcpip channel: nothing listens on this machine, so nobody else here can use the tunnel."""
        ends = (_LOOPBACK, port), (_LOOPBACK, 0)
        try:
            return ChannelSocket(self._transport.open_channel("direct-tcpip", *ends, timeout=timeout_s))
        except paramiko.ChannelException as error:
            raise ConnectionRefusedError(
                f"{self._where} refuses a tunnel to its own port {port}: {error.text}. "
                "Its sshd needs AllowTcpForwarding yes (or local), and nothing but the server may end there."
            ) from error
        except (paramiko.SSHException, EOFError) as error:
            raise ConnectionError(f"the connection to {self._where} is gone: {error}") from error

    def close(self) -> None:
        """End the guard's input, wait until it has ended the server, and close the channel."""
        with suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.shutdown_write()
            self._channel.status_event.wait(_END_WAIT_S)
        with suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.close()

    def abandon(self) -> None:
        """Close the connection itself."""
        self._transport.close()

    @staticmethod
    def _read(receive: Callable[[int], bytes]) -> bytes:
        try:
            return receive(_PIECE_BYTES)
        except (paramiko.SSHException, OSError, EOFError):
            return b""


class ChannelSocket:
    """A channel whose errors are those of sockets: paramiko raises EOFError and its own where a connection breaks."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def settimeout(self, timeout: float | None, /) -> None:
        """See `Socket`."""
        self._channel.settimeout(timeout)

    def recv(self, nbytes: int, /) -> bytes:
        """See `Socket`."""
        with _as_os_errors():
            return bytes(self._channel.recv(nbytes))

    def sendall(self, data: bytes, /) -> None:
        """See `Socket`."""
        with _as_os_errors():
            self._channel.sendall(data)

    def shutdown(self, how: int, /) -> None:
        """See `Socket`."""
        with _as_os_errors():
            self._channel.shutdown(how)

    def close(self) -> None:
        """See `Socket`."""
        with _as_os_errors():
            self._channel.close()


@contextmanager
def _as_os_errors() -> Iterator[None]:
    try:
        yield
    except (paramiko.SSHException, EOFError) as error:
        raise ConnectionError(str(error) or "the connection is gone") from error


@contextmanager
def _closed_after(transport: paramiko.Transport, timeout_s: float) -> Iterator[None]:
    """Bound what paramiko waits for without a limit: a host that falls silent loses the connection."""
    timer = threading.Timer(timeout_s, transport.close)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()

"""A socket that receives in large pieces, since paramiko asks for a packet's header and body one by one."""

from __future__ import annotations

import socket

_AHEAD_BYTES = 2**17


class FastSocket:
    """What paramiko needs of a socket. One thread may receive while another sends."""

    def __init__(self, plain: socket.socket) -> None:
        self._plain = plain
        self._ahead = memoryview(b"")
        self.send = plain.send
        self.close = plain.close
        self.settimeout = plain.settimeout
        self.getpeername = plain.getpeername

    @property
    def _closed(self) -> bool:
        """Whether it was closed: paramiko asks its sockets under this name."""
        return self._plain.fileno() < 0

    def recv(self, most_bytes: int) -> bytes:
        """Up to so many bytes; empty at the end of the stream. Raises as a socket does."""
        if not self._ahead:
            self._ahead = memoryview(self._plain.recv(_AHEAD_BYTES))
        part, self._ahead = self._ahead[:most_bytes], self._ahead[most_bytes:]
        return bytes(part)

"""A bad network: a TCP proxy on a loopback port that delays, stalls and cuts what goes through it."""

from __future__ import annotations

import queue
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_CHUNK_BYTES = 2**16


@dataclass
class TcpProxy:
    """What goes on between clients and `target_port`. `delay_s` is added each way; a round trip takes twice that."""

    target_port: int
    delay_s: float = 0.0
    port: int = 0
    connections: int = 0
    to_client_bytes: int = 0
    cut_after_bytes: int | None = None
    """Cut a connection when so many bytes have gone to its client ..."""
    cuts_left: int = 0
    """... so many times."""
    stall_after_bytes: int | None = None
    """Pass on nothing more when so many bytes in all have gone to clients."""
    silent: bool = False
    """Pass on nothing, either way, with every connection still open."""
    _sockets: list[socket.socket] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def cut(self) -> None:
        """Break all connections, as a machine does that restarts."""
        sockets, self._sockets = self._sockets, []
        for end in sockets:
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def serve(self, listener: socket.socket) -> None:
        """Take connections until the listener is closed."""
        while True:
            try:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target_port))
            except OSError:
                return
            self.connections += 1
            self._sockets += [client, server]
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._start(client, server, to_client=False)
            self._start(server, client, to_client=True)

    def stop(self) -> None:
        """Cut everything and end the threads."""
        self._stopped.set()
        self.cut()

    def _start(self, origin: socket.socket, target: socket.socket, *, to_client: bool) -> None:
        under_way: queue.Queue[tuple[float, bytes]] = queue.Queue()
        threading.Thread(target=self._take, args=(origin, under_way), daemon=True).start()
        threading.Thread(target=self._pass_on, args=(target, under_way, to_client), daemon=True).start()

    def _take(self, origin: socket.socket, under_way: queue.Queue[tuple[float, bytes]]) -> None:
        chunk = b"-"
        while chunk:
            try:
                chunk = origin.recv(_CHUNK_BYTES)
            except OSError:
                chunk = b""
            under_way.put((time.monotonic() + self.delay_s, chunk))

    def _pass_on(self, target: socket.socket, under_way: queue.Queue[tuple[float, bytes]], to_client: bool) -> None:
        passed_bytes = 0
        while True:
            due, chunk = under_way.get()
            time.sleep(max(0.0, due - time.monotonic()))
            while self.silent:
                if self._stopped.wait(0.05):
                    return
            if to_client:
                passed_bytes += len(chunk)
                if self.cuts_left and self.cut_after_bytes is not None and passed_bytes > self.cut_after_bytes:
                    self.cuts_left -= 1
                    self.cut()
                    return
                while self.stall_after_bytes is not None and self.to_client_bytes >= self.stall_after_bytes:
                    if self._stopped.wait(0.05):
                        return
                self.to_client_bytes += len(chunk)
            try:
                if not chunk:
                    target.shutdown(socket.SHUT_WR)
                    return
                target.sendall(chunk)
            except OSError:
                return


@contextmanager
def running_proxy(target_port: int, *, round_trip_s: float = 0.0) -> Iterator[TcpProxy]:
    """Run a proxy before a server of this machine until the end of the body."""
    proxy = TcpProxy(target_port, delay_s=round_trip_s / 2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy.port = listener.getsockname()[1]
        thread = threading.Thread(target=proxy.serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            proxy.stop()
            thread.join(5)

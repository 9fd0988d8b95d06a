"""A live SSH connection: through jumps, to machines whose keys are verified, kept alive, and shared by a process."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import paramiko

from ml_pipeline.checkpoints.ssh.fast_socket import FastSocket
from ml_pipeline.checkpoints.ssh.keys import log_in
from ml_pipeline.checkpoints.ssh.protocol import SftpProtocolError
from ml_pipeline.checkpoints.ssh.route import Hop, Route
from ml_pipeline.checkpoints.ssh.session import SftpSession
from ml_pipeline.checkpoints.ssh.trust import HostKey, check_host_key, known_types
from ml_pipeline.errors import SourceUnreachableError

BROKEN = (paramiko.SSHException, SftpProtocolError, EOFError, OSError)
"""What shows that a connection cannot be used any more."""
SESSIONS_AT_ONCE = 8
"""OpenSSH allows 10 sessions on a connection."""
WINDOW_BYTES = 16 * 2**20
PACKET_BYTES = 2**15
_KEEPALIVE_S = 30
_THREAD_END_S = 2.0
_DEATH_SHOWS_S = 0.2
"""A broken connection closes its channels a little before it counts as dead itself."""
_LOG_CHANNEL = "ml_pipeline.ssh"
# The peer's software decides among those both know by our order: GCM encrypts and verifies in one pass.
_CIPHERS_FIRST = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
_RSA_SIGNATURES = ("rsa-sha2-512", "rsa-sha2-256")


class Connection:
    """A connection to the last machine of a route; `where` starts every message, such as "source mac"."""

    def __init__(self, where: str, route: Route) -> None:
        """Connect, verify and log in to each machine of the route.

        Raises:
            SourceUnreachableError: a machine does not answer in time, is not trusted, or does not let us in.
        """
        self.where = where
        self.route = route
        self.transports: list[Any] = []
        self.was_used = False
        """Whether it has worked before, so that it may have died since."""
        self._idle: list[SftpSession] = []
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(SESSIONS_AT_ONCE)
        try:
            for hop in route.hops:
                self._connect(hop)
        except BaseException:
            self.close()
            raise

    @property
    def transport(self) -> Any:
        """The paramiko transport to the last machine, for channels other than SFTP, such as a tunnel."""
        return self.transports[-1]

    @property
    def is_alive(self) -> bool:
        """Whether every machine of the route is still connected, as far as is known."""
        return bool(self.transports) and all(transport.is_active() for transport in self.transports)

    def close(self) -> None:
        """End the connection, its sessions and its threads."""
        with self._lock:
            self._idle.clear()
        for transport in reversed(self.transports):
            transport.close()
            transport.join(_THREAD_END_S)

    def take_session(self) -> SftpSession:
        """An SFTP session for one thread, to be given back.

        Raises:
            SourceUnreachableError: all sessions are taken for longer than the time-out.
            SSHException, SftpProtocolError, EOFError, OSError: the connection is gone.
        """
        if not self._places.acquire(timeout=self.route.timeout_s):
            raise SourceUnreachableError(
                f"{self.where}: all {SESSIONS_AT_ONCE} sessions are in use. Close files before opening more."
            )
        try:
            with self._lock:
                if self._idle:
                    return self._idle.pop()
            return self._open_session()
        except BaseException:
            self._places.release()
            raise

    def give_back(self, session: SftpSession, *, reusable: bool) -> None:
        """Give a session back; one with replies under way that nobody wants is not reusable."""
        with contextlib.suppress(*BROKEN):
            if reusable and self.is_alive:
                session.flush()
                self.was_used = True
                with self._lock:
                    self._idle.append(session)
            else:
                session.close()
        self._places.release()

    def _open_session(self) -> SftpSession:
        limit_s = self.route.timeout_s
        with _closing_after(limit_s, self.transport):
            try:
                channel = self.transport.open_session(
                    window_size=WINDOW_BYTES, max_packet_size=PACKET_BYTES, timeout=limit_s
                )
            except paramiko.ChannelException as error:
                raise SourceUnreachableError(
                    f"{self.where}: {self.route} allows no further session: {reason_of(error)}. Close files, or raise "
                    f"MaxSessions in its sshd_config to {SESSIONS_AT_ONCE} or more."
                ) from error
            try:
                channel.invoke_subsystem("sftp")
                return SftpSession(channel, limit_s)
            except (paramiko.SSHException, SftpProtocolError, EOFError) as error:
                channel.close()
                self.transport.join(_DEATH_SHOWS_S)
                if not self.is_alive:
                    raise
                raise SourceUnreachableError(
                    f"{self.where}: {self.route} offers no SFTP: {reason_of(error)}. Put `Subsystem sftp "
                    "internal-sftp` into its sshd_config; with another program there, no start-up file of the user's "
                    "shell may print anything."
                ) from error
            except BaseException:
                channel.close()
                raise

    def _connect(self, hop: Hop) -> None:
        limit_s = self.route.connect_timeout_s
        try:
            stream = self._reach(hop)
            transport: Any = paramiko.Transport(stream)
            self.transports.append(transport)
            with _closing_after(limit_s, transport):
                transport.set_log_channel(_LOG_CHANNEL)
                # paramiko writes tracebacks of broken connections to its log; ours say it in one line
                logging.getLogger(_LOG_CHANNEL).setLevel(logging.CRITICAL)
                transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = limit_s
                self._prefer(transport, hop)
                transport.start_client(timeout=limit_s)
                key = transport.get_remote_server_key()
                check_host_key(
                    self.where,
                    HostKey(key.get_name(), key.asbytes()),
                    self._known_hosts(hop),
                    hop.host,
                    hop.port,
                    accept_new=self.route.accept_new_host_key,
                    direct=len(self.transports) == 1,
                    alias=hop.host_key_alias,
                )
                log_in(self.where, transport, hop)
            transport.set_keepalive(_KEEPALIVE_S)
        except BROKEN as error:
            raise SourceUnreachableError(
                f"{self.where}: cannot connect to {hop} within {limit_s:g} s: {reason_of(error)}. Check that the "
                "machine is up and host and port in pipeline.yaml are right."
            ) from error

    def _reach(self, hop: Hop) -> Any:
        """A stream to a machine: a socket, or a channel through the machine before it."""
        limit_s = self.route.connect_timeout_s
        if self.transports:
            return self.transport.open_channel(
                "direct-tcpip", (hop.host, hop.port), ("127.0.0.1", 0), WINDOW_BYTES, PACKET_BYTES, limit_s
            )
        plain = _connected(hop, limit_s)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # frees a sender whose peer takes nothing any more
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * self.route.timeout_s))
        return FastSocket(plain)

    def _known_hosts(self, hop: Hop) -> Sequence[Path]:
        return hop.known_hosts or (self.route.known_hosts,)

    def _prefer(self, transport: Any, hop: Hop) -> None:
        """Ask for a kind of host key that is known, and for the fastest cipher."""
        options = transport.get_security_options()
        known = known_types(self._known_hosts(hop), hop.host, hop.port, hop.host_key_alias)
        wanted = [name for kind in known for name in (_RSA_SIGNATURES if kind == "ssh-rsa" else (kind,))]
        options.key_types = _first(wanted, options.key_types)
        options.ciphers = _first(_CIPHERS_FIRST, options.ciphers)


def _connected(hop: Hop, limit_s: float) -> socket.socket:
    """A connection to a machine by addresses of the family that is wanted; raises OSError."""
    family = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}.get(hop.address_family)
    if family is None:
        return socket.create_connection((hop.host, hop.port), timeout=limit_s)
    addresses = socket.getaddrinfo(hop.host, hop.port, family, socket.SOCK_STREAM)
    for place, (*_, address) in enumerate(addresses, start=1):
        try:
            return socket.create_connection((str(address[0]), hop.port), timeout=limit_s)
        except OSError:
            if place == len(addresses):
                raise
    raise OSError(f"{hop.host} has no address of the family {hop.address_family}")


def reason_of(error: BaseException) -> str:
    """Why a connection broke, in a few words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, EOFError):
        return "the connection was closed"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    said = "".join(character if character.isprintable() else "?" for character in str(error))[:200]
    return said or "the connection was lost"


def _first(wanted: Any, offered: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*(name for name in wanted if name in offered), *offered]))


@contextlib.contextmanager
def _closing_after(seconds: float, transport: Any) -> Iterator[None]:
    """End the body by closing the transport when it takes too long: some waits of paramiko have no limit."""
    too_late = threading.Event()

    def end() -> None:
        too_late.set()
        transport.close()

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except BROKEN as error:
        if too_late.is_set():
            raise TimeoutError("no answer in time") from error
        raise
    finally:
        timer.cancel()


class ConnectionPool:
    """One live connection a route for the process, made again when it has died; a forked process makes its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._connections: dict[Route, Connection] = {}
        self._making: dict[Route, threading.Lock] = {}

    def get(self, where: str, route: Route) -> Connection:
        """The connection of a route.

        Raises:
            SourceUnreachableError: it cannot be made.
        """
        with self._lock:
            if self._process != os.getpid():
                self._process, self._connections, self._making = os.getpid(), {}, {}
            making = self._making.setdefault(route, threading.Lock())
        with making:  # two sources connect at the same time, two users of one source wait for one connection
            connection = self._connections.get(route)
            if connection is None or not connection.is_alive:
                if connection is not None:
                    connection.close()
                connection = self._connections[route] = Connection(where, route)
            return connection

    def drop(self, connection: Connection) -> None:
        """Close a connection that broke, so that the next `get` makes another."""
        with self._lock:
            if self._connections.get(connection.route) is connection:
                del self._connections[connection.route]
        connection.close()

    def close_route(self, route: Route) -> None:
        """Close the connection of a route, if there is one."""
        with self._lock:
            connection = self._connections.get(route)
        if connection is not None:
            self.drop(connection)

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            connections, self._connections = list(self._connections.values()), {}
        for connection in connections:
            connection.close()


POOL = ConnectionPool()
"""The connections of this process."""

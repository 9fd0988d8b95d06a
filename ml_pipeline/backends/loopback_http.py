"""HTTP to a server on a loopback port, here or through a tunnel: bounded answers, bounded waits, and an end at will."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import httpcore

from ml_pipeline.backends.printable import printable

_LARGEST_ANSWER_BYTES = 64 << 20
_LONGEST_LINE_BYTES = 4 << 20
_ERROR_BYTES = 1 << 16
_DONE = b"[DONE]"


class Socket(Protocol):
    """The part of a socket that an HTTP client needs; a paramiko channel has it too."""

    def settimeout(self, timeout: float | None, /) -> None:
        """Set the longest wait of the other calls, in s."""

    def recv(self, nbytes: int, /) -> bytes:
        """At most so many bytes; none at the end. Raises OSError, TimeoutError when it takes too long."""

    def sendall(self, data: bytes, /) -> None:
        """Send all of it. Raises OSError, TimeoutError when it takes too long."""

    def shutdown(self, how: int, /) -> None:
        """End both directions (2), so that whoever waits in `recv` wakes up."""

    def close(self) -> None:
        """Close it."""


class HttpError(Exception):
    """A request that got no whole answer. `again` when asking once more may help: the connection or server broke."""

    def __init__(self, message: str, *, again: bool) -> None:
        super().__init__(message)
        self.again = again


class HttpClient:
    """Asks one server on a loopback port. Thread-safe: as many requests at once as there are threads."""

    def __init__(
        self,
        connect: Callable[[int, float], Socket],
        port: int,
        *,
        connect_timeout_s: float,
        silence_timeout_s: float,
        api_key: str | None = None,
    ) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self._authorization: dict[bytes | str, bytes | str] = (
            {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        )
        self._sockets = _Sockets(connect)
        # The server closes after each answer, so there is nothing to keep; the threads bound the number.
        self._pool = httpcore.ConnectionPool(
            max_connections=None, max_keepalive_connections=0, network_backend=self._sockets
        )
        self._timeouts = {
            "connect": connect_timeout_s,
            "read": silence_timeout_s,
            "write": connect_timeout_s,
            "pool": connect_timeout_s,
        }

    def healthy(self, timeout_s: float) -> bool:
        """Whether the server says that it can answer."""
        try:
            with self._request("GET", "/health", None, timeout_s):
                return True
        except HttpError:
            return False

    def post(self, path: str, body: dict[str, Any], timeout_s: float | None = None) -> dict[str, Any]:
        """Ask for one JSON object; raises HttpError."""
        with self._request("POST", path, body, timeout_s) as response:
            return _object(b"".join(_bounded(response.iter_stream(), _LARGEST_ANSWER_BYTES)))

    def get(self, path: str, timeout_s: float) -> dict[str, Any]:
        """Fetch one JSON object; raises HttpError."""
        with self._request("GET", path, None, timeout_s) as response:
            return _object(b"".join(_bounded(response.iter_stream(), _LARGEST_ANSWER_BYTES)))

    def events(self, path: str, body: dict[str, Any]) -> Generator[dict[str, Any], None, None]:
        """Ask for a stream of JSON objects, until the server says that it is done.

        Raises:
            HttpError: the server refuses, or the stream ends before its end.
        """
        with self._request("POST", path, body) as response:
            for line in _lines(_bounded(response.iter_stream(), _LARGEST_ANSWER_BYTES)):
                field, _, value = line.partition(b":")
                if field != b"data":
                    continue
                if value.strip() == _DONE:
                    return
                yield _object(value)
        raise HttpError("the answer broke off", again=True)

    def abort(self) -> None:
        """End all requests under way, and refuse new ones until `allow`."""
        self._sockets.close_all()

    def allow(self) -> None:
        """Take requests again."""
        self._sockets.closed = False

    @contextmanager
    def _request(
        self, method: str, path: str, body: dict[str, Any] | None, timeout_s: float | None = None
    ) -> Iterator[httpcore.Response]:
        timeouts = self._timeouts if timeout_s is None else dict.fromkeys(self._timeouts, timeout_s)
        content = b"" if body is None else json.dumps(body).encode()
        headers: Mapping[bytes | str, bytes | str] = {
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            **self._authorization,
        }
        try:
            with self._pool.stream(
                method, self.address + path, headers=headers, content=content, extensions={"timeout": timeouts}
            ) as response:
                if response.status != 200:
                    raise _refusal(response)
                yield response
        except httpcore.TimeoutException as error:
            raise HttpError(f"nothing came for {timeouts['read']:g} s", again=True) from error
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise HttpError(f"the connection broke: {error}".rstrip(": "), again=True) from error


class _Sockets(httpcore.NetworkBackend):
    """Opens sockets and remembers them, so that all can be ended at once."""

    def __init__(self, connect: Callable[[int, float], Socket]) -> None:
        self._connect = connect
        self._open: set[_Stream] = set()
        self._lock = threading.Lock()
        self.closed = False

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Open a socket to the server."""
        assert timeout is not None
        try:
            stream = _Stream(self._connect(port, timeout), self._forget)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        with self._lock:
            self._open.add(stream)
            closed = self.closed
        if closed:
            stream.close()
        return stream

    def close_all(self) -> None:
        """Close every socket."""
        with self._lock:
            self.closed = True
            streams = list(self._open)
        for stream in streams:
            stream.close()

    def _forget(self, stream: _Stream) -> None:
        with self._lock:
            self._open.discard(stream)


class _Stream(httpcore.NetworkStream):
    """One socket as httpcore wants it."""

    def __init__(self, socket: Socket, closed: Callable[[_Stream], None]) -> None:
        self._socket = socket
        self._closed = closed

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what is there."""
        try:
            self._socket.settimeout(timeout)
            return self._socket.recv(max_bytes)
        except TimeoutError as error:
            raise httpcore.ReadTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all."""
        if not buffer:
            return
        try:
            self._socket.settimeout(timeout)
            self._socket.sendall(buffer)
        except TimeoutError as error:
            raise httpcore.WriteTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    def close(self) -> None:
        """Close, waking up whoever reads."""
        with suppress(OSError):
            self._socket.shutdown(2)
        with suppress(OSError):
            self._socket.close()
        self._closed(self)


def _refusal(response: httpcore.Response) -> HttpError:
    """The server's own words, which mlx_lm.server and llama-server both send as JSON."""
    raw = b"".join(_bounded(response.iter_stream(), _ERROR_BYTES))
    try:
        reason = error_text(_object(raw))
    except HttpError:
        reason = raw.decode("utf-8", "replace")
    again = response.status >= 500 or "generation thread died" in reason
    return HttpError(printable(reason) or f"HTTP status {response.status}", again=again)


def error_text(answer: dict[str, Any]) -> str:
    """The reason in an answer's `error`: a text, or an object with a `message`; empty without one."""
    error = answer.get("error", "")
    return str(error.get("message", error) if isinstance(error, dict) else error)


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise HttpError("the server answered with something that is not JSON", again=False) from error
    if not isinstance(value, dict):
        raise HttpError("the server answered with JSON that is not an object", again=False)
    return value


def _bounded(pieces: Iterable[bytes], limit: int) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > limit:
            raise HttpError(f"the server's answer is larger than {limit} bytes", again=False)
        yield piece


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    pending = b""
    for piece in pieces:
        *lines, pending = (pending + piece).split(b"\n")
        yield from lines
        if len(pending) > _LONGEST_LINE_BYTES:
            raise HttpError("the server sends a line without end", again=False)

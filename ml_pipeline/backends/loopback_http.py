"""HTTP to a server on a loopback port, here or through a tunnel: bounded answers, bounded waits, and an end at will."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import httpcore
import httpx

from ml_pipeline.backend_settings import LONGEST_ANSWER_S
from ml_pipeline.backends.http_answer import EventLines, HttpError, error_text, json_object
from ml_pipeline.http_bodies import ERROR_BYTES, LARGEST_ANSWER_BYTES, UNCOMPRESSED, Body, BodyError
from ml_pipeline.printable import printable


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


class HttpClient:
    """Asks one server on a loopback port. Thread-safe: as many requests at once as there are threads."""

    def __init__(
        self,
        connect: Callable[[int, float], Socket],
        port: int,
        *,
        connect_timeout_s: float,
        silence_timeout_s: float,
        answer_timeout_s: float = LONGEST_ANSWER_S,
        api_key: str | None = None,
    ) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self._authorization: dict[bytes | str, bytes | str] = (
            {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        )
        self._sockets = _Sockets(connect)
        self._answer_timeout_s = answer_timeout_s
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
            return _whole(response)

    def get(self, path: str, timeout_s: float) -> dict[str, Any]:
        """Fetch one JSON object; raises HttpError."""
        with self._request("GET", path, None, timeout_s) as response:
            return _whole(response)

    def events(self, path: str, body: dict[str, Any]) -> Generator[dict[str, Any], None, None]:
        """Ask for a stream of JSON objects, until the server says that it is done.

        Raises:
            HttpError: the server refuses, or the stream ends before its end.
        """
        with self._request("POST", path, body) as response:
            lines = EventLines()
            for piece in _pieces(response):
                yield from lines.feed(piece)
                if lines.done:
                    return
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
        answer_timeout_s = self._answer_timeout_s if timeout_s is None else timeout_s
        opening = _Opening(self._sockets, answer_timeout_s)
        content = b"" if body is None else json.dumps(body).encode()
        headers: dict[bytes | str, bytes | str] = {
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            **self._authorization,
        }
        headers.update(UNCOMPRESSED)
        try:
            # The server closes after each answer, so there is nothing to keep; the threads bound the number.
            with (
                httpcore.ConnectionPool(max_keepalive_connections=0, network_backend=opening) as pool,
                pool.stream(
                    method, self.address + path, headers=headers, content=content, extensions={"timeout": timeouts}
                ) as response,
            ):
                if response.status != 200:
                    raise _refusal(response)
                yield response
        except httpcore.TimeoutException as error:
            if opening.is_over():
                raise HttpError(f"no whole answer in {answer_timeout_s:g} s", again=False, timed_out=True) from error
            raise HttpError(f"nothing came for {timeouts['read']:g} s", again=True, timed_out=True) from error
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise HttpError(f"the connection broke: {error}".rstrip(": "), again=True) from error
        except BodyError as error:
            raise HttpError(printable(error), again=False) from error


class _Sockets:
    """Opens sockets and remembers them, so that all can be ended at once."""

    def __init__(self, connect: Callable[[int, float], Socket]) -> None:
        self._connect = connect
        self._open: set[_Stream] = set()
        self._lock = threading.Lock()
        self.closed = False

    def open(self, port: int, timeout_s: float, left_s: Callable[[], float]) -> _Stream:
        """Open a socket to the server, for as long as `left_s` says."""
        try:
            stream = _Stream(self._connect(port, timeout_s), self._forget, left_s)
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


class _Opening(httpcore.NetworkBackend):
    """Opens the socket of one request, for at most so many seconds in all: `timeout` is of single waits."""

    def __init__(self, sockets: _Sockets, seconds: float) -> None:
        self._sockets = sockets
        self._ends_at = time.monotonic() + seconds

    def is_over(self) -> bool:
        """Whether the time of the request is over."""
        return self._left_s() <= 0

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
        return self._sockets.open(port, timeout, self._left_s)

    def _left_s(self) -> float:
        return self._ends_at - time.monotonic()


class _Stream(httpcore.NetworkStream):
    """One socket as httpcore wants it. `left_s` is how long it may still be used."""

    def __init__(self, socket: Socket, closed: Callable[[_Stream], None], left_s: Callable[[], float]) -> None:
        self._socket = socket
        self._closed = closed
        self._left_s = left_s

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what is there."""
        try:
            self._wait_at_most(timeout)
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
            self._wait_at_most(timeout)
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

    def _wait_at_most(self, timeout: float | None) -> None:
        """Set the longest wait of the next call; raises TimeoutError when the time is over."""
        seconds = min(math.inf if timeout is None else timeout, self._left_s())
        if seconds <= 0:
            raise TimeoutError("the time of the request is over")
        self._socket.settimeout(seconds)


def _pieces(response: httpcore.Response, limit_bytes: int = LARGEST_ANSWER_BYTES) -> Iterator[bytes]:
    body = Body(httpx.Headers(response.headers).get("content-encoding", ""), limit_bytes)
    for raw in response.iter_stream():
        yield from body.feed(raw)
    body.end()


def _whole(response: httpcore.Response) -> dict[str, Any]:
    return json_object(b"".join(_pieces(response)))


def _refusal(response: httpcore.Response) -> HttpError:
    """The server's own words, which mlx_lm.server and llama-server both send as JSON."""
    raw = b"".join(_pieces(response, ERROR_BYTES))
    try:
        reason = error_text(json_object(raw))
    except HttpError:
        reason = raw.decode("utf-8", "replace")
    again = response.status >= 500 or "generation thread died" in reason
    return HttpError(printable(reason) or f"HTTP status {response.status}", again=again)

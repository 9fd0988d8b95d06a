"""Bodies of HTTP answers, from servers that may be anyone's: bounded in size, before and after decoding, and in time.

HTTP libraries decode a body before anybody can look at its size, and as often as the server says: 5 kB of gzip in gzip
become 6 GB. So all answers of the program are received raw and come through `Body`. Nothing compressed is asked for;
what a server sends compressed all the same is decoded once, in small steps.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import ssl
import threading
import zlib
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import httpx

UNCOMPRESSED = {"Accept-Encoding": "identity"}
"""The header of every request."""
LARGEST_ANSWER_BYTES = 64 << 20
ERROR_BYTES = 1 << 16
"""As much of an error's body as is read: its words are shown, and cut long before that."""
_STEP_BYTES = 1 << 16
_GZIP_BITS = 31
_ZLIB_BITS = 15
_ZLIB_METHOD = 8
_WINDOW_BITS = {"gzip": _GZIP_BITS, "x-gzip": _GZIP_BITS, "deflate": _ZLIB_BITS}
Result = TypeVar("Result")


class BodyError(httpx.DecodingError):
    """A body that is too large, or encoded in a way that was not asked for."""


class Body:
    """The body of one answer: fed as it came over the network, and given out decoded.

    Args:
        encoding: the answer's Content-Encoding, empty without one.
        limit_bytes: most bytes of it, both as sent and decoded.
    """

    def __init__(self, encoding: str, limit_bytes: int = LARGEST_ANSWER_BYTES) -> None:
        codings = [name for part in encoding.lower().split(",") if (name := part.strip()) not in ("", "identity")]
        if len(codings) > 1 or any(name not in _WINDOW_BITS for name in codings):
            raise BodyError(
                f"the server's answer is compressed as {encoding!r:.100}, which was not asked for. Turn compression "
                "off there, or in the proxy before it"
            )
        self._limit_bytes = limit_bytes
        self._sent_bytes = 0
        self._given_bytes = 0
        self._coding = codings[0] if codings else ""
        self._decoder = zlib.decompressobj(_WINDOW_BITS[self._coding]) if codings else None

    def feed(self, raw: bytes) -> Iterator[bytes]:
        """Yield what these bytes are when decoded; raises BodyError."""
        if self._decoder is None:
            self._given_bytes += len(raw)
            self._check(self._given_bytes)
            yield raw
            return
        if raw and not self._sent_bytes and self._coding == "deflate" and raw[0] & 15 != _ZLIB_METHOD:
            # Servers send both zlib's format and the bare one by this name.
            self._decoder = zlib.decompressobj(-_ZLIB_BITS)
        self._sent_bytes += len(raw)
        self._check(self._sent_bytes)
        full = True
        while (raw or full) and not self._decoder.eof:
            try:
                piece = self._decoder.decompress(raw, _STEP_BYTES)
            except zlib.error as error:
                raise BodyError(f"the server's answer is badly compressed: {error}") from error
            raw = self._decoder.unconsumed_tail
            # A piece of the full size: zlib may hold more of what it took.
            full = len(piece) == _STEP_BYTES
            self._given_bytes += len(piece)
            self._check(self._given_bytes)
            yield piece

    def end(self) -> None:
        """Check that nothing is missing; raises BodyError."""
        if self._decoder is not None and self._sent_bytes and not self._decoder.eof:
            raise BodyError("the server's answer is badly compressed: its end is missing")

    def _check(self, size: int) -> None:
        if size > self._limit_bytes:
            raise BodyError(f"the server's answer is larger than {self._limit_bytes} bytes")


async def pieces(response: httpx.Response, limit_bytes: int = LARGEST_ANSWER_BYTES) -> AsyncIterator[bytes]:
    """The body of a streamed response as it comes; raises BodyError, httpx.HTTPError."""
    body = Body(response.headers.get("content-encoding", ""), limit_bytes)
    async for raw in response.aiter_raw():
        for piece in body.feed(raw):
            yield piece
    body.end()


async def whole(response: httpx.Response, limit_bytes: int = LARGEST_ANSWER_BYTES) -> bytes:
    """The whole body of a streamed response; raises BodyError, httpx.HTTPError."""
    return b"".join([piece async for piece in pieces(response, limit_bytes)])


async def beginning(response: httpx.Response, bytes_wanted: int = ERROR_BYTES) -> bytes:
    """As much of the body of an error as is shown; what is wrong with it, where it cannot be read."""
    found = bytearray()
    try:
        async for piece in pieces(response):
            found += piece[: bytes_wanted - len(found)]
            if len(found) >= bytes_wanted:
                break
    except BodyError as error:
        found += f" ({error})".encode()
    return bytes(found).strip()


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to `ask`. `body` is cut where the status is no success; `text` is that, decoded."""

    status: int
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")


def ask(
    method: str,
    url: str,
    *,
    timeout_s: float,
    limit_bytes: int = LARGEST_ANSWER_BYTES,
    error_bytes: int = ERROR_BYTES,
    **request: Any,
) -> Answer:
    """Make one request and receive its answer, all within `timeout_s`, however slowly the server goes on answering.

    No redirect is followed: where it leads may not be who the login is for.

    Args:
        method: of HTTP.
        url: the address.
        timeout_s: from connecting to the answer's last byte.
        limit_bytes: most bytes of a successful answer's body; with 0 it is not read.
        error_bytes: as much of another answer's body is read.
        request: further arguments of `httpx.AsyncClient.stream`.

    Raises:
        TimeoutError, httpx.TimeoutException: the time is over.
        httpx.HTTPError, httpx.InvalidURL, OSError: the server cannot be reached, or its answer not be read.
    """
    headers = {**UNCOMPRESSED, **request.pop("headers", {})}

    async def answer() -> Answer:
        async with (
            asyncio.timeout(timeout_s),
            httpx.AsyncClient(
                timeout=timeout_s,
                # Nothing is verified over http, and reading the trusted certificates takes longer than the request.
                verify=tls() if url.startswith("https:") else False,
            ) as client,
            client.stream(method, url, headers=headers, **request) as response,
        ):
            if not response.is_success:
                return Answer(response.status_code, await beginning(response, error_bytes) if error_bytes else b"")
            return Answer(response.status_code, await whole(response, limit_bytes) if limit_bytes else b"")

    try:
        return _run(answer())
    except httpx.ConnectError as error:
        raise httpx.ConnectError(_system_words(error)) from error


@cache
def tls() -> ssl.SSLContext:
    """One for all clients: reading the certificates takes a third of a second."""
    return httpx.create_ssl_context()


def is_loopback(host: str) -> bool:
    """Whether a host of an address is this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _system_words(error: BaseException) -> str:
    """Why a connection failed, in the system's words: asyncio's are "All connection attempts failed"."""
    reason: BaseException | None = error
    while reason is not None:
        if isinstance(reason, OSError) and reason.errno is not None:
            return os.strerror(reason.errno) if reason.errno > 0 else str(reason.strerror)
        reason = reason.__cause__ or reason.__context__
    return str(error)


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run it to its end, in a thread of its own where an event loop runs in this one, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    ended: list[Result | BaseException] = []

    def run() -> None:
        try:
            ended.append(asyncio.run(work))
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=run, name="http-answer", daemon=True)
    thread.start()
    thread.join()
    if isinstance(ended[0], BaseException):
        raise ended[0]
    return ended[0]

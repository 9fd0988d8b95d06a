"""A server that answers every request with bytes of its own choosing, for as long as somebody takes them."""

from __future__ import annotations

import gzip
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from functools import cache

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
BAD = b"HTTP/1.1 400 Bad\r\nContent-Type: application/json\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
_MB = 1 << 20

Answer = Callable[[], Iterator[bytes]]


def _bomb(levels: int, bits: int = 31, mb: int = 400) -> bytes:
    """Zeros, so many MB of them, compressed once and then again."""
    packer = zlib.compressobj(9, wbits=bits)
    packed = b"".join(packer.compress(bytes(_MB)) for _ in range(mb)) + packer.flush()
    for _ in range(levels - 1):
        packed = gzip.compress(packed, 9)
    return packed


def encoded(coding: str, content: Callable[[], bytes], head: bytes = OK) -> Answer:
    content = cache(content)

    def answer() -> Iterator[bytes]:
        body = content()
        yield head + f"Content-Encoding: {coding}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    return answer


def endless(start: bytes, piece: bytes, wait_s: float = 0.0) -> Answer:
    def answer() -> Iterator[bytes]:
        yield start
        while True:
            yield piece
            if wait_s:
                time.sleep(wait_s)

    return answer


def fixed(content: bytes) -> Answer:
    return lambda: iter([content])


def _chunk(content: bytes) -> bytes:
    return f"{len(content):x}\r\n".encode() + content + b"\r\n"


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
ANSWERS: dict[str, Answer] = {
    "gzip in gzip": encoded("gzip, gzip", lambda: _bomb(2)),
    "gzip in gzip in an error": encoded("gzip, gzip", lambda: _bomb(2), BAD),
    "gzip of 400 MB": encoded("gzip", lambda: _bomb(1)),
    "gzip of 400 MB in an error": encoded("gzip", lambda: _bomb(1), BAD),
    "deflate of 400 MB": encoded("deflate", lambda: _bomb(1, 15)),
    "bare deflate of 400 MB": encoded("deflate", lambda: _bomb(1, -15)),
    "brotli": encoded("br", lambda: b"\x8b\xff\x7f\xf9" * 1000),
    "zstd": encoded("zstd", lambda: b"\x28\xb5\x2f\xfd" * 1000),
    "gzip that is none": encoded("gzip", lambda: b"not gzip at all"),
    "gzip that is cut": encoded("gzip", lambda: gzip.compress(b"{}" * 9999)[:-9]),
    "a body without end": endless(OK + b"\r\n", b" " * _MB),
    "an error without end": endless(BAD + b"\r\n", b"x" * _MB),
    "chunks without end": endless(OK + CHUNKED, _chunk(b" " * 65536)),
    "chunks of one byte": endless(EVENTS[:-2] + CHUNKED, _chunk(b"x") * 10_000),
    "headers without end": endless(OK, b"X-More: " + b"y" * 900 + b"\r\n"),
    "one header without end": endless(OK + b"X-More: ", b"y" * 65536),
    "interim answers without end": endless(b"", b"HTTP/1.1 103 Early\r\nX: y\r\n\r\n" * 1000),
    "JSON of empty lists": fixed(OK + b"\r\n[" + b"[]," * 10_000_000 + b"[]]"),
    "JSON of objects": fixed(OK + b'\r\n{"a":[' + b'{"":0},' * 5_000_000 + b"0]}"),
    "JSON, nested": fixed(OK + b"\r\n" + b"[" * 5_000_000),
    "a number of many digits": fixed(OK + b'\r\n{"a":' + b"9" * 5_000_000 + b"}"),
    "a length that is too long": fixed(OK + b"Content-Length: 99999999999\r\n\r\n{}"),
    "a length that is too short": fixed(OK + b"Content-Length: 1\r\n\r\n{}{}{}"),
    "a length below 0": fixed(OK + b"Content-Length: -5\r\n\r\n{}"),
    "two lengths": fixed(OK + b"Content-Length: 2\r\nContent-Length: 5\r\n\r\n{}"),
    "a length and chunks": fixed(OK + b"Content-Length: 2\r\n" + CHUNKED + b"0\r\n\r\n"),
    "chunks of a size that is none": fixed(OK + CHUNKED + b"-1\r\n{}\r\n"),
    "a chunk larger than all": fixed(OK + CHUNKED + b"fffffffffffffff\r\n{}"),
    "no HTTP": fixed(b"\x00\x01\x02SSH-2.0\r\n"),
}
DRIPS: dict[str, Answer] = {
    "a dripping body": endless(OK + b"\r\n", b" ", 0.05),
    "a dripping error": endless(BAD + b"\r\n", b"x", 0.05),
    "dripping headers": endless(OK, b"X-More: yes\r\n", 0.05),
    "a dripping header": endless(OK + b"X-More: ", b"y", 0.05),
    "dripping chunks": endless(OK + CHUNKED, b"1\r\n \r\n", 0.05),
    "dripping events": endless(EVENTS, b": ping\n\n", 0.05),
    "nothing": endless(b"", b"", 0.05),
}


class HostileServer:
    """Serves one answer to whoever asks, on a loopback port, until the process ends."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        # What takes time to be made is made before somebody waits for it.
        next(answer())
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.recv(1 << 16)
                for piece in self._answer():
                    connection.sendall(piece)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass
            except OSError:
                return

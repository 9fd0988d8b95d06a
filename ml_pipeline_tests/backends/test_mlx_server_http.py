"""HTTP to a host that lies, cuts, or says nothing."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest

from ml_pipeline.backends.http_answer import HttpError
from ml_pipeline.backends.loopback_http import HttpClient
from ml_pipeline.backends.mlx_server.probe import probe

OK = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"


@contextmanager
def host_that_answers(*pieces: bytes, stays_open: bool = False) -> Iterator[HttpClient]:
    """A server that sends these bytes to whoever asks, and the client for it."""
    ended = threading.Event()

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(1 << 16)
                try:
                    for piece in pieces:
                        connection.sendall(piece)
                    if stays_open:
                        ended.wait(10)
                    # Closing with anything unread resets the connection, and the client may lose the answer.
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(1 << 16):
                        pass
                except OSError:
                    continue

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield HttpClient(
            lambda port, timeout_s: socket.create_connection(("127.0.0.1", port), timeout_s),
            listener.getsockname()[1],
            connect_timeout_s=2,
            silence_timeout_s=0.5,
        )
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def sse(*events: Any, end: bytes = b"data: [DONE]\n\n") -> bytes:
    return OK + b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + end


@pytest.mark.parametrize(
    ("pieces", "message", "again"),
    [
        ([OK + b"hello"], "not JSON", False),
        ([OK + b"[1]"], "not an object", False),
        ([OK + b"[" * 100_000], "not JSON", False),
        ([OK, *[b" " * (1 << 20)] * 70], "larger than", False),
        ([b"SSH-2.0-OpenSSH\r\n"], "the connection broke", True),
        ([b""], "the connection broke", True),
        ([b"HTTP/1.0 404 No\r\n\r\n" + b'{"error": "it is\\u001b[2J not there"}'], r"^it is \[2J not there$", False),
        ([b"HTTP/1.0 404 No\r\n\r\n" + b'{"error": "generation thread died"}'], "died", True),
        ([b"HTTP/1.0 500 No\r\n\r\n"], "HTTP status 500|not JSON", True),
        ([b"HTTP/1.0 400 No\r\n\r\n" + b"x" * 100_000], "larger than", False),
    ],
)
def test_a_host_that_answers_nonsense_is_told(pieces: list[bytes], message: str, again: bool) -> None:
    with host_that_answers(*pieces) as client, pytest.raises(HttpError, match=message) as failure:
        client.post("/", {})
    assert failure.value.again is again


@pytest.mark.parametrize(
    ("pieces", "events", "message"),
    [
        ([sse({"a": 1}, {"a": 2})], 2, None),
        ([sse({"a": 1})[:-20], sse({"a": 1})[-20:]], 1, None),
        ([OK + b": keepalive 1/2\n\nevent: x\n\n" + sse({"a": 1})[len(OK) :]], 1, None),
        ([sse({"a": 1}, end=b"")], 1, "broke off"),
        ([sse({"a": 1}, end=b"data: {\n\n")], 1, "not JSON"),
        ([OK, *[b"x" * (1 << 20)] * 6], 0, "without end"),
    ],
)
def test_a_stream_is_whole_or_told(pieces: list[bytes], events: int, message: str | None) -> None:
    found: list[Any] = []
    expected = nullcontext() if message is None else pytest.raises(HttpError, match=message)
    with host_that_answers(*pieces) as client, expected:
        found.extend(client.events("/", {}))
    assert len(found) == events


def test_a_silent_host_is_left_after_the_time_out() -> None:
    with host_that_answers(OK, stays_open=True) as client, pytest.raises(HttpError, match=r"nothing came for 0.5 s"):
        client.post("/", {})


def test_abort_wakes_up_who_waits() -> None:
    with host_that_answers(OK, stays_open=True) as client:
        client._timeouts["read"] = 30
        threading.Timer(0.2, client.abort).start()
        started = time.monotonic()
        with pytest.raises(HttpError):
            client.post("/", {})
        assert time.monotonic() - started < 5
        with pytest.raises(HttpError):
            client.post("/", {})


@pytest.mark.parametrize(
    "answer",
    [{}, {"choices": []}, {"choices": [{"logprobs": {"content": []}}]}, {"choices": [{"logprobs": {"content": [{}]}}]}],
)
def test_a_probe_without_figures_is_told(answer: dict[str, Any]) -> None:
    with host_that_answers(OK + json.dumps(answer).encode()) as client, pytest.raises(HttpError, match="no log-prob"):
        probe(client, "model", None, 5)

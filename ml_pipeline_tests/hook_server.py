"""A real HTTP server that takes webhooks, and answers, hangs or dribbles as a test says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any


class HookServer(ThreadingHTTPServer):
    """Keeps what was posted in `posted` as (path, JSON). `answer` is a status; "hang": nothing is answered; "dribble":
    headers come one by one and never end."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.posted: list[tuple[str, dict[str, Any]]] = []
        self.answer: int | str = 204
        self.ended = Event()


class _Handler(BaseHTTPRequestHandler):
    server: HookServer

    def do_POST(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server.posted.append((self.path, json.loads(body)))
        if server.answer == "hang":
            server.ended.wait(20)
            return
        if server.answer == "dribble":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while not server.ended.wait(0.1):
                self.wfile.write(b"X-More: yes\r\n")
            return
        assert isinstance(server.answer, int)
        self.send_response(server.answer)
        if server.answer in (301, 307):
            self.send_header("Location", f"{server.url}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""


@contextmanager
def hook_server() -> Iterator[HookServer]:
    """A server until the end of the body."""
    with HookServer() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.ended.set()
            server.shutdown()
            thread.join()

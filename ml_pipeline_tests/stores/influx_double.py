"""A stand-in for InfluxDB, which Debian does not package."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event
from typing import Any
from urllib.parse import parse_qs, urlsplit


class Double(ThreadingHTTPServer):
    """InfluxDB 3 and 2 as their documentation has them, since no server of either is packaged for Debian."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.requests: list[dict[str, Any]] = []
        self.status, self.body = 204, ""
        self.bad_line = ""
        self.hang = Event()
        self.hang.set()


class Handler(BaseHTTPRequestHandler):
    server: Double

    def do_POST(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        parts = urlsplit(self.path)
        server.requests.append(
            {
                "path": parts.path,
                "query": {k: v[0] for k, v in parse_qs(parts.query).items()},
                "authorization": self.headers["Authorization"],
                "type": self.headers["Content-Type"],
                "lines": body.split("\n"),
            }
        )
        server.hang.wait(20)
        status, text = server.status, server.body
        if server.bad_line and server.bad_line in body.split("\n"):
            status, text = 400, '{"error":"partial write of line protocol occurred"}'
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""

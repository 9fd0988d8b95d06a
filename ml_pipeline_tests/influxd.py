"""InfluxDB 1: a real server with a database and a login of our own, and a front before it that fails on demand."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx

from ml_pipeline.stores.points import ScorePoint
from ml_pipeline_tests.servers import free_port, require_binary, running

StoredPoints = dict[tuple[str, int, tuple[str, ...]], dict[str, float]]
"""{(measurement, time in ns, tag values by tag name): fields}"""

USER, PASSWORD = "writer", "s3cret:of 'ours'"
LOGIN = f"{USER}:{PASSWORD}"
DATABASE = "ours"
_CONFIG = """
bind-address = "127.0.0.1:{rpc}"
reporting-disabled = true
[meta]
  dir = "{folder}/meta"
[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
[http]
  bind-address = "127.0.0.1:{http}"
  auth-enabled = true
[monitor]
  store-enabled = false
"""


class Influxd:
    """A server of our own that demands a login; it can be stopped and started again on the same port and data."""

    def __init__(self, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self._folder = folder
        port = self.url.rpartition(":")[2]
        (folder / "influxdb.conf").write_text(_CONFIG.format(folder=folder, rpc=free_port(), http=port))

    @contextmanager
    def up(self) -> Iterator[None]:
        """Run it until the end of the body."""
        binary = require_binary("influxd", "influxdb")

        def ready() -> bool:
            try:
                return httpx.get(f"{self.url}/ping", timeout=1).is_success
            except httpx.HTTPError:
                return False

        command = [binary, "-config", str(self._folder / "influxdb.conf")]
        with running(command, self._folder / "log.txt", ready):
            if not (self._folder / "made").exists():
                escaped = PASSWORD.replace("'", "\\'")
                self.query(f"CREATE USER {USER} WITH PASSWORD '{escaped}' WITH ALL PRIVILEGES", login=None)
                self.query(f"CREATE DATABASE {DATABASE}")
                (self._folder / "made").touch()
            yield

    def query(self, influxql: str, login: tuple[str, str] | None = (USER, PASSWORD)) -> list[dict[str, Any]]:
        """The series of a statement's result."""
        answer = httpx.post(
            f"{self.url}/query",
            params={"db": DATABASE, "epoch": "ns"},
            data={"q": influxql},
            auth=login and httpx.BasicAuth(*login),
            timeout=20,
        ).raise_for_status()
        (result,) = answer.json()["results"]
        assert "error" not in result, result["error"]
        series: list[dict[str, Any]] = result.get("series", [])
        return series

    def points(self, measurement: str = "/.*/", where: str = "") -> StoredPoints:
        """What is stored, or what of it meets a condition."""
        found: StoredPoints = {}
        for series in self.query(f"SELECT * FROM {measurement} {where and 'WHERE ' + where} GROUP BY *"):
            tags = tuple(value for _, value in sorted(series.get("tags", {}).items()) if value)
            for time_ns, *values in series["values"]:
                fields = dict(zip(series["columns"][1:], values, strict=True))
                key = (series["name"], time_ns, tags)
                assert key not in found, f"{key} is there twice"
                found[key] = {name: value for name, value in fields.items() if value is not None}
        return found

    def clear(self) -> None:
        """Drop everything that was written."""
        self.query(f"DROP DATABASE {DATABASE}")
        self.query(f"CREATE DATABASE {DATABASE}")


def as_stored(points: Iterable[ScorePoint]) -> StoredPoints:
    """What the server must have of these points."""
    return {
        (point.measurement, point.time_ns, tuple(value for _, value in sorted(point.tags.items()))): {**point.fields}
        for point in points
    }


@contextmanager
def running_influxd(folder: Path) -> Iterator[Influxd]:
    """A server until the end of the body."""
    server = Influxd(folder)
    with server.up():
        yield server


class Front(ThreadingHTTPServer):
    """Stands before a server and does to each request what `plan` says next; with an empty plan it passes it on.

    A plan's entry: a status to answer with; "hang" to take the request and never answer; "lose" to pass it on and
    break the connection before the answer; "pass".
    """

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _FrontHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.target = target
        self.plan: deque[int | str] = deque()
        self.happened: list[int | str] = []
        self.ended = Event()


class _FrontHandler(BaseHTTPRequestHandler):
    server: Front

    def do_POST(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        fate = server.plan.popleft() if server.plan else "pass"
        server.happened.append(fate)
        if fate == "hang":
            server.ended.wait(20)
            return
        status, text = (fate, f'{{"error":"{fate} on purpose"}}'.encode()) if isinstance(fate, int) else (0, b"")
        if not status:
            headers = {k: self.headers[k] for k in ("Authorization", "Content-Type") if self.headers[k]}
            answer = httpx.post(f"{server.target}{self.path}", content=body, headers=headers, timeout=20)
            status, text = answer.status_code, answer.content
        if fate == "lose":
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""


@contextmanager
def front_of(target: str) -> Iterator[Front]:
    """A front before `target` until the end of the body."""
    with Front(target) as front:
        thread = Thread(target=front.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield front
        finally:
            front.ended.set()
            front.shutdown()
            thread.join()

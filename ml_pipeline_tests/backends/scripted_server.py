"""An HTTP server that does what a test says: it answers, stalls, cuts and lies, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "tiny"
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Asked:
    """One request; `body` is its JSON, or its bytes where it has none."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    at: float


@dataclass
class Server:
    """What runs; `in_flight_at_most` counts chat requests."""

    url: str
    asked: list[Asked] = field(default_factory=list)
    in_flight_at_most: int = 0

    def bodies(self, path: str) -> list[Any]:
        return [asked.body for asked in self.asked if asked.path == path]


class Reply:
    """Writes one answer."""

    def __init__(self, handler: BaseHTTPRequestHandler, ended: threading.Event) -> None:
        self._handler = handler
        self._ended = ended

    def json(self, value: Any, status: int = 200, **headers: str) -> None:
        self.raw(json.dumps(value).encode(), status, "application/json", **headers)

    def raw(self, content: bytes, status: int = 200, kind: str = "text/plain", **headers: str) -> None:
        self.head(status, kind, **headers)
        self.send(content)

    def events(self, *events: Any, end: bytes = DONE) -> None:
        self.head(200, "text/event-stream")
        self.send(b"".join(sse(event) for event in events) + end)

    def head(self, status: int, kind: str, **headers: str) -> None:
        self._handler.send_response(status)
        self._handler.send_header("Content-Type", kind)
        for name, value in headers.items():
            self._handler.send_header(name.replace("_", "-"), value)
        self._handler.end_headers()

    def send(self, content: bytes) -> None:
        self._handler.wfile.write(content)
        self._handler.wfile.flush()

    def stall(self, longest_s: float = 20) -> None:
        self._ended.wait(longest_s)

    def left_within(self, longest_s: float) -> bool:
        """Whether the client goes away meanwhile."""
        self._handler.connection.settimeout(longest_s)
        with suppress(OSError):
            return not self._handler.connection.recv(1)
        return False


def sse(event: Any) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def chunk(text: str | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """One event of a chat stream."""
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish, **more}]}


def usage(prompt: int, completion: int) -> dict[str, Any]:
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}}


def whole(text: str, finish: str = "stop", **more: Any) -> dict[str, Any]:
    """A chat answer that is not streamed."""
    message = {"role": "assistant", "content": text}
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish, **more}]}


Script = Callable[[Asked, Reply], None]


@contextmanager
def scripted_server(chat: Script | None = None, **pages: Script) -> Iterator[Server]:
    """Serve `chat` at the chat API, and other pages by their paths with "_" for "/" ("_v1_completions").

    Without a page of its own, `/v1/models` lists MODEL; all else is 404.
    """
    ended = threading.Event()
    lock = threading.Lock()
    in_flight = 0

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            nonlocal in_flight
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                body = json.loads(raw)
            except ValueError:
                body = raw
            asked = Asked(self.command, self.path, dict(self.headers), body, time.monotonic())
            is_chat = self.path == "/v1/chat/completions"
            with lock:
                server.asked.append(asked)
                in_flight += is_chat
                server.in_flight_at_most = max(server.in_flight_at_most, in_flight)
            script = chat if is_chat else pages.get(self.path.replace("/", "_"), pages.get("other"))
            reply = Reply(self, ended)
            try:
                if script is not None:
                    script(asked, reply)
                elif self.path == "/v1/models":
                    reply.json({"data": [{"id": MODEL}]})
                else:
                    reply.json({"error": {"message": "no such page"}}, 404)
            except OSError:
                pass
            finally:
                with lock:
                    in_flight -= is_chat

        do_GET = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{http.server_address[1]}")
    thread = threading.Thread(target=http.serve_forever, args=[0.02], daemon=True)
    thread.start()
    try:
        yield server
    finally:
        ended.set()
        http.shutdown()
        http.server_close()
        thread.join(5)

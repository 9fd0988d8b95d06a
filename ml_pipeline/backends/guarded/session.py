"""Talks with one guard: commands and their answers, its last words, and whether it is still there."""

from __future__ import annotations

import codecs
import json
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from ml_pipeline.backends.guarded.link import Link
from ml_pipeline.backends.loopback_http import Socket
from ml_pipeline.backends.trials import Death, exit_words
from ml_pipeline.json_streams import ByteLines, EndlessLineError, load_json
from ml_pipeline.printable import printable

_LONGEST_LINE_BYTES = 32 << 20
_LINES_KEPT = 60
_LINES_SHOWN = 12
_LOWEST_SIGNAL_CODE = -64
_LINE_CHARACTERS = 400
_BEATS_PER_LIMIT = 4
_LAST_WORDS_WAIT_S = 1.0


class GuardError(Exception):
    """The guard could not do what it was asked, or is gone (`gone`)."""

    def __init__(self, message: str, *, gone: bool = False) -> None:
        super().__init__(message)
        self.gone = gone


class GuardSession:
    """One guard, from its start to its end. Thread-safe.

    Every quarter of `lost_after_s` it says that it is there, and expects the same from the guard: a guard that was not
    heard for `lost_after_s` is given up, together with the connection.
    """

    def __init__(self, link: Link, *, lost_after_s: float) -> None:
        self._link = link
        self._lost_after_s = lost_after_s
        self._changed = threading.Condition()
        self._answers: dict[int, dict[str, Any] | None] = {}
        self._last_id = 0
        self._over: str | None = None
        self._signal: int | None = None
        self._heard_at = time.monotonic()
        self._stderr: deque[str] = deque(maxlen=_LINES_KEPT)
        self._sending = threading.Lock()
        self._threads = [self._start(self._read_answers), self._start(self._read_errors)]
        self._start(self._beat)

    @property
    def over(self) -> str | None:
        """Why the server cannot be used any more; None while it can."""
        return self._over

    def over_within(self, timeout_s: float) -> str | None:
        """Why the server cannot be used any more, told within so long after something went wrong; None while it can."""
        with self._changed:
            self._changed.wait_for(lambda: self._over is not None, timeout_s)
        return self._over

    def ask(self, do: str, timeout_s: float, **arguments: Any) -> dict[str, Any]:
        """Have the guard run a command and return its answer.

        Raises:
            GuardError: it fails, takes too long, or the guard is gone.
        """
        with self._changed:
            self._last_id += 1
            number = self._last_id
            self._answers[number] = None
        self._send({"id": number, "do": do, "with": arguments})
        with self._changed:
            self._changed.wait_for(lambda: self._answers[number] is not None or self._over is not None, timeout_s)
            answer = self._answers.pop(number)
        if answer is None:
            raise GuardError(self._over or f"no answer to {do!r} in {timeout_s:g} s", gone=self._over is not None)
        if "error" in answer:
            raise GuardError(printable(answer["error"]), gone=self._over is not None)
        return answer

    def connect(self, port: int, timeout_s: float) -> Socket:
        """Open a socket to a port on the host's loopback. Raises OSError."""
        if self._over is not None:
            raise ConnectionError(self._over)
        return self._link.connect(port, timeout_s)

    def last_lines(self) -> str:
        """The last lines of the server's standard error, indented, for an error message."""
        with self._changed:
            # What made the server fail may be about to end it.
            self._changed.wait_for(lambda: self._over is not None, _LAST_WORDS_WAIT_S)
        if self._over is not None:
            self._threads[1].join(_LAST_WORDS_WAIT_S)
        return "".join(f"\n    {line}" for line in self._lines()) or " nothing"

    def death(self, during: str) -> Death | None:
        """How the server was ended by a signal, while it did what `during` says; None where it was not."""
        with self._changed:
            self._changed.wait_for(lambda: self._over is not None, _LAST_WORDS_WAIT_S)
        if self._signal is None:
            return None
        self._threads[1].join(_LAST_WORDS_WAIT_S)
        return Death(exit_words(-self._signal), during, tuple(self._lines()), self._signal)

    def close(self) -> None:
        """End the server. Safe to call twice."""
        self._end("closed")
        self._link.close()

    def _lines(self) -> list[str]:
        return [line for line in list(self._stderr) if line.strip()][-_LINES_SHOWN:]

    def _start(self, target: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=target, name=f"model-server-{target.__name__}", daemon=True)
        thread.start()
        return thread

    def _end(self, reason: str) -> None:
        with self._changed:
            if self._over is None:
                self._over = reason
            self._changed.notify_all()

    def _send(self, message: dict[str, Any]) -> None:
        try:
            with self._sending:
                self._link.send(json.dumps(message).encode() + b"\n")
        except OSError as error:
            self._end(f"the connection is broken: {error}")

    def _read_answers(self) -> None:
        lines = ByteLines(_LONGEST_LINE_BYTES)
        while piece := self._link.receive():
            self._heard_at = time.monotonic()
            try:
                complete = lines.feed(piece)
            except EndlessLineError:
                self._end("the host sends a line without end")
                self._link.abandon()
                return
            for line in complete:
                self._take(line)
        self._end("the connection ended, or the program on the host did")

    def _take(self, line: bytes) -> None:
        try:
            message = load_json(line)
        except ValueError:
            # Shells' start-up files write greetings.
            self._stderr.append(printable(line.decode("utf-8", "replace")))
            return
        if not isinstance(message, dict):
            return
        if "exited" in message:
            self._take_exit(message["exited"])
        with self._changed:
            # What nobody waits for is not kept: an answer that came too late, or one to nothing that was asked.
            if isinstance(number := message.get("id"), int) and number in self._answers:
                self._answers[number] = message
                self._changed.notify_all()

    def _take_exit(self, code: Any) -> None:
        if isinstance(code, int) and _LOWEST_SIGNAL_CODE <= code < 0:
            self._signal = -code
            self._end(f"the server {exit_words(code)}")
        else:
            self._end(f"the server ended with code {printable(code)}")

    def _read_errors(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        pending = ""
        while piece := self._link.receive_error():
            *lines, pending = (pending + decoder.decode(piece)).splitlines(keepends=True) or [""]
            if pending.endswith(("\n", "\r")) or len(pending) > _LINE_CHARACTERS:
                lines, pending = [*lines, pending], ""
            self._stderr.extend(printable(line) for line in lines)
        self._stderr.append(printable(pending))

    def _beat(self) -> None:
        while self._over is None:
            with self._changed:
                self._changed.wait(self._lost_after_s / _BEATS_PER_LIMIT)
            if self._over is None:
                self._send({"do": "alive"})
            silent_s = time.monotonic() - self._heard_at
            if self._over is None and silent_s > self._lost_after_s:
                self._end(f"the host was silent for {silent_s:.0f} s")
                self._link.abandon()

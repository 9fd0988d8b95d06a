"""Renders chat templates, which are programs out of a file, in a child process that can take no more than it may.

A sandbox keeps a template from files, not from looping for ever or from making a text of gigabytes. Each rendering has
a bound on processor time, memory and the size of its text, which the system holds and not the template's engine. A
template that meets one is not rendered again.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from ml_pipeline.backends.interface import Message
from ml_pipeline.backends.trials import exit_words, start_child
from ml_pipeline.errors import BackendError
from ml_pipeline.printable import printable

_CHILD = "ml_pipeline.backends.template_child"
_CPU_S = 2.0
"""A rendering takes milliseconds."""
_WALL_S = 120.0
"""For a child that gets no processor."""
_MEMORY_BYTES = 512 << 20
_MOST_CHARACTERS = 4_000_000
_BYTES_A_CHARACTER = 12
"""JSON of a character beyond the basic plane, in ASCII."""
_PIECE_BYTES = 1 << 20
_TRIAL = (Message("user", "Hi"),)


class TemplateLimitError(BackendError):
    """A chat template that takes more time or room than any sound one."""


class BoundedTemplate:
    """One chat template.

    `where` is the model's file, for messages; `variables` is what the template can use besides `messages`, and must be
    what JSON can hold. Thread-safe.

    Raises:
        TemplateLimitError: it loops for ever, or takes too much memory, on the simplest of messages.
        BackendError: it is not valid jinja2, or no child can be started.
    """

    def __init__(self, template: str, where: str, variables: Mapping[str, Any]) -> None:
        self._where = where
        self._first = {
            "template": template,
            "variables": dict(variables),
            "cpu_s": _CPU_S,
            "memory_bytes": _MEMORY_BYTES,
            "most_characters": _MOST_CHARACTERS,
        }
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._end: Any = None
        self._limit = ""
        try:
            with self._lock:
                self._start()
            self.render(_TRIAL)
        except TemplateLimitError:
            raise
        except BackendError:
            # Some refuse a chat without a system message; that is said when it is rendered.
            if self._child is None:
                raise

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt for these messages, ready for the assistant's turn.

        Raises:
            TemplateLimitError: it takes too much, now or at an earlier time.
            BackendError: the template refuses the messages, as some do a system message or two of the user in a row.
        """
        plain = [{"role": message.role, "content": message.content} for message in messages]
        with self._lock:
            if self._limit:
                raise TemplateLimitError(self._limit)
            self._start()
            answer = self._ask(plain)
        if "text" not in answer:
            raise BackendError(
                f"{self._where}: the chat template refuses these messages: {printable(answer.get('error'))}"
            )
        return str(answer["text"])

    def close(self) -> None:
        """End the child. Safe to call twice; rendering starts another one."""
        with self._lock:
            self._stop()

    def _start(self) -> None:
        if self._child is not None:
            return
        try:
            # Of a session of its own: what Ctrl-C ends is decided by the run.
            self._child = start_child(_CHILD, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
        except OSError as error:
            raise BackendError(
                f"{self._where}: no child process can be started for its chat template: {error.strerror}"
            ) from error
        self._end = weakref.finalize(self, _end, self._child)
        answer = self._ask(self._first)
        if "text" not in answer:
            self._stop()
            raise BackendError(
                f"{self._where}: its chat template is not valid jinja2: {printable(answer.get('error'))}. "
                "Use a conversion with a sound template."
            )

    def _stop(self) -> None:
        if self._child is not None:
            self._child = None
            self._end()

    def _ask(self, content: Any) -> dict[str, Any]:
        """What the child answers; without an answer it is ended. Raises BackendError."""
        child = self._child
        assert child is not None
        assert child.stdin is not None
        # Where it cannot be written to, it has ended.
        line: bytes | None = b""
        with suppress(OSError):
            child.stdin.write(json.dumps(content).encode() + b"\n")
            child.stdin.flush()
            line = _line(child)
        answer: dict[str, Any] = {} if not line else json.loads(line)
        if line and "limit" not in answer:
            return answer
        if line is None:
            child.kill()
        self._stop()
        code = child.wait()
        if line is None:
            reason = f"has no end within {_WALL_S:g} s"
        elif code == -signal.SIGPROF:
            reason = f"takes more than {_CPU_S:g} s of processor time"
        elif answer.get("limit") == "memory":
            reason = f"takes more than {_MEMORY_BYTES >> 20} MB of memory"
        elif answer.get("limit") == "size":
            reason = f"makes a text of more than {_MOST_CHARACTERS:,} characters"
        else:
            raise BackendError(f"{self._where}: the process that renders its chat template {exit_words(code)}.")
        self._limit = (
            f"{self._where}: its chat template {reason}, where a sound one takes milliseconds. Use a conversion of the "
            "model with a sound template."
        )
        raise TemplateLimitError(self._limit)


def _line(child: subprocess.Popen[bytes]) -> bytes | None:
    """The next line that the child writes: empty where it ended, None where it writes none in time."""
    assert child.stdout is not None
    give_up_at = time.monotonic() + _WALL_S
    found = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while not found.endswith(b"\n"):
            left_s = give_up_at - time.monotonic()
            if left_s <= 0 or len(found) > _MOST_CHARACTERS * _BYTES_A_CHARACTER + _PIECE_BYTES:
                return None
            if selector.select(left_s):
                piece = os.read(child.stdout.fileno(), _PIECE_BYTES)
                if not piece:
                    return b""
                found += piece
    return bytes(found)


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    child.wait()

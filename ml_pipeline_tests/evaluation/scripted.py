"""A judge whose replies are written by a test: for what no real model does on command, or not at once."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from ml_pipeline.backends.fan_out import fan_out
from ml_pipeline.backends.interface import (
    AdapterFile,
    AdapterForm,
    AppliedProof,
    BackendIdentity,
    Classification,
    Completion,
    CompletionRequest,
    Message,
    Piece,
)

GOOD = json.dumps({"reasoning": 7, "correctness": 10, "clarity": 4})
Reply = Callable[[CompletionRequest], str | Exception | None]


def completion(request: CompletionRequest, text: str = "", error: str | None = None) -> Completion:
    """What comes back for a request."""
    return Completion(request.id, "prompt", text, 9, 9, "error" if error else "stop", 0.1, error)


class ScriptedBackend:
    """Answers each request with what `reply` returns for it: a text, an exception that ended the answer, or None for
    an answer that only a cancellation ends. `asked` holds the requests (the last `remembered` of them), `most` how
    many ran at once."""

    def __init__(
        self,
        reply: Reply,
        name: str = "scripted",
        *,
        at_once: int = 8,
        constrains_json: bool = True,
        remembered: int | None = None,
    ) -> None:
        self.asked: deque[CompletionRequest] = deque(maxlen=remembered)
        self.most = 0
        self.closed = False
        self._reply, self._name, self._at_once = reply, name, at_once
        self._constrains_json = constrains_json
        self._running = 0
        self._lock = threading.Lock()

    @property
    def adapter_form(self) -> AdapterForm:
        """None is taken."""
        return "none"

    @property
    def constrains_json(self) -> bool:
        """As the test wants it."""
        return self._constrains_json

    def render(self, messages: Sequence[Message]) -> str:
        """The messages themselves."""
        return json.dumps([message.content for message in messages])

    def complete(
        self, requests: Sequence[CompletionRequest], *, cancelled: Callable[[], bool] = lambda: False
    ) -> Iterator[Completion]:
        """Each request on a thread."""
        stopped = threading.Event()

        def answer(request: CompletionRequest) -> Completion:
            with self._lock:
                self.asked.append(request)
                self._running += 1
                self.most = max(self.most, self._running)
            try:
                return (
                    Completion(request.id, "prompt", "", 9, 0, "cancelled", 0.1) if stopped.is_set() else run(request)
                )
            finally:
                with self._lock:
                    self._running -= 1

        def run(request: CompletionRequest) -> Completion:
            reply = self._reply(request)
            if reply is None:
                stopped.wait(60)
                return Completion(request.id, "prompt", "", 9, 0, "cancelled", 0.1)
            return completion(request, error=str(reply)) if isinstance(reply, Exception) else completion(request, reply)

        for _, done in fan_out(answer, requests, at_once=self._at_once, cancelled=cancelled, stop=stopped.set):
            yield done

    def stream(self, request: CompletionRequest) -> Iterator[Piece]:
        """Not used by judges."""
        raise NotImplementedError

    def classify(self, texts: Sequence[str], labels: Sequence[str]) -> Classification:
        """Not used by judges."""
        raise NotImplementedError

    def use_adapter(self, adapter: AdapterFile | None) -> AppliedProof | None:
        """Only the bare model."""
        assert adapter is None
        return None

    @property
    def remarks(self) -> tuple[str, ...]:
        return ()

    def identity(self) -> BackendIdentity:
        """Its name is that of the base model."""
        return BackendIdentity("scripted", "1", self._name, "0" * 64, "", "0" * 64)

    def close(self) -> None:
        """Nothing is held."""
        self.closed = True

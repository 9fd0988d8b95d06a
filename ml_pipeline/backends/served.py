"""A model behind a server that we started: many requests at once, and again what a lost server left unanswered."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from ml_pipeline.backends.answer_text import AnswerText
from ml_pipeline.backends.fan_out import fan_out
from ml_pipeline.backends.guarded.session import GuardSession
from ml_pipeline.backends.http_answer import HttpError
from ml_pipeline.backends.interface import AdapterFile, AppliedProof, Completion, CompletionRequest, FinishReason, Piece
from ml_pipeline.backends.loopback_http import HttpClient
from ml_pipeline.backends.one_at_a_time import OneAtATime
from ml_pipeline.errors import AdapterError, BackendError

Result = TypeVar("Result")

_FIRST_WAIT_S = 1.0
_OVER_WAIT_S = 0.5


class ModelServer(Protocol):
    """A running server."""

    client: HttpClient
    session: GuardSession

    def healthy(self) -> bool:
        """Whether it can answer."""

    def close(self) -> None:
        """End it. Safe to call twice."""


Server = TypeVar("Server", bound=ModelServer)


class ServedAnswer:
    """One answer as it comes; `finish` is None until the server says why it ended."""

    def __init__(self, stop: Sequence[str], prompt: str = "") -> None:
        self.prompt = prompt
        self.text = AnswerText(stop)
        self.finish: FinishReason | None = None
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.log_probabilities: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A completion, and whether asking again may give a better one."""

    completion: Completion
    again: bool = False


class ServedBackend(ABC, Generic[Server]):
    """The part of a backend that asks a server of ours. Not thread-safe; one answer iterator at a time.

    A server that is lost is started again, with the adapter, and only what was not answered yet is asked again,
    `attempts` times in all. `concurrency` is how many requests are under way at once.
    """

    _server: Server

    def __init__(self, *, concurrency: int, attempts: int) -> None:
        self._concurrency = concurrency
        self._attempts = attempts
        self._wanted: AdapterFile | None = None
        self._stopping = False
        self._calls = OneAtATime()

    @property
    def remarks(self) -> tuple[str, ...]:
        """None here. See `Backend.remarks`."""
        return ()

    @abstractmethod
    def _new_server(self) -> Server:
        """Start a server; raises BackendError when it does not get ready."""

    @abstractmethod
    def _apply(self, adapter: AdapterFile) -> AppliedProof:
        """Have the server use this adapter, and prove it applied. Raises AdapterError, BackendError."""

    @abstractmethod
    def _take_out(self) -> None:
        """Have what is asked from now on answered by the bare base."""

    @abstractmethod
    def _ask(self, request: CompletionRequest) -> tuple[ServedAnswer, Generator[None, None, None]]:
        """An empty answer, and the steps that fill it from the server's events; they raise HttpError, BackendError."""

    def complete(
        self, requests: Sequence[CompletionRequest], *, cancelled: Callable[[], bool] = lambda: False
    ) -> Iterator[Completion]:
        """Answer all requests, yielding each as it ends. See `Backend.complete`."""
        if len({request.id for request in requests}) < len(requests):
            raise BackendError("complete: two requests share an id. Give each request of a batch its own.")
        with self._calls.during("complete"):
            pending = list(requests)
            for attempts_left in reversed(range(self._attempts)):
                lost: list[tuple[CompletionRequest, Completion]] = []
                with closing(self._round(pending, cancelled)) as outcomes:
                    for request, outcome in outcomes:
                        if outcome.again and attempts_left and not cancelled():
                            lost.append((request, outcome.completion))
                        else:
                            yield outcome.completion
                if not lost:
                    return
                try:
                    self._recover()
                except (BackendError, AdapterError) as error:
                    yield from (replace(part, error=f"{part.error}; {error}") for _, part in lost)
                    return
                pending = [request for request, _ in lost]

    def stream(self, request: CompletionRequest) -> Iterator[Piece]:
        """Yield the answer piece by piece; text that may begin a stop string is held back until that is known."""
        with self._calls.during("stream"):
            self._allow()
            answer, steps = self._begin(request)
            with closing(steps):
                while True:
                    try:
                        next(steps)
                    except StopIteration as end:
                        outcome: Outcome = end.value
                        yield Piece(answer.text.take(ended=True), outcome.completion)
                        return
                    if piece := answer.text.take(ended=False):
                        yield Piece(piece)

    def use_adapter(self, adapter: AdapterFile | None) -> AppliedProof | None:
        """Swap to this adapter, or to the bare base with None. See `Backend.use_adapter`."""
        with self._calls.during("use_adapter"):
            self._wanted = None
            self._take_out()
            if adapter is None:
                return None
            proof = self._insist(lambda: self._apply(adapter))
            self._wanted = adapter
            return proof

    def close(self) -> None:
        """End the server. Safe to call twice."""
        self._calls.close()
        self._server.close()

    def _allow(self) -> None:
        """Ask again after a stop."""
        self._stopping = False
        self._server.client.allow()

    def _stop(self) -> None:
        self._stopping = True
        self._server.client.abort()

    def _round(
        self, requests: Sequence[CompletionRequest], cancelled: Callable[[], bool]
    ) -> Generator[tuple[CompletionRequest, Outcome], None, None]:
        self._allow()
        return fan_out(self._answer, requests, at_once=self._concurrency, cancelled=cancelled, stop=self._stop)

    def _answer(self, request: CompletionRequest) -> Outcome:
        _, steps = self._begin(request)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                outcome: Outcome = end.value
                return outcome

    def _begin(self, request: CompletionRequest) -> tuple[ServedAnswer, Generator[None, None, Outcome]]:
        answer, events = self._ask(request)
        return answer, self._steps(request, answer, events)

    def _steps(
        self, request: CompletionRequest, answer: ServedAnswer, events: Generator[None, None, None]
    ) -> Generator[None, None, Outcome]:
        """Run the events through, one a step; returns what came of them."""
        started = time.monotonic()
        error, again = None, False
        try:
            if not self._stopping:
                yield from events
        except BackendError as refusal:
            error = str(refusal)
        except HttpError as failure:
            error, again = str(failure), failure.again
            # A broken connection is often the first sign of a server that was ended.
            if again and not self._stopping and (over := self._server.session.over_within(_OVER_WAIT_S)):
                error = f"{error}; {over}"
        finish = answer.finish or "error"
        if error is not None:
            finish = "error"
        if self._stopping and finish == "error":
            finish, error, again = "cancelled", None, False
        completion = Completion(
            request_id=request.id,
            prompt=answer.prompt,
            text=answer.text.text,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            finish_reason=finish,
            seconds=time.monotonic() - started,
            error=error,
            log_probabilities=answer.log_probabilities,
        )
        return Outcome(completion, again)

    def _insist(self, action: Callable[[], Result]) -> Result:
        """Do it, again after a restart when the server was lost meanwhile; raises BackendError for an HttpError."""
        for attempts_left in reversed(range(self._attempts)):
            try:
                return action()
            except (BackendError, HttpError) as error:
                if not attempts_left or not self._recover():
                    if isinstance(error, HttpError):
                        raise BackendError(f"the model's server: {error}.") from error
                    raise
        raise AssertionError("attempts is at least 1")

    def _recover(self) -> bool:
        """Start the server again, with the adapter that was in use; False when it still answers."""
        self._server.client.allow()
        if self._server.healthy():
            return False
        wait_s = _FIRST_WAIT_S
        for attempts_left in reversed(range(self._attempts)):
            self._server.close()
            try:
                self._server = self._new_server()
                break
            except BackendError:
                if not attempts_left:
                    raise
                time.sleep(wait_s)
                wait_s *= 2
        if self._wanted is not None:
            self._apply(self._wanted)
        return True

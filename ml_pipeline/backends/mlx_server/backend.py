"""The mlx_server backend: a model that answers on the host where it was trained, with adapters by their paths there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TypeVar

from ml_pipeline.adapters.adapter import Adapter
from ml_pipeline.backend_settings import MlxServerSettings
from ml_pipeline.backends.fan_out import fan_out
from ml_pipeline.backends.interface import (
    PROBE_TEXT,
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
from ml_pipeline.backends.loopback_http import HttpError
from ml_pipeline.backends.mlx_server.chat import PATH, Answer, counting_body, prompt_tokens, request_body
from ml_pipeline.backends.mlx_server.link import Launcher
from ml_pipeline.backends.mlx_server.remote_adapter import RemoteAdapter, is_unchanged, stage
from ml_pipeline.backends.mlx_server.server import MlxServer
from ml_pipeline.backends.mlx_server.session import GuardError
from ml_pipeline.backends.one_at_a_time import OneAtATime
from ml_pipeline.backends.positions import is_finite, largest_difference
from ml_pipeline.errors import AdapterError, BackendError

Result = TypeVar("Result")

# An adapter of zeros changes nothing at all; this only asks for a difference that can matter to a token's choice.
_NOISE = 1e-6
_FIRST_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class _Outcome:
    """A completion, and whether asking again may give a better one."""

    completion: Completion
    again: bool = False


class MlxServerBackend:
    """Implements `Backend` with mlx_lm.server on a training host. Not thread-safe; one answer iterator at a time.

    `model` is the path of an MLX model on that host, or a hub id that it has. A server or connection that is lost is
    started again, with the adapter, and only what was not answered yet is asked again, `attempts` times in all.
    Answers at temperature 0 are batched by the server; those with a temperature carry a seed, and the server answers
    seeded requests one after another. Each change of the adapter loads the whole model anew: that is how the server
    works. `seconds` of a completion includes the wait for its turn on the server. Where an answer ends by itself, the
    server drops the bytes of a character that was not whole yet.

    Raises:
        BackendError: the server does not get ready; the message holds its last words.
    """

    adapter_form: AdapterForm = "in_place"
    constrains_json = False

    def __init__(self, launcher: Launcher, model: str, base_model: str, settings: MlxServerSettings) -> None:
        self.base_model = base_model
        self._settings = settings
        self._new_server = partial(MlxServer, launcher, model, settings)
        self._server = self._new_server()
        self._identity: BackendIdentity | None = None
        self._wanted: AdapterFile | None = None
        self._staged: RemoteAdapter | None = None
        self._stopping = False
        self._calls = OneAtATime()

    def render(self, messages: Sequence[Message]) -> str:
        """The messages as JSON: the server applies the chat template."""
        return json.dumps([asdict(message) for message in messages], ensure_ascii=False)

    def complete(
        self, requests: Sequence[CompletionRequest], *, cancelled: Callable[[], bool] = lambda: False
    ) -> Iterator[Completion]:
        """Answer all requests, yielding each as it ends. See `Backend.complete`."""
        if len({request.id for request in requests}) < len(requests):
            raise BackendError("complete: two requests share an id. Give each request of a batch its own.")
        with self._calls.during("complete"):
            pending = list(requests)
            for attempts_left in reversed(range(self._settings.attempts)):
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
            answer = Answer(request.options.stop)
            self._stopping = False
            self._server.client.allow()
            steps = self._steps(request, answer)
            while True:
                try:
                    next(steps)
                except StopIteration as end:
                    outcome: _Outcome = end.value
                    yield Piece(answer.text.take(ended=True), outcome.completion)
                    return
                if piece := answer.text.take(ended=False):
                    yield Piece(piece)

    def classify(self, texts: Sequence[str], labels: Sequence[str]) -> Classification:
        """Refused: the server tells log-probabilities only of the tokens that it chose."""
        raise BackendError("mlx_lm.server cannot classify. Use the llama_cpp backend for this.")

    def adapter(self, weights: str, config: str | None = None) -> Adapter:
        """The record of an adapter on the host, checked there and hashed as if it had been fetched.

        Raises AdapterError, BackendError.
        """
        with self._calls.during("adapter"):
            return self._insist(lambda: stage(self._server.session, self._server.where, weights, config).adapter)

    def use_adapter(self, adapter: AdapterFile | None) -> AppliedProof | None:
        """Swap to the adapter at this path of the host, or to the bare base with None. See `Backend.use_adapter`.

        Its `sha256`, which `adapter` tells, must be that of the files as they are now.
        """
        with self._calls.during("use_adapter"):
            self._wanted = self._staged = None
            if adapter is None:
                return None
            proof = self._insist(lambda: self._apply(adapter))
            self._wanted = adapter
            return proof

    def identity(self) -> BackendIdentity:
        """Say what exactly answers. The hashes are those of the files on the host, taken once."""
        if self._identity is None:
            self._identity = self._server.identity(self.base_model)
        return self._identity

    def close(self) -> None:
        """End the server. Safe to call twice."""
        self._calls.close()
        self._server.close()

    def _round(
        self, requests: Sequence[CompletionRequest], cancelled: Callable[[], bool]
    ) -> Generator[tuple[CompletionRequest, _Outcome], None, None]:
        self._stopping = False
        self._server.client.allow()
        return fan_out(self._answer, requests, at_once=self._settings.concurrency, cancelled=cancelled, stop=self._stop)

    def _stop(self) -> None:
        self._stopping = True
        self._server.client.abort()

    def _answer(self, request: CompletionRequest) -> _Outcome:
        steps = self._steps(request, Answer(request.options.stop))
        while True:
            try:
                next(steps)
            except StopIteration as end:
                outcome: _Outcome = end.value
                return outcome

    def _steps(self, request: CompletionRequest, answer: Answer) -> Generator[None, None, _Outcome]:
        """Feed the server's events to `answer`, one a step; returns what came of it."""
        started = time.monotonic()
        error, again = None, False
        try:
            yield from self._events(request, answer)
        except BackendError as refusal:
            error = str(refusal)
        except HttpError as failure:
            error, again = str(failure), failure.again
        finish = answer.finish or "error"
        if error is not None:
            finish = "error"
        if self._stopping and finish == "error":
            finish, error, again = "cancelled", None, False
        completion = Completion(
            request_id=request.id,
            prompt=self.render(request.messages),
            text=answer.text.text,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            finish_reason=finish,
            seconds=time.monotonic() - started,
            error=error,
        )
        return _Outcome(completion, again)

    def _events(self, request: CompletionRequest, answer: Answer) -> Generator[None, None, None]:
        """Feed the server's events to `answer`, one a step; raises HttpError, BackendError."""
        folder = self._staged.folder if self._staged else None
        body = request_body(request, self._server.model, folder)
        if self._stopping:
            return
        with closing(self._server.client.events(PATH, body)) as events:
            for event in events:
                answer.add(event)
                yield
                if answer.text.stopped:
                    break
        if answer.finish is None:
            raise HttpError("the answer ended without saying why", again=False)
        if answer.text.stopped:
            answer.prompt_tokens = prompt_tokens(self._server.client.post(PATH, counting_body(body)))

    def _insist(self, action: Callable[[], Result]) -> Result:
        """Do it, again after a restart when the server is lost meanwhile."""
        for _ in range(self._settings.attempts - 1):
            try:
                return action()
            except BackendError:
                self._recover()
        return action()

    def _recover(self) -> None:
        """Start the server again unless it still answers, with the adapter that was in use."""
        if self._server.healthy():
            return
        wait_s = _FIRST_WAIT_S
        for attempts_left in reversed(range(self._settings.attempts)):
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

    def _apply(self, adapter: AdapterFile) -> AppliedProof:
        if adapter.scale != 1.0:
            raise AdapterError(f"{adapter.path}: mlx_lm.server cannot scale an adapter by {adapter.scale}; only by 1.")
        server, weights = self._server, adapter.path.as_posix()
        server.client.allow()
        staged = stage(server.session, server.where, weights)
        if adapter.sha256 != staged.adapter.sha256:
            raise AdapterError(
                f"{server.where}: {weights} is not what it was: its hash is {staged.adapter.sha256}, not "
                f"{adapter.sha256}. It was written again meanwhile; discover it anew."
            )
        difference = self._difference(server, staged, weights)
        self._staged = staged
        return AppliedProof(staged.adapter.tensor_count, difference, PROBE_TEXT)

    @staticmethod
    def _difference(server: MlxServer, staged: RemoteAdapter, weights: str) -> float:
        try:
            found = server.probe(staged.folder)
            unchanged = is_unchanged(server.session, staged)
        except (HttpError, GuardError) as error:
            if server.session.over is not None:
                raise BackendError(f"mlx_server on {server.where}: {server.session.over}.") from error
            raise AdapterError(
                f"{server.where}: mlx_lm.server cannot load {weights}: {error}. Check that it was trained on this base "
                "model."
            ) from error
        if not unchanged:
            raise AdapterError(f"{server.where}: {weights} was written while it was loaded. Score it again later.")
        if not is_finite(found):
            raise AdapterError(
                f"{server.where}: {weights}: the model computes NaN or infinite values under this adapter. Training "
                "diverged, or the scale is wrong."
            )
        difference = largest_difference(server.base_probe, found)
        if difference <= _NOISE:
            raise AdapterError(
                f"{server.where}: {weights}: not applied: the model answers as without it. Its weights are zero "
                "(a checkpoint from before the first step?) or its scale is."
            )
        return difference

"""The http backend: a model behind a server that somebody else runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any, TypeVar

from ml_pipeline.backend_settings import HttpSettings
from ml_pipeline.backends.control_tokens import KNOWN_SHAPES, spaced_messages
from ml_pipeline.backends.http.adapter_slot import AdapterSlot
from ml_pipeline.backends.http.answerer import Answerer
from ml_pipeline.backends.http.classifier import Classifier
from ml_pipeline.backends.http.client import ApiClient
from ml_pipeline.backends.http.identity import find_model, identify
from ml_pipeline.backends.http.loop_thread import LoopThread
from ml_pipeline.backends.http.requester import Requester
from ml_pipeline.backends.http.schema import SchemaSupport
from ml_pipeline.backends.http_answer import HttpError
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
from ml_pipeline.backends.one_at_a_time import OneAtATime
from ml_pipeline.errors import BackendError

Result = TypeVar("Result")


class HttpBackend:
    """Implements `Backend` with any server that speaks OpenAI's API. Not thread-safe; one answer iterator at a time.

    `seconds` of a completion includes its waits. Where a server does not count tokens, or the answer was ended here at
    a stop string, `prompt_tokens` is 0 and `completion_tokens` the number of pieces that came. An adapter is a PEFT
    folder (`adapter_model.safetensors`, `adapter_config.json`). What a server does with samplers that have no word in
    its API is its own affair; with `adapters: ollama` they are neutral. llama_cpp.server ends an answer under way when
    the next request comes, unless it is started with `--interrupt_requests false`.

    Raises:
        BackendError: the server does not answer, has no such model, or the key is not to be had.
    """

    def __init__(self, base_model: str, settings: HttpSettings) -> None:
        self.base_model = base_model
        self.adapter_form: AdapterForm = "none" if settings.adapters == "none" else "peft"
        self._calls = OneAtATime()
        self._identity: BackendIdentity | None = None
        self._client = ApiClient(settings)
        self._requester = Requester(self._client, settings)
        self._loop = LoopThread()
        try:
            # The name by which the server knows the bare base; ours on it may be another.
            self._model = self._run(find_model(self._requester, settings.model))
            self._schemas = SchemaSupport(self._requester, self._model, settings.json_schema)
            self._answerer = Answerer(self._requester, settings, self._model, self._schemas)
            self._classifier = Classifier(self._requester, self._schemas)
            self._slot = AdapterSlot(self._requester, self._model, settings.adapters)
            self._run(self._slot.begin())
        except BaseException:
            self._calls.close()
            self._loop.run(self._client.close())
            self._loop.close()
            raise

    @property
    def remarks(self) -> tuple[str, ...]:
        """None here. See `Backend.remarks`."""
        return ()

    @property
    def constrains_json(self) -> bool:
        """Whether the server holds answers to a JSON schema. Tried once; raises BackendError if it does not answer."""
        return self._run(self._schemas.supported())

    def render(self, messages: Sequence[Message]) -> str:
        """The messages as JSON, control tokens that they spell with a space each: the server applies the template."""
        return json.dumps([asdict(message) for message in spaced_messages(messages, KNOWN_SHAPES)], ensure_ascii=False)

    def complete(
        self, requests: Sequence[CompletionRequest], *, cancelled: Callable[[], bool] = lambda: False
    ) -> Iterator[Completion]:
        """Answer all requests, yielding each as it ends. See `Backend.complete`."""
        if len({request.id for request in requests}) < len(requests):
            raise BackendError("complete: two requests share an id. Give each request of a batch its own.")
        with self._calls.during("complete"):
            tasks: dict[asyncio.Task[Completion], CompletionRequest] = {}

            def look() -> None:
                if cancelled():
                    self._loop.call(lambda: [task.cancel() for task in tasks])

            def work(put: Callable[[Completion], None]) -> Coroutine[Any, Any, None]:
                return self._answerer.answer_all(requests, lambda request: self.render(request.messages), tasks, put)

            self._answerer.model = self._slot.model
            with closing(self._loop.iterate(work, look)) as completions:
                yield from completions

    def stream(self, request: CompletionRequest) -> Iterator[Piece]:
        """Yield the answer piece by piece; text that may begin a stop string is held back until that is known."""
        with self._calls.during("stream"):

            async def work(put: Callable[[Piece], None]) -> None:
                await self._answerer.answer(request, self.render(request.messages), put)

            self._answerer.model = self._slot.model
            with closing(self._loop.iterate(work, lambda: None)) as pieces:
                yield from pieces

    def classify(self, texts: Sequence[str], labels: Sequence[str]) -> Classification:
        """Log-probability of each label as the continuation of each text, by the best way that the server has.

        See `Classifier`. Raises BackendError when it has none.
        """
        with self._calls.during("classify"):
            return self._run(self._classifier.classify(self._slot.model, texts, labels))

    def use_adapter(self, adapter: AdapterFile | None) -> AppliedProof | None:
        """Swap to the PEFT adapter in this folder, or to the bare base with None. See `Backend.use_adapter`."""
        with self._calls.during("use_adapter"):
            return self._run(self._slot.use(adapter))

    def identity(self) -> BackendIdentity:
        """Say what exactly answers, as far as the server tells; see `identify`."""
        if self._identity is None:
            self._identity = self._run(identify(self._requester, self._model, self.base_model))
        return self._identity

    def close(self) -> None:
        """Remove from the server what is ours, and leave it. Safe to call twice."""
        if not self._calls.close():
            return
        try:
            self._run(self._slot.end())
        finally:
            self._loop.run(self._client.close())
            self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        try:
            return self._loop.run(work)
        except HttpError as error:
            raise BackendError(f"http backend: {error}") from error

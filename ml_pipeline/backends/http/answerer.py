"""From a request to its completion: asked again where that helps, and with all the text there was where it does not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any

from ml_pipeline.backend_settings import HttpSettings
from ml_pipeline.backends.http.chat import PATH, HttpAnswer, request_body, streamed
from ml_pipeline.backends.http.client import ServerError
from ml_pipeline.backends.http.gate import Turn
from ml_pipeline.backends.http.requester import Requester
from ml_pipeline.backends.http.schema import SchemaSupport, check_json
from ml_pipeline.backends.http_answer import HttpError
from ml_pipeline.backends.interface import Completion, CompletionRequest, FinishReason, Piece
from ml_pipeline.errors import BackendError

_REFUSALS = (400, 422, 501)


class Answerer:
    """Answers requests with the model called `model`, which may change between two requests."""

    def __init__(self, requester: Requester, settings: HttpSettings, model: str, schemas: SchemaSupport) -> None:
        self.model = model
        self._requester = requester
        self._settings = settings
        self._schemas = schemas
        # A server that refuses streams, or only their options, is not asked for them again.
        self._streams = settings.stream
        self._stream_options = True

    async def answer(
        self, request: CompletionRequest, prompt: str, put: Callable[[Piece], None] | None = None
    ) -> Completion:
        """The completion of one request; `put` gets its pieces as they come, the completion in the last one.

        Nothing is asked again once a piece was given away. Cancelling ends the answer: it is "cancelled" then.
        """
        started = time.monotonic()
        drafts = [HttpAnswer(request)]
        finish: FinishReason | None = "error"
        error: str | None = None
        try:
            body = request_body(request, self.model, self._settings.samplers)
            if request.json_schema is not None:
                body["response_format"] = await self._schemas.response_format(request.json_schema)
            await self._requester.insist(lambda turn: self._ask(turn, body, request, drafts, put))
            finish = drafts[-1].finish
        except asyncio.CancelledError:
            finish = "cancelled"
        except (HttpError, BackendError) as failure:
            error = self._requester.client.without_key(str(failure))
        # What was said before the connection broke for the last time may be longer than what was said after.
        best = max(drafts, key=lambda draft: len(draft.text.text)) if finish in ("error", "cancelled") else drafts[-1]
        completion = Completion(
            request_id=request.id,
            prompt=prompt,
            text=best.text.text,
            prompt_tokens=best.prompt_tokens,
            completion_tokens=best.completion_tokens,
            finish_reason=finish or "error",
            seconds=time.monotonic() - started,
            error=error,
            log_probabilities=best.log_probabilities(),
        )
        if put is not None:
            put(Piece(best.text.take(ended=True), completion))
        return completion

    async def answer_all(
        self,
        requests: Sequence[CompletionRequest],
        render: Callable[[CompletionRequest], str],
        tasks: dict[asyncio.Task[Completion], CompletionRequest],
        put: Callable[[Completion], None],
    ) -> None:
        """Answer all, giving each completion to `put` as it ends; `tasks` is filled, for whoever may cancel them."""
        for request in requests:
            tasks[asyncio.create_task(self.answer(request, render(request)))] = request
        waiting = set(tasks)
        try:
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    # One that was cancelled before it began had no chance to say so.
                    put(_unasked(tasks[task], render(tasks[task])) if task.cancelled() else task.result())
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _ask(
        self,
        turn: Turn,
        body: dict[str, Any],
        request: CompletionRequest,
        drafts: list[HttpAnswer],
        put: Callable[[Piece], None] | None,
    ) -> None:
        """One attempt; raises HttpError."""
        draft = HttpAnswer(request)
        drafts.append(draft)
        given = False
        try:
            while True:
                asked = self._as_received(body)
                try:
                    async with aclosing(self._requester.client.events(PATH, asked)) as events:
                        async for event in events:
                            turn.first_piece(self._settings.slow_first_piece_s)
                            draft.add(event)
                            if put is not None and (text := draft.text.take(ended=False)):
                                given = True
                                put(Piece(text))
                            if draft.text.stopped:
                                break
                    break
                except ServerError as refusal:
                    if not self._less_is_asked(asked, refusal):
                        raise
            if draft.finish is None:
                # What llama_cpp.server does to an answer when the next request comes.
                raise ServerError("the answer broke off: no finish_reason came", again=True, busy=True)
            if request.json_schema is not None and draft.finish == "stop" and not draft.text.stopped:
                check_json(draft.content, request.json_schema)
        except HttpError as failure:
            failure.again = failure.again and not given
            raise

    def _as_received(self, body: dict[str, Any]) -> dict[str, Any]:
        asked = streamed(body) if self._streams else dict(body)
        if not self._stream_options:
            asked.pop("stream_options", None)
        return asked

    def _less_is_asked(self, asked: dict[str, Any], refusal: ServerError) -> bool:
        """Whether the refusal was of the stream or its options, so that the request can be made without."""
        if refusal.status not in _REFUSALS or "stream" not in asked or "stream" not in str(refusal):
            return False
        if "stream_options" in asked and "stream_options" in str(refusal):
            self._stream_options = False
        else:
            self._streams = False
        return True


def _unasked(request: CompletionRequest, prompt: str) -> Completion:
    return Completion(request.id, prompt, "", 0, 0, "cancelled", 0.0)

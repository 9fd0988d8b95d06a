"""Labels as continuations of texts: scored by what the server tells of its tokens, else chosen under a constraint."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence

from ml_pipeline.backends.delta_text import message_text
from ml_pipeline.backends.http import scores
from ml_pipeline.backends.http.chat import PATH as CHAT_PATH
from ml_pipeline.backends.http.client import ServerError
from ml_pipeline.backends.http.requester import Requester
from ml_pipeline.backends.http.schema import SchemaSupport, check_json
from ml_pipeline.backends.interface import PROBE_TEXT, Classification
from ml_pipeline.errors import BackendError

_PATH = "/v1/completions"
_CHECKED_TOKENS = 4
_NO_CHOICE = float("-inf")
# As many of the likeliest tokens as a server tells: llama-server any number, vLLM 20, others 5.
_TOP = (100, 20, 5)

Row = list[float] | None


class Classifier:
    """Classifies with one server, by the best way that it proves to have.

    1. Scored by echo: text and label go together, and the server tells the log-probability of each of their tokens
       (vLLM). It is believed only if these agree with those of the same tokens when it generates them: some servers
       (llama_cpp.server with models without a BOS token) tell those of the neighbouring token.
    2. Scored by the first token: every label is one token, and among the likeliest that the server tells. The figure
       is exact for that token; labels of several tokens are not guessed from their first one.
    3. Chosen: the chat model answers the text, held to one of the labels by a JSON schema.
    """

    def __init__(self, requester: Requester, schemas: SchemaSupport) -> None:
        self._requester = requester
        self._schemas = schemas
        self._echoes: bool | None = None
        self._tops = [{"logprobs": top} for top in _TOP]

    async def classify(self, model: str, texts: Sequence[str], labels: Sequence[str]) -> Classification:
        """One row a text, one number a label, see `Classification`; the method is the same for all texts.

        Raises:
            BackendError: an empty text or label, or a server that can do none of the three.
            HttpError: the server fails.
        """
        if not all(texts) or not all(labels) or not labels:
            raise BackendError("classify: neither texts nor labels may be empty")
        if self._echoes is None:
            self._echoes = await self._echo_is_right(model)
        ways: list[Callable[[str, str, Sequence[str]], Awaitable[Row]]] = [self._by_first_token]
        if self._echoes:
            ways.insert(0, self._by_echo)
        for way in ways:
            rows = await self._every(texts, lambda text, way=way: way(model, text, labels))  # type: ignore[misc]
            if all(row is not None for row in rows):
                return Classification([row for row in rows if row is not None], "scored")
        if not await self._schemas.supported():
            raise BackendError(
                f"{self._requester.client.where} cannot classify: it does not tell the log-probability of every label, "
                "and does not hold answers to a JSON schema. Use labels of one token each, or the llama_cpp backend."
            )
        chosen = await self._every(texts, lambda text: self._chosen(model, text, labels))
        return Classification([row for row in chosen if row is not None], "chosen")

    async def _every(self, texts: Sequence[str], score: Callable[[str], Awaitable[Row]]) -> list[Row]:
        """The rows of all texts; once one has none, the others are not asked for."""
        # One alone first: most that goes wrong does so for every text.
        rows = [await score(texts[0])] if texts else []
        if rows and rows[0] is None:
            return rows
        tasks = [asyncio.ensure_future(score(text)) for text in texts[1:]]
        try:
            return rows + list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    async def _by_echo(self, model: str, text: str, labels: Sequence[str]) -> Row:
        prompts = [text, *(text + label for label in labels)]
        echoes = await asyncio.gather(*(self._echo(model, prompt) for prompt in prompts))
        return scores.labels_by_echo(echoes)

    async def _by_first_token(self, model: str, text: str, labels: Sequence[str]) -> Row:
        bodies = [{"model": model, "prompt": text, "max_tokens": 1, "temperature": 0.0, **top} for top in self._tops]
        try:
            place, answer = await self._requester.post_as_it_can(_PATH, bodies)
        except ServerError as error:
            if not error.is_refusal:
                raise
            return None
        self._tops = self._tops[place:]
        return scores.labels_by_first_token(answer, labels)

    async def _chosen(self, model: str, text: str, labels: Sequence[str]) -> list[float]:
        schema = {
            "type": "object",
            "properties": {"label": {"type": "string", "enum": list(labels)}},
            "required": ["label"],
            "additionalProperties": False,
        }
        body = {
            "model": model,
            "messages": [{"role": "user", "content": text}],
            "temperature": 0.0,
            "response_format": await self._schemas.response_format(schema),
            "max_tokens": 64 + 8 * max(map(len, labels)) + self._schemas.thinking_tokens,
        }
        content = message_text(await self._requester.post(CHAT_PATH, body))
        check_json(content, schema)
        choice = json.loads(content)["label"]
        return [0.0 if label == choice else _NO_CHOICE for label in labels]

    async def _echo(self, model: str, prompt: str) -> scores.Tokens | None:
        body = {"model": model, "prompt": prompt, "max_tokens": 1, "temperature": 0.0, "echo": True, "logprobs": 1}
        return scores.echoed(await self._requester.post(_PATH, body), prompt)

    async def _echo_is_right(self, model: str) -> bool:
        body = {"model": model, "prompt": PROBE_TEXT, "max_tokens": _CHECKED_TOKENS, "temperature": 0.0, "logprobs": 1}
        try:
            answer = await self._requester.post_unless_refused(_PATH, body)
            made = scores.generated(answer)
            repeated = await self._echo(model, PROBE_TEXT + scores.text_of(answer)) if made else None
            before = await self._echo(model, PROBE_TEXT) if repeated else None
        except ServerError as error:
            if not error.is_refusal:
                raise
            return False
        if made is None or repeated is None or before is None:
            return False
        return scores.agree(made, repeated[len(before) :])

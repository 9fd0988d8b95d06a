"""Answers held to a JSON schema: whether the server does it, in which words it is asked, and whether it did."""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import Any

from ml_pipeline.backends.delta_text import message_text
from ml_pipeline.backends.http.chat import PATH
from ml_pipeline.backends.http.requester import Requester
from ml_pipeline.backends.http_answer import HttpError
from ml_pipeline.errors import BackendError

# A model that thinks first may need the second.
_PROBE_TOKENS = (200, 4096)


class SchemaSupport:
    """Finds out once how a server is asked for JSON of a schema."""

    def __init__(self, requester: Requester, model: str, setting: str) -> None:
        self._requester = requester
        self._model = model
        self._setting = setting
        self._asked = asyncio.Lock()
        self._form: int | None = 0 if setting == "yes" else None
        self._known = setting != "auto"
        self.thinking_tokens = 0
        """How many tokens more than its answer the model may need."""

    async def supported(self) -> bool:
        """Whether the server does it; raises HttpError when it does not answer at all."""
        async with self._asked:
            if not self._known:
                self._form = await self._probe()
                self._known = True
        return self._form is not None

    async def response_format(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The value of `response_format` for a schema; raises BackendError where the server does not do it."""
        if not await self.supported() or self._form is None:
            why = "json_schema is set to no" if self._setting == "no" else "it was tried"
            raise BackendError(
                f"{self._requester.client.where} does not hold answers to a JSON schema ({why}). Use a server that "
                "does, such as llama-server, vLLM or Ollama, or the llama_cpp backend."
            )
        return _forms(schema)[self._form]

    async def _probe(self) -> int | None:
        # Nobody writes this by chance: only a constraint makes a model say it.
        code = secrets.token_hex(4)
        schema = {
            "type": "object",
            "properties": {"code": {"type": "string", "enum": [code]}},
            "required": ["code"],
            "additionalProperties": False,
        }
        for place, form in enumerate(_forms(schema)):
            body: dict[str, Any] = {
                "model": self._model,
                "messages": [{"role": "user", "content": "Hello."}],
                "temperature": 0.0,
                "response_format": form,
            }
            for body["max_tokens"] in _PROBE_TOKENS:
                refused, answer = await self._requester.post_as_it_can(PATH, [body, _without_format(body)])
                if _parsed(_text(answer)) == {"code": code}:
                    self.thinking_tokens = body["max_tokens"] - _PROBE_TOKENS[0]
                    return place
                if refused or not _was_cut(answer):
                    break
        return None


def check_json(text: str, schema: dict[str, Any]) -> None:
    """Make sure that an answer is JSON of the schema, as far as types, enum, required and properties tell.

    Raises:
        HttpError: it is not: the server ignored the schema.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise HttpError("the server did not hold the answer to the JSON schema: it is not JSON", again=False) from error
    if problem := _problem(value, schema, "$"):
        raise HttpError(f"the server did not hold the answer to the JSON schema: {problem}", again=False)


_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def _problem(value: Any, schema: Any, where: str) -> str | None:
    if not isinstance(schema, dict):
        return None
    kind = schema.get("type")
    allowed = _TYPES.get(kind) if isinstance(kind, str) else None
    if allowed and (not isinstance(value, allowed) or (isinstance(value, bool) and kind != "boolean")):
        return f"{where} is not of type {kind}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{where} is none of those allowed"
    inner: list[str | None] = []
    if isinstance(value, dict):
        missing = [name for name in schema.get("required", ()) if name not in value]
        inner += [f"{where} lacks {name}" for name in missing]
        properties = schema.get("properties", {})
        inner += [_problem(value[name], properties[name], f"{where}.{name}") for name in properties if name in value]
    elif isinstance(value, list):
        inner += [_problem(item, schema.get("items"), f"{where}[{place}]") for place, item in enumerate(value)]
    return next((problem for problem in inner if problem), None)


def _forms(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """OpenAI's own form, and that of llama_cpp.server."""
    return [
        {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}},
        {"type": "json_object", "schema": schema},
    ]


def _without_format(body: dict[str, Any]) -> dict[str, Any]:
    """A plain request: its answer shows that a refusal was of the format, not of everything."""
    return {name: value for name, value in body.items() if name != "response_format"} | {"max_tokens": 1}


def _text(answer: dict[str, Any]) -> str:
    try:
        return message_text(answer)
    except HttpError:
        return ""


def _was_cut(answer: dict[str, Any]) -> bool:
    """Whether the limit of its tokens ended the answer."""
    try:
        return bool(answer["choices"][0]["finish_reason"] == "length")
    except (LookupError, TypeError):
        return False


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None

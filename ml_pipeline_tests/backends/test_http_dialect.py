"""Servers that refuse a field of a request: what is learned of it, and what is said."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from ml_pipeline.backend_settings import HttpSettings
from ml_pipeline.backends.http import HttpBackend
from ml_pipeline.backends.http.dialect import Dialect
from ml_pipeline_tests.backends.requests import answer, ask
from ml_pipeline_tests.backends.scripted_server import (
    MODEL,
    Asked,
    Reply,
    Script,
    Server,
    chunk,
    scripted_server,
    whole,
)

CHAT = "/v1/chat/completions"


def refusing(*fields: str, wording: str = "Unsupported parameter: '{0}' is not supported with this model.") -> Script:
    """A server that answers only what has none of these fields, but a `max_completion_tokens` if it takes no other."""

    def chat(asked: Asked, reply: Reply) -> None:
        for name in fields:
            if name in asked.body:
                words = wording.format(name)
                return reply.json({"error": {"message": words, "code": "unsupported_parameter", "param": name}}, 400)
        if asked.body.get("stream"):
            return reply.events(chunk("Oslo"), chunk(finish="stop"))
        return reply.json(whole("Oslo"))

    return chat


@contextmanager
def serving(chat: Script, **options: Any) -> Iterator[tuple[HttpBackend, Server]]:
    """A backend, and the server that it asks."""
    with scripted_server(chat) as server:
        settings = HttpSettings(type="http", url=server.url, attempts=1, **options)
        with closing(HttpBackend("base", settings)) as backend:
            yield backend, server


def test_a_newer_server_is_understood_once_for_the_process(caplog: pytest.LogCaptureFixture) -> None:
    with scripted_server(refusing("max_tokens", "temperature", "top_p")) as server:
        settings = HttpSettings(type="http", url=server.url, attempts=1)
        with caplog.at_level(logging.WARNING), closing(HttpBackend("base", settings)) as backend:
            assert answer(backend, ask("q", max_tokens=9)).text == "Oslo"
            refused = len(server.bodies(CHAT)) - 1
            assert answer(backend, ask("q", max_tokens=9)).text == "Oslo"
        # Another backend of the process asks in the same words.
        with closing(HttpBackend("base", settings)) as backend:
            assert answer(backend, ask("q", max_tokens=9)).text == "Oslo"
            said = backend.identity().backend_version
        bodies = server.bodies(CHAT)
        assert refused == 3
        for body in bodies[3:6]:
            assert body["max_completion_tokens"] == 9
            assert not {"max_tokens", "temperature", "top_p"} & body.keys()
        assert said.endswith(", the server's own temperature and top_p")
        (words,) = [record.getMessage() for record in caplog.records if "refuses" in record.getMessage()]
        assert words.endswith(
            f"of {MODEL}; from now on: max_tokens is sent as max_completion_tokens, temperature is not sent, "
            "top_p is not sent"
        )


def test_the_identity_is_right_before_the_first_answer() -> None:
    with serving(refusing("temperature")) as (backend, _):
        before = backend.identity()
        assert "the server's own temperature" in before.backend_version
        assert answer(backend, ask("q")).text == "Oslo"
        assert backend.identity() == before
    with serving(refusing()) as (backend, _):
        assert "own temperature" not in backend.identity().backend_version


@pytest.mark.parametrize(
    ("options", "refused", "field"),
    [
        ({"token_limit": "max_tokens"}, "max_tokens", "max_tokens"),
        ({"token_limit": "max_completion_tokens"}, "max_completion_tokens", "max_completion_tokens"),
        ({"fixed_temperature": "no"}, "temperature", "temperature"),
    ],
)
def test_a_setting_is_not_overruled(options: dict[str, Any], refused: str, field: str) -> None:
    with serving(refusing(refused), **options) as (backend, server):
        completion = answer(backend, ask("q"))
        assert completion.text == ""
        assert f"'{field}' is not supported" in str(completion.error)
        assert len(server.bodies(CHAT)) == 1


def test_settings_word_the_first_request() -> None:
    options = {"token_limit": "max_completion_tokens", "fixed_temperature": "yes"}
    with serving(refusing("max_tokens", "temperature"), **options) as (backend, server):
        assert answer(backend, ask("q", temperature=0.5, max_tokens=3)).text == "Oslo"
        assert "own temperature" in backend.identity().backend_version
        (body, *_) = server.bodies(CHAT)
        assert body["max_completion_tokens"] == 3
        assert "temperature" not in body


def test_an_older_server_that_knows_only_max_tokens() -> None:
    words = "Unrecognized request argument supplied: {0}"
    with serving(refusing("max_completion_tokens", wording=words)) as (backend, server):
        assert answer(backend, ask("q")).text == "Oslo"
        assert len(server.bodies(CHAT)) == 1


BODY = {"max_tokens": 9, "temperature": 0.0, "top_p": 1.0, "logprobs": True, "top_logprobs": 1}
NEWER = Dialect("max_completion_tokens")


@pytest.mark.parametrize(
    ("said", "parameter", "expected"),
    [
        ("max_tokens is not supported here; use max_completion_tokens.", None, NEWER),
        ("Use 'max_completion_tokens' instead of max_tokens.", "max_tokens", NEWER),
        ("[{'loc': ['body', 'max_tokens'], 'msg': 'Extra inputs are not permitted'}]", None, NEWER),
        # Too many tokens are too many by any name.
        ("max_tokens is too large: 9000. This model supports at most 4096 completion tokens.", "max_tokens", None),
        ("'temperature' does not support 0 with this model. Only the default (1) value is supported.", "temperature",
         Dialect(left_out=frozenset({"temperature"}))),
        ("invalid temperature: only 1 is allowed for this model", None, Dialect(left_out=frozenset({"temperature"}))),
        ("temperature: must be less than or equal to 1", None, None),
        ("`temperature` and `top_p` cannot both be specified for this model.", None,
         Dialect(left_out=frozenset({"top_p"}))),
        ("You are not allowed to request logprobs from this model", None,
         Dialect(left_out=frozenset({"logprobs", "top_logprobs"}))),
        ("the messages must alternate", None, None),
        ("no such model", "model", None),
        # A word that only holds the field's name blames something else.
        ("max_tokens_per_image is unknown; temperature_c too", None, None),
    ],
)  # fmt: skip
def test_what_a_refusal_teaches(said: str, parameter: str | None, expected: Dialect | None) -> None:
    assert Dialect().after(said, parameter, BODY) == expected


def test_a_wording_that_does_not_help_is_forgotten() -> None:
    def chat(asked: Asked, reply: Reply) -> None:
        given = "max_tokens" if "max_tokens" in asked.body else "max_completion_tokens"
        reply.json({"error": {"message": f"{given} is not supported: say max_tokens or max_completion_tokens"}}, 400)

    with serving(chat) as (backend, server):
        completion = answer(backend, ask("q"))
        assert "max_completion_tokens is not supported" in str(completion.error)
        assert [sorted({"max_tokens", "max_completion_tokens"} & body.keys()) for body in server.bodies(CHAT)] == [
            ["max_tokens"],
            ["max_completion_tokens"],
        ]
        answer(backend, ask("q"))
        assert "max_tokens" in server.bodies(CHAT)[2]


def thoughtful(tokens_of_thought: int, *, parts: bool = False) -> Script:
    """A server that thinks so many tokens before its answer, which it holds to the schema."""

    def chat(asked: Asked, reply: Reply) -> None:
        form = asked.body.get("response_format", {}).get("json_schema")
        said = "Hi"
        if form is not None:
            fields = form["schema"]["properties"]
            said = json.dumps({name: of["enum"][-1] for name, of in fields.items()})
        cut = asked.body["max_tokens"] < tokens_of_thought
        content: Any = None if cut else [{"type": "text", "text": said}] if parts else said
        message = {"role": "assistant", "reasoning_content": "Hm {", "content": content}
        choice = {"index": 0, "finish_reason": "length" if cut else "stop"}
        if asked.body.get("stream"):
            return reply.events({"choices": [choice | {"delta": message}]})
        return reply.json({"choices": [choice | {"message": message}]})

    return chat


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("tokens_of_thought", [0, 1000])
def test_the_schema_holds_for_the_answer_not_for_the_thoughts(
    parts: bool, stream: bool, tokens_of_thought: int
) -> None:
    schema = {"type": "object", "properties": {"mood": {"enum": ["wild", "calm"]}}, "required": ["mood"]}
    with serving(thoughtful(tokens_of_thought, parts=parts), stream=stream) as (backend, _):
        # A model that thinks longer than the first try allows is tried with more.
        assert backend.constrains_json
        completion = answer(backend, ask("q", schema=schema, max_tokens=2000))
        assert (completion.text, completion.error) == ('<think>Hm {</think>{"mood": "calm"}', None)
        found = backend.classify(["The sea is "], ["wild", "calm"])
        assert (found.method, found.log_probabilities) == ("chosen", [[float("-inf"), 0.0]])

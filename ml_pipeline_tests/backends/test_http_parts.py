"""The parts of the http backend: the gate, waits, keys, requests, scores, schemas and PEFT folders."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ml_pipeline.backend_settings import HttpSettings
from ml_pipeline.backends.http import HttpBackend, scores
from ml_pipeline.backends.http.chat import request_body
from ml_pipeline.backends.http.gate import Gate
from ml_pipeline.backends.http.peft_folder import check_peft_folder
from ml_pipeline.backends.http.schema import check_json
from ml_pipeline.backends.http.server_models import is_left_over, new_name
from ml_pipeline.backends.http.waits import back_off, retry_after
from ml_pipeline.backends.http_answer import HttpError
from ml_pipeline.backends.seeds import request_seed
from ml_pipeline.errors import AdapterError, BackendError
from ml_pipeline_tests.backends.requests import answer, answers, ask
from ml_pipeline_tests.backends.scripted_server import Asked, Reply, chunk, scripted_server, whole

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 0.5 ", 0.5),
        ("Mon, 23 Nov 2026 12:01:30 GMT", 90.0),
        ("Mon, 23 Nov 2026 12:01:30 -0000", 90.0),
        ("Mon, 23 Nov 2026 13:01:30 +0100", 90.0),
        ("Mon, 23 Nov 2026 11:59:00 GMT", 0.0),
        ("-3", None),
        ("1e9", None),
        ("9" * 5000, None),
        ("soon", None),
        ("Mon, 23 Nov 2026 99:99:99 GMT", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


def test_back_off_is_anything_up_to_a_doubling_bound() -> None:
    for attempt, bound in [(0, 0.5), (1, 1.0), (3, 4.0), (10, 60.0), (10_000, 60.0)]:
        drawn = [back_off(attempt, 60.0) for _ in range(400)]
        assert 0 <= min(drawn) < bound / 10
        assert bound * 0.9 < max(drawn) <= bound


async def hold(gate: Gate, begun: list[int], number: int, until: asyncio.Event) -> None:
    async with gate.turn():
        begun.append(number)
        await until.wait()


def test_the_gate_halves_once_for_one_overload_and_grows_again() -> None:
    async def run() -> None:
        gate = Gate(8)
        async with gate.turn() as first, gate.turn() as second:
            first.overloaded()
            assert gate.limit == 4
            second.overloaded()
            assert gate.limit == 4, "both tell of the same overload"
        async with gate.turn() as third:
            third.overloaded()
            third.went_well()
        assert gate.limit == 2
        for _ in range(20):
            async with gate.turn() as turn:
                turn.went_well()
        # 1/(8 x 2) a turn: sixteen turns for the next one, to within the growth of the limit itself.
        assert gate.limit == 3
        for _ in range(1000):
            async with gate.turn() as turn:
                turn.went_well()
        assert gate.limit == 8

    asyncio.run(run())


def test_the_gate_lets_in_as_many_as_its_limit_in_their_order() -> None:
    async def run() -> None:
        gate, begun, until = Gate(2), list[int](), asyncio.Event()
        tasks = [asyncio.create_task(hold(gate, begun, number, until)) for number in range(5)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert begun == [0, 1]
        tasks[2].cancel()
        tasks[0].cancel()
        await asyncio.sleep(0.01)
        assert begun == [0, 1, 3], "a place that was given back, and none to who no longer waits"
        until.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert begun == [0, 1, 3, 4]

    asyncio.run(run())


def test_a_slow_first_piece_is_an_overload() -> None:
    async def run() -> None:
        gate = Gate(4)
        async with gate.turn() as turn:
            turn.first_piece(1.0)
            await asyncio.sleep(0.05)
            turn.first_piece(0.01)
        assert gate.limit == 4, "only the first piece counts"
        async with gate.turn() as turn:
            await asyncio.sleep(0.05)
            turn.first_piece(0.01)
        assert gate.limit == 2

    asyncio.run(run())


def test_control_tokens_that_a_message_spells_are_sent_with_a_space() -> None:
    asked = ask("a<|im_end|>b [INST] c < d")
    assert request_body(asked, "m", "openai")["messages"] == [
        {"role": "user", "content": "a< |im_end|>b [ INST] c < d"}
    ]


def test_samplers_go_by_the_servers_names_or_not_at_all() -> None:
    neutral = ask("q", "id", temperature=0.7, seed=3)
    body = request_body(neutral, "m", "openai")
    assert body["seed"] == request_seed(3, "id")
    assert not {"top_k", "min_p", "repeat_penalty"} & set(body)
    assert "seed" not in request_body(ask("q"), "m", "openai")
    for options in ({"top_k": 40}, {"repeat_penalty": 1.1}):
        special = ask("q", **options)
        with pytest.raises(BackendError, match=r"not part of OpenAI's API. Set `samplers`"):
            request_body(special, "m", "openai")
        for name in ("repeat_penalty", "repetition_penalty"):
            sent = request_body(special, "m", name)
            assert (sent["top_k"], sent[name]) == (special.options.top_k, special.options.repeat_penalty)
            assert sent["min_p"] == 0.0


def hello(_: Asked, reply: Reply) -> None:
    reply.events(chunk("Hello", "stop"))


KEY = "sk-very-secret-0123456789"


def test_the_key_goes_to_the_server_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("THE_KEY", KEY)
    with scripted_server(hello) as other:

        def script(asked: Asked, reply: Reply) -> None:
            what = asked.body["messages"][0]["content"]
            if what == "redirect":
                reply.json({}, 307, Location=f"{other.url}/v1/chat/completions")
            elif what == "tell":
                reply.json({"error": {"message": f"wrong header {asked.headers['Authorization']}"}}, 401)
            elif what == "tell later":
                reply.events({"error": asked.headers["Authorization"]})
            else:
                hello(asked, reply)

        with caplog.at_level(logging.DEBUG), scripted_server(script) as server:
            settings = HttpSettings(type="http", url=f"{server.url}/v1/", api_key_env="THE_KEY", attempts=1)
            with closing(HttpBackend("base", settings)) as backend:
                found = answers(backend, [ask("hello"), ask("redirect"), ask("tell"), ask("tell later")])
                identity = backend.identity()
        assert {asked.headers["Authorization"] for asked in server.asked} == {f"Bearer {KEY}"}
        assert other.asked == []
    assert found["hello"].text == "Hello"
    assert f"redirects to {other.url}" in str(found["redirect"].error)
    assert str(found["tell later"].error).endswith("Bearer ***")
    assert "wrong header Bearer ***" in str(found["tell"].error)
    for shown in (caplog.text, repr(backend), repr(vars(backend)), repr(found), repr(identity), repr(settings)):
        assert KEY not in shown


@pytest.mark.parametrize(
    ("url", "key", "options", "message"),
    [
        ("http://example.invalid:8000", KEY, {}, "would go to example.invalid unencrypted. Use https"),
        ("http://127.0.0.1.example.invalid", KEY, {}, "unencrypted"),
        ("http://127.0.0.1:1", None, {}, "the environment variable THE_KEY is not set"),
        ("http://127.0.0.1:1", "a\nb", {}, "characters that no key has"),
        ("http://[::1", None, {}, "is no address"),
    ],
)
def test_a_key_that_cannot_be_sent_is_an_error(
    monkeypatch: pytest.MonkeyPatch, url: str, key: str | None, options: dict[str, Any], message: str
) -> None:
    monkeypatch.delenv("THE_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("THE_KEY", key)
    with pytest.raises(BackendError, match=message) as failure:
        HttpBackend("base", HttpSettings(type="http", url=url, api_key_env="THE_KEY", attempts=1, **options))
    assert KEY not in str(failure.value)


@pytest.mark.parametrize("url", ["ftp://a", "http://user:secret@host", "http://host?key=x", "http://", "127.0.0.1:80"])
def test_addresses_with_secrets_or_without_a_scheme_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        HttpSettings(type="http", url=url)


@pytest.mark.parametrize(
    ("models", "wanted", "expected"),
    [
        (["a"], None, "a"),
        (["a", "b"], "b", "b"),
        (["a:latest", "b"], "a", "a:latest"),
        ([], "anything", "anything"),
        (["a", "b"], None, "has these models: a, b. Name one"),
        ([], None, "has these models: none"),
        (["a", "\x1b[2J"], "c", r"has no model 'c', but: a,  \[2J"),
    ],
)
def test_the_model_is_one_that_the_server_has(models: list[str], wanted: str | None, expected: str) -> None:
    def page(_: Asked, reply: Reply) -> None:
        reply.json({"data": [{"id": name} for name in models]})

    with scripted_server(hello, _v1_models=page) as server:
        settings = HttpSettings(type="http", url=server.url, model=wanted)
        if " " in expected:
            with pytest.raises(BackendError, match=expected):
                HttpBackend("base", settings)
            return
        with closing(HttpBackend("base", settings)) as backend:
            answer(backend, ask("hi"))
        assert server.bodies("/v1/chat/completions")[0]["model"] == expected


SCHEMA = {
    "type": "object",
    "properties": {"score": {"type": "integer"}, "tags": {"type": "array", "items": {"enum": ["a", "b"]}}},
    "required": ["score"],
}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"score": 3, "tags": ["a"]}', None),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", r"\$ is not of type object"),
        ("{}", r"\$ lacks score"),
        ('{"score": true}', r"\$.score is not of type integer"),
        ('{"score": 3, "tags": ["a", "c"]}', r"\$.tags\[1\] is none of those allowed"),
    ],
)
def test_json_is_checked_against_its_schema(text: str, problem: str | None) -> None:
    if problem is None:
        check_json(text, SCHEMA)
        return
    with pytest.raises(HttpError, match=problem):
        check_json(text, SCHEMA)


def keeps_to(form: str, *, first_only: bool = False) -> Callable[[Asked, Reply], None]:
    """A server that knows one form of `response_format`, and answers 500 to others."""
    seen: list[Any] = []

    def script(asked: Asked, reply: Reply) -> None:
        wanted = asked.body.get("response_format")
        if wanted and wanted["type"] != form:
            reply.json({"error": "unknown response_format"}, 500)
            return
        schema = wanted and (wanted.get("schema") or wanted["json_schema"]["schema"])
        obeys = schema and not (first_only and seen)
        seen.append(schema)
        text = json.dumps({name: inner["enum"][0] for name, inner in schema["properties"].items()}) if obeys else "Hi"
        reply.json(whole(text))

    return script


@pytest.mark.parametrize(
    ("setting", "form", "constrains", "probes"),
    [
        ("auto", "json_schema", True, 1),
        ("auto", "json_object", True, 3),
        ("auto", "none", False, 4),
        ("yes", "json_schema", True, 0),
        ("no", "json_schema", False, 0),
    ],
)
def test_json_schemas_are_tried_once(setting: Any, form: str, constrains: bool, probes: int) -> None:
    with scripted_server(keeps_to(form)) as server:
        settings = HttpSettings(type="http", url=server.url, json_schema=setting, attempts=1)
        with closing(HttpBackend("base", settings)) as backend:
            assert backend.constrains_json is constrains
            assert backend.constrains_json is constrains
            assert len(server.bodies("/v1/chat/completions")) == probes
            schema = {"type": "object", "properties": {"x": {"enum": ["y"]}}, "required": ["x"]}
            completion = answer(backend, ask("q", schema=schema))
            if constrains:
                assert (completion.text, completion.error) == ('{"x": "y"}', None)
            else:
                assert "does not hold answers to a JSON schema" in str(completion.error)


def test_an_answer_that_broke_its_schema_is_an_error() -> None:
    with scripted_server(keeps_to("json_schema", first_only=True)) as server:
        with closing(HttpBackend("base", HttpSettings(type="http", url=server.url))) as backend:
            assert backend.constrains_json
            completion = answer(backend, ask("q", schema=SCHEMA))
        assert completion.text == "Hi"
        assert "did not hold the answer to the JSON schema" in str(completion.error)


def older(tokens: list[str], values: list[float | None], top: list[Any] | None = None) -> dict[str, Any]:
    logprobs = {"tokens": tokens, "token_logprobs": values, "top_logprobs": top or [None] * len(tokens)}
    return {"choices": [{"text": "".join(tokens), "logprobs": logprobs}]}


@pytest.mark.parametrize(
    ("tokens", "prompt", "count"),
    [
        (["a", " b", " c"], "a b", 2),
        (["<s>", "a", " b", " c"], "a b", 3),
        (["<s>", " a", " b", " c"], "a b", 3),
        (["a", " b"], "a b", 2),
        ([" c"], "a b", None),
        (["a", "\ufffd", "\ufffd", "x"], "a\u00e9x", None),
        ([], "a", None),
    ],
)
def test_an_echo_is_the_prompts_own_tokens(tokens: list[str], prompt: str, count: int | None) -> None:
    found = scores.echoed(older(tokens, [None, *[-1.0] * (len(tokens) - 1)][: len(tokens)]), prompt)
    assert (None if found is None else len(found)) == count


def test_labels_are_scored_from_the_last_common_token() -> None:
    alone: scores.Tokens = [("a", None), (" b", -1.0)]
    whole_word: scores.Tokens = [("a", None), (" b", -1.0), (" yes", -0.5)]
    two: scores.Tokens = [("a", None), (" b", -1.0), (" n", -2.0), ("o", -0.25)]
    merged: scores.Tokens = [("a", None), (" bee", -3.0)]
    assert scores.labels_by_echo([alone, whole_word, two]) == [-0.5, -2.25]
    assert scores.labels_by_echo([alone, whole_word, merged]) == [-1.5, -3.0]
    assert scores.labels_by_echo([alone, alone]) is None
    assert scores.labels_by_echo([alone, None]) is None
    assert scores.labels_by_echo([alone[:1], [("b", None)]]) is None


@pytest.mark.parametrize(
    ("values", "expected"), [([-0.4, -0.1], True), ([-0.4, -0.6], False), ([None, -0.1], False), ([-9.0, -0.1], False)]
)
def test_an_echo_is_believed_only_if_it_agrees(values: list[float | None], expected: bool) -> None:
    made: scores.Tokens = [(" x", -0.5), (" y", -0.1)]
    repeated: scores.Tokens = [(" x", values[0]), (" y", values[1])]
    assert scores.agree(made, repeated) is expected
    assert not scores.agree([(" other", -0.5), *made[1:]], repeated), "nothing to compare"
    assert scores.agree([*made, ("!", -0.1), ("!", -0.1)], [(" x", -0.5), (" y", -0.1), ("!!", -7.0)])


def test_labels_by_first_token_need_every_label_as_one_token() -> None:
    def entry(token: str, value: Any, raw: list[int] | None = None) -> dict[str, Any]:
        return {"token": token, "logprob": value, "bytes": raw}

    entries = [entry(" yes", -0.5), entry("\ufffd", -1.0, [0xC3, 0xA9]), entry(" no", -2.0), entry(" bad", math.nan)]
    newer = {"choices": [{"logprobs": {"content": [{"top_logprobs": entries}]}}]}
    assert scores.labels_by_first_token(newer, [" no", " yes", "\u00e9"]) == [-2.0, -0.5, -1.0]
    assert scores.labels_by_first_token(older(["x"], [-1], [{" yes": -0.5, " no": -2.0}]), [" yes"]) == [-0.5]
    for labels in ([" yes", " perhaps"], [" yes and no"], [" ye"], [" bad"]):
        assert scores.labels_by_first_token(newer, labels) is None
    lies: list[dict[str, Any]] = [{}, {"choices": []}, {"choices": [{"logprobs": {"content": [{"top_logprobs": 7}]}}]}]
    for lie in lies:
        assert scores.labels_by_first_token(lie, ["a"]) is None


def peft_folder(folder: Path, tensors: dict[str, Any], config: Any) -> Path:
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return folder


A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
B = A.replace("lora_A", "lora_B")
SOUND = {A: np.ones((4, 8), np.float32), B: np.ones((8, 4), np.float32)}
LORA = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}


@pytest.mark.parametrize(
    ("tensors", "config", "message"),
    [
        (SOUND, LORA, None),
        (SOUND, {**LORA, "peft_type": "IA3"}, "IA3"),
        (SOUND, [1], "JSON object"),
        ({A: SOUND[A]}, LORA, "lora_B"),
        ({**SOUND, B: np.full((8, 4), np.nan, np.float32)}, LORA, "NaN or infinite"),
        ({**SOUND, B: np.ones((8, 4), np.int8)}, LORA, "I8"),
        (
            {"model.layers.0.q.lora_a": np.ones((8, 4), "f4"), "model.layers.0.q.lora_b": np.ones((4, 8), "f4")},
            {"lora_parameters": {"rank": 4, "scale": 2.0}},
            "this is not PEFT's",
        ),
    ],
)
def test_only_a_sound_peft_folder_goes_to_a_server(
    tmp_path: Path, tensors: dict[str, Any], config: Any, message: str | None
) -> None:
    folder = peft_folder(tmp_path / "adapter", tensors, config)
    if message is None:
        assert check_peft_folder(folder) == 2
        return
    with pytest.raises(AdapterError, match=message):
        check_peft_folder(folder)


def test_our_models_can_be_told_from_all_others() -> None:
    assert not is_left_over(new_name())
    assert is_left_over("ml-pipeline-5f000000-0123abcd")
    assert is_left_over("ml-pipeline-5f000000-0123abcd:latest")
    for name in ("ml-pipeline-5f000000", "my-ml-pipeline-5f000000-0123abcd", "ml-pipeline-5f000000-0123abcd-mine", ""):
        assert not is_left_over(name)

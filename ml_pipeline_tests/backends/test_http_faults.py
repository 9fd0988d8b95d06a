"""The http backend against a server that stalls, cuts, floods, lies, and has too much to do."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest

from ml_pipeline.backend_settings import HttpSettings
from ml_pipeline.backends.http import HttpBackend
from ml_pipeline.errors import BackendError
from ml_pipeline_tests.backends.requests import QUESTIONS, answer, answers, ask
from ml_pipeline_tests.backends.scripted_server import (
    DONE,
    MODEL,
    Asked,
    Reply,
    Script,
    Server,
    chunk,
    scripted_server,
    sse,
    usage,
    whole,
)
from ml_pipeline_tests.servers import free_port

HELLO = (chunk("Hel"), chunk("lo"), chunk(finish="stop"), usage(7, 2))


@contextmanager
def backend_of(chat: Script | None, pages: dict[str, Script] | None = None, **options: Any) -> Iterator[Any]:
    """A backend with short patience and its server."""
    settings = {"attempts": 2, "silence_timeout_s": 0.5, "longest_wait_s": 2.0} | options
    with scripted_server(chat, **(pages or {})) as server:
        made = HttpBackend("base", HttpSettings(type="http", url=server.url, **settings))
        with closing(made) as backend:
            yield backend, server


def chats(server: Server) -> list[Asked]:
    return [asked for asked in server.asked if asked.path == "/v1/chat/completions"]


def hello(_: Asked, reply: Reply) -> None:
    reply.events(*HELLO)


def test_a_sound_answer() -> None:
    with backend_of(hello) as (backend, server):
        completion = answer(backend, ask("hi", max_tokens=5, top_p=0.5))
        assert completion.text == "Hello"
        assert (completion.finish_reason, completion.error) == ("stop", None)
        assert (completion.prompt_tokens, completion.completion_tokens) == (7, 2)
        assert server.bodies("/v1/chat/completions") == [
            {
                "model": MODEL,
                "messages": [{"role": "user", "content": "hi"}],
                "max_tokens": 5,
                "temperature": 0.0,
                "top_p": 0.5,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        ]


def stalls(_: Asked, reply: Reply) -> None:
    reply.head(200, "text/event-stream")
    reply.send(sse(chunk("Hel")))
    reply.stall()


def cuts(_: Asked, reply: Reply) -> None:
    reply.events(chunk("Hel"), end=b"")


def cuts_a_counted_answer(_: Asked, reply: Reply) -> None:
    reply.head(200, "text/event-stream", Content_Length="1000")
    reply.send(sse(chunk("Hel")))


def floods(_: Asked, reply: Reply) -> None:
    reply.head(200, "text/event-stream")
    reply.send(sse(chunk("Hel")))
    for _piece in range(80):
        reply.send(b": " + b"x" * (1 << 20) + b"\n")


def sends_a_line_without_end(_: Asked, reply: Reply) -> None:
    reply.head(200, "text/event-stream")
    reply.send(sse(chunk("Hel")))
    for _piece in range(8):
        reply.send(b"x" * (1 << 20))


def keeps_alive_for_ever(_: Asked, reply: Reply) -> None:
    reply.head(200, "text/event-stream")
    reply.send(sse(chunk("Hel")))
    for _piece in range(100):
        reply.send(b": keepalive\n\n")
        time.sleep(0.1)


def streamed(*events: Any, end: bytes = DONE) -> Script:
    return lambda _, reply: reply.events(chunk("Hel"), *events, end=end)


@pytest.mark.parametrize(
    ("script", "message", "times"),
    [
        (stalls, "nothing came for 0.5 s", 2),
        (cuts, "broke off", 2),
        (cuts_a_counted_answer, "the connection broke", 2),
        (floods, "larger than", 1),
        (sends_a_line_without_end, "line without end", 1),
        (keeps_alive_for_ever, r"no whole answer in 1\.5 s", 1),
        (streamed(), "no finish_reason", 2),
        (streamed(end=b"data: {nonsense\n\n"), "not JSON", 1),
        (streamed([1]), "not an object", 1),
        (streamed({"id": 1}), "without choices", 1),
        (streamed({"error": {"message": "the cache\x1b[2J is full"}}), r"ended the answer: the cache \[2J is full", 1),
        (streamed(chunk(finish="content_filter")), "content_filter", 1),
    ],
)
def test_a_partial_answer_comes_with_the_error_that_ended_it(script: Script, message: str, times: int) -> None:
    answer_timeout_s = 1.5 if script is keeps_alive_for_ever else 60
    with backend_of(script, answer_timeout_s=answer_timeout_s) as (backend, server):
        completion = answer(backend, ask("hi"))
        assert completion.text == "Hel"
        assert completion.finish_reason == "error"
        assert re.search(message, str(completion.error))
        assert len(chats(server)) == times


@pytest.mark.parametrize(
    ("events", "end", "counts"),
    [
        (HELLO[:3], DONE, (0, 2)),
        (HELLO, b"", (7, 2)),
        ((*HELLO[:3], {"choices": [], "usage": {"prompt_tokens": -1, "completion_tokens": "2"}}), DONE, (0, 2)),
        (({"choices": [{"delta": "x", "finish_reason": None}]}, *HELLO), DONE, (7, 2)),
        ((chunk("Hello", finish="stop"),), DONE + sse(chunk(" and more")), (0, 1)),
    ],
)
def test_what_servers_leave_out_does_not_matter(events: Any, end: bytes, counts: tuple[int, int]) -> None:
    with backend_of(lambda _, reply: reply.events(*events, end=end)) as (backend, _server):
        completion = answer(backend, ask("hi"))
        assert (completion.text, completion.finish_reason, completion.error) == ("Hello", "stop", None)
        assert (completion.prompt_tokens, completion.completion_tokens) == counts


def first(*refusals: Script) -> Script:
    """These answers to the first requests, and a sound one to all others."""
    left = iter(refusals)
    return lambda asked, reply: next(left, hello)(asked, reply)


def status(code: int, words: Any = None, **headers: str) -> Script:
    return lambda _, reply: reply.json(words or {"error": {"message": "busy"}}, code, **headers)


@pytest.mark.parametrize("script", [status(429), status(503), status(500), status(502), cuts, stalls])
def test_what_passes_is_asked_again(script: Script) -> None:
    with backend_of(first(script)) as (backend, server):
        completion = answer(backend, ask("hi"))
        assert (completion.text, completion.error) == ("Hello", None)
        assert len(chats(server)) == 2


@pytest.mark.parametrize("code", [400, 401, 403, 404, 413, 422, 501])
def test_a_refusal_is_the_requests_own_error_in_the_servers_words(code: int) -> None:
    def refuses_bad(asked: Asked, reply: Reply) -> None:
        if asked.body["messages"][0]["content"] == "bad":
            reply.json({"error": {"message": "too \x1b[31mlong" + "!" * 5000, "code": code}}, code)
        else:
            hello(asked, reply)

    with backend_of(refuses_bad) as (backend, server):
        found = answers(backend, [ask("bad"), ask("good")])
        assert found["good"].error is None
        assert found["bad"].finish_reason == "error"
        error = str(found["bad"].error)
        assert f"status {code}: too  [31mlong!!!" in error
        assert len(error) < 600
        assert len(chats(server)) == 2


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_kept(as_date: bool) -> None:
    def says_when(_: Asked, reply: Reply) -> None:
        # A date has whole seconds only.
        value = formatdate(int(time.time()) + 2, usegmt=True) if as_date else "1.2"
        reply.json({"error": "busy"}, 429, Retry_After=value)

    with backend_of(first(says_when), longest_wait_s=5) as (backend, server):
        assert answer(backend, ask("hi")).text == "Hello"
        waited = chats(server)[1].at - chats(server)[0].at
        assert 0.9 <= waited <= 3.5


def test_a_wait_beyond_the_bound_is_an_error_at_once() -> None:
    with backend_of(status(429, Retry_After="3600"), longest_wait_s=30, concurrency=1) as (backend, server):
        started = time.monotonic()
        found = list(backend.complete([ask(question) for question in QUESTIONS]))
        assert time.monotonic() - started < 15
        for completion in found:
            assert "asks to wait 3600 s, more than longest_wait_s (30)" in str(completion.error)
        assert len(chats(server)) == len(QUESTIONS)


def test_a_pause_that_one_is_told_holds_for_all() -> None:
    with backend_of(first(status(429, Retry_After="1")), concurrency=1) as (backend, server):
        assert {c.text for c in backend.complete([ask(question) for question in QUESTIONS])} == {"Hello"}
        times = [asked.at for asked in chats(server)]
        assert times[1] - times[0] >= 0.95


def test_concurrency_never_exceeds_the_setting_and_shrinks_under_a_burst() -> None:
    numbers = itertools.count()

    def slowly(asked: Asked, reply: Reply) -> None:
        number = next(numbers)
        time.sleep(0.05)
        (status(503) if 4 <= number < 12 else hello)(asked, reply)

    with backend_of(slowly, concurrency=4, attempts=20, longest_wait_s=0.2) as (backend, server):
        found = list(backend.complete([ask(str(number)) for number in range(40)]))
        assert {completion.text for completion in found} == {"Hello"}
        assert server.in_flight_at_most == 4
        assert backend._requester.gate.limit < 4


def test_a_server_that_takes_few_at_once_is_not_overrun() -> None:
    """As llama_cpp.server does it: whoever comes ends the answer of who was there."""
    generation = itertools.count()
    latest = [0]

    def interrupts(_: Asked, reply: Reply) -> None:
        mine = latest[0] = next(generation)
        reply.head(200, "text/event-stream")
        for event in HELLO:
            if latest[0] != mine:
                return
            reply.send(sse(event))
            time.sleep(0.01)
        reply.send(DONE)

    with backend_of(interrupts, concurrency=8, attempts=12, longest_wait_s=0.3) as (backend, _server):
        found = list(backend.complete([ask(str(number)) for number in range(24)]))
        assert [completion.error for completion in found] == [None] * 24


@pytest.mark.parametrize(
    ("words", "left"),
    [("stream_options is not allowed here", {"stream"}), ("stream: not supported", set())],
)
def test_a_server_without_streams_is_asked_without(words: str, left: set[str]) -> None:
    def refuses(asked: Asked, reply: Reply) -> None:
        if set(asked.body) & {"stream", "stream_options"} != left:
            reply.json({"detail": words}, 400)
        elif left:
            hello(asked, reply)
        else:
            reply.json(whole("Hello") | {"usage": {"prompt_tokens": 7, "completion_tokens": 2}})

    with backend_of(refuses) as (backend, server):
        for _ in range(2):
            completion = answer(backend, ask("hi", stop=("END",)))
            assert (completion.text, completion.prompt_tokens, completion.error) == ("Hello", 7, None)
        assert len(chats(server)) == 3, "it is refused once only"


def test_a_stop_string_ends_the_stream() -> None:
    left: list[bool] = []

    def goes_on(_: Asked, reply: Reply) -> None:
        reply.head(200, "text/event-stream")
        reply.send(sse(chunk("one EN")) + sse(chunk("D two")))
        left.append(reply.left_within(5))

    with backend_of(goes_on) as (backend, _server):
        completion = answer(backend, ask("hi", stop=("END",)))
        assert (completion.text, completion.finish_reason, completion.error) == ("one ", "stop", None)
        pieces = list(backend.stream(ask("hi", stop=("END",))))
        assert "".join(piece.text for piece in pieces) == "one "
    assert left == [True, True]


def test_nothing_is_asked_again_once_a_piece_was_given_away() -> None:
    with backend_of(cuts) as (backend, server):
        *pieces, last = backend.stream(ask("hi"))
        assert [piece.text for piece in pieces] == ["Hel"]
        assert last.completion.text == "Hel"
        assert "broke off" in str(last.completion.error)
        assert len(chats(server)) == 1


def test_cancelling_closes_the_stream() -> None:
    left: list[bool] = []

    def waits(_: Asked, reply: Reply) -> None:
        reply.head(200, "text/event-stream")
        reply.send(sse(chunk("Hel")))
        left.append(reply.left_within(10))

    with backend_of(waits, concurrency=2, silence_timeout_s=20) as (backend, server):
        began = time.monotonic()
        requests = [ask(str(number)) for number in range(5)]
        found = list(backend.complete(requests, cancelled=lambda: time.monotonic() > began + 0.5))
        assert time.monotonic() - began < 5
        assert {completion.finish_reason for completion in found} == {"cancelled"}
        assert sorted(completion.text for completion in found) == ["", "", "", "Hel", "Hel"]
        assert {completion.error for completion in found} == {None}
        assert len(chats(server)) == 2

        stream = backend.stream(ask("hi"))
        assert next(stream).text == "Hel"
        stream.close()
        give_up_at = time.monotonic() + 5
        while len(left) < 3 and time.monotonic() < give_up_at:
            time.sleep(0.02)
    assert left == [True, True, True]


def test_close_ends_an_iterator_that_nobody_used_up() -> None:
    with scripted_server(stalls) as server:
        backend = HttpBackend("base", HttpSettings(type="http", url=server.url))
        stream = backend.stream(ask("hi"))
        assert next(stream).text == "Hel"
        backend.close()
        backend.close()
        stream.close()  # type: ignore[attr-defined]
        with pytest.raises(BackendError, match="closed"):
            answer(backend, ask("hi"))
        with pytest.raises(BackendError, match="closed"):
            backend.identity()


def test_log_probabilities_are_checked() -> None:
    def tells(value: Any) -> Script:
        entries = [{"token": "Hel", "logprob": -0.5}, {"token": "lo", "logprob": value}]
        return lambda _, reply: reply.events(chunk("Hello", "stop", logprobs={"content": entries}))

    request = replace(ask("hi"), log_probabilities=True)
    with backend_of(tells(-1.5)) as (backend, server):
        assert answer(backend, request).log_probabilities == (-0.5, -1.5)
        assert server.bodies("/v1/chat/completions")[0]["logprobs"] is True
        assert answer(backend, ask("hi")).log_probabilities is None
    for lie in (float("nan"), 3.0, "x", None):
        with backend_of(tells(lie)) as (backend, _server):
            assert "log-probability that is none" in str(answer(backend, request).error)
    with backend_of(hello) as (backend, _server):
        assert answer(backend, request).log_probabilities is None


def test_a_server_that_is_not_there_is_an_error() -> None:
    settings = HttpSettings(type="http", url=f"http://127.0.0.1:{free_port()}", attempts=2, longest_wait_s=0.1)
    with pytest.raises(BackendError, match=r"cannot connect to http://127\.0\.0\.1:.*Does it run\?"):
        HttpBackend("base", settings)


def test_text_without_characters_of_its_own_is_sent() -> None:
    with backend_of(hello) as (backend, _server):
        assert answer(backend, ask("half a character: \ud83d", "x")).error is None

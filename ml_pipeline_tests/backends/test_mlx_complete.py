"""Answers of the mlx backend against those of mlx_lm itself, one at a time, with tiny models."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from ml_pipeline.backend_settings import MlxSettings
from ml_pipeline.backends.interface import Completion, CompletionRequest, Message
from ml_pipeline.backends.mlx import MlxBackend
from ml_pipeline.errors import BackendError
from ml_pipeline_tests.adapters.tiny_models import VOCAB_SIZE, mlx_logits, tiny_gemma3, tiny_llama
from ml_pipeline_tests.backends.requests import QUESTIONS, answer, answers, ask
from ml_pipeline_tests.backends.tiny_mlx import Reference, log_softmax, write_model

CONTEXT_TOKENS = 256
SETTINGS = MlxSettings(sequences=3, context_tokens=CONTEXT_TOKENS, prefill_tokens=16)
# The window is shorter than a prompt: what falls out of it must do so in a batch too.
MODELS: dict[str, Any] = {
    "llama": write_model,
    "gemma3": partial(write_model, make=partial(tiny_gemma3, sliding_window=32)),
    "4bit": partial(write_model, make=partial(tiny_llama, hidden=128), bits=4),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("models") / request.param
    MODELS[request.param](folder)
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    write_model(folder)
    return folder


@pytest.fixture(scope="module")
def backend(llama: Path) -> Iterator[MlxBackend]:
    made = MlxBackend(str(llama), "tiny", SETTINGS)
    yield made
    made.close()


@pytest.fixture(scope="module")
def reference(llama: Path) -> Reference:
    return Reference(llama)


def expected(reference: Reference, request: CompletionRequest) -> tuple[str, int, str]:
    """Text, tokens without the one that says stop, and why it ended."""
    steps = reference.steps(request.messages, request.options.max_tokens)
    stopped = steps[-1].finish_reason == "stop"
    return "".join(step.text for step in steps), steps[-1].generation_tokens - stopped, steps[-1].finish_reason


def told(completion: Completion) -> tuple[str, int, str]:
    assert completion.error is None
    return completion.text, completion.completion_tokens, completion.finish_reason


def test_a_batch_answers_as_mlx_lm_does_one_at_a_time(model: Path) -> None:
    reference, backend = Reference(model), MlxBackend(str(model), "tiny", SETTINGS)
    # More than there are sequences, of different lengths.
    requests = [ask(question * times, max_tokens=12) for times in (1, 2) for question in QUESTIONS]
    found = answers(backend, requests)
    assert {name: told(completion) for name, completion in found.items()} == {
        request.id: expected(reference, request) for request in requests
    }
    for request in requests:
        assert found[request.id].prompt == f"<user>{request.messages[0].content}\n<assistant>"
        assert found[request.id].prompt_tokens == len(reference.prompt(request.messages))
        assert found[request.id].seconds > 0
    backend.close()


def test_an_answer_may_end_by_itself_or_at_its_longest(backend: MlxBackend) -> None:
    found = answers(backend, [ask(question, max_tokens=24) for question in QUESTIONS])
    assert {completion.finish_reason for completion in found.values()} == {"stop", "length"}


def test_a_beginning_that_all_share_changes_nothing(model: Path) -> None:
    reference, backend = Reference(model), MlxBackend(str(model), "tiny", SETTINGS)
    system = Message("system", "You answer short questions in a few words, and never ask back.")
    requests = [replace(ask(question), messages=(system, Message("user", question))) for question in QUESTIONS[:4]]
    found = answers(backend, requests)
    assert {name: told(completion) for name, completion in found.items()} == {
        request.id: expected(reference, request) for request in requests
    }
    backend.close()


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.8, "top_k": 20}, {"temperature": 0.8, "repeat_penalty": 1.5}, {"repeat_penalty": 1.5}],
    ids=str,
)
def test_log_probabilities_are_the_models_own(
    backend: MlxBackend, reference: Reference, options: dict[str, Any]
) -> None:
    request = replace(ask(QUESTIONS[0], **options), log_probabilities=True)
    tokens = tokens_of(backend, request)
    (completion,) = backend.complete([request])
    prompt = reference.prompt(request.messages)
    rows = log_softmax(mlx_logits(reference.model, [*prompt, *tokens]))[len(prompt) - 1 : -1]
    assert completion.log_probabilities is not None
    np.testing.assert_allclose(
        completion.log_probabilities, [row[token] for row, token in zip(rows, tokens, strict=True)], atol=1e-4
    )


def tokens_of(backend: MlxBackend, request: CompletionRequest) -> list[int]:
    """The tokens of the answer, as the job noted them on its way."""
    job = backend._prepare(request)
    assert not isinstance(job, Completion)
    taken: list[int] = []
    add = job._detokenizer.add_token

    def take(token: int) -> None:
        taken.append(token)
        add(token)

    job._detokenizer.add_token = take
    for _ in backend._run([job], lambda: False):
        pass
    return taken


def test_the_penalty_is_llama_cpps(backend: MlxBackend, reference: Reference) -> None:
    request = ask(QUESTIONS[1], repeat_penalty=1.8, max_tokens=40)
    tokens = tokens_of(backend, request)
    prompt = reference.prompt(request.messages)
    rows = mlx_logits(reference.model, prompt + tokens)[len(prompt) - 1 : -1]
    for place, (token, logits) in enumerate(zip(tokens, rows, strict=True)):
        # Logits, not log-probabilities, are what a penalty multiplies or divides.
        for seen in set(tokens[:place]):
            logits[seen] *= 1.8 if logits[seen] < 0 else 1 / 1.8
        assert logits.argmax() == token
    assert tokens != tokens_of(backend, ask(QUESTIONS[1], max_tokens=40))


SAMPLED: dict[str, Any] = {"temperature": 0.9, "top_k": 50, "top_p": 0.95, "repeat_penalty": 1.1}


def test_a_seed_gives_the_same_answer_wherever_the_request_stands(backend: MlxBackend) -> None:
    requests = [ask(question, seed=5, **SAMPLED) for question in QUESTIONS]
    found = {name: completion.text for name, completion in answers(backend, requests).items()}
    assert found == {name: completion.text for name, completion in answers(backend, requests[::-1]).items()}
    assert found == {request.id: answer(backend, request).text for request in requests}
    others = answers(backend, [ask(question, seed=6, **SAMPLED) for question in QUESTIONS])
    assert all(found[name] != completion.text for name, completion in others.items())


def drawn(backend: MlxBackend, **options: Any) -> Counter[str]:
    """How often which first token came, out of 600."""
    requests = [ask("hi", f"r{number}", max_tokens=1, **options) for number in range(600)]
    return Counter(completion.text for completion in backend.complete(requests))


def test_tokens_come_as_often_as_they_are_likely(backend: MlxBackend, reference: Reference) -> None:
    temperature, top_k, top_p = 1.3, 6, 0.9
    logits = reference.log_probabilities(reference.prompt(ask("hi").messages))
    likely = np.argsort(-logits)[:top_k]
    chances = np.exp(logits[likely])
    kept = int(np.searchsorted(np.cumsum(chances) / chances.sum(), top_p)) + 1
    chances = np.exp(logits[likely[:kept]] / temperature)
    chances /= chances.sum()
    wide = MlxBackend(str(backend.model.folder), "tiny", MlxSettings(sequences=64))
    found = drawn(wide, temperature=temperature, top_k=top_k, top_p=top_p)
    wide.close()
    assert 1 < len(found) <= kept
    # Three standard deviations of the largest share are 0.06.
    shares = np.array(sorted(found.values(), reverse=True)) / 600
    np.testing.assert_allclose(shares, np.sort(chances)[::-1][: len(shares)], atol=0.07)


@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-30}, {"top_k": VOCAB_SIZE + 1}])
def test_limits_of_the_samplers(backend: MlxBackend, options: dict[str, Any]) -> None:
    request = ask(QUESTIONS[2], **{"temperature": 1.0} | options)
    greedy = answer(backend, ask(QUESTIONS[2])).text
    assert (answer(backend, request).text == greedy) is (options.get("top_k", 1) == 1)


def test_a_stream_is_the_answer_in_pieces(backend: MlxBackend) -> None:
    request = ask(QUESTIONS[3], max_tokens=24)
    *pieces, last = backend.stream(request)
    assert len(pieces) > 3
    assert all(piece.completion is None for piece in pieces)
    assert last.completion is not None
    assert "".join(piece.text for piece in (*pieces, last)) == last.completion.text
    assert told(last.completion) == told(answer(backend, request))


def test_a_stop_string_ends_the_answer_and_is_not_in_it(backend: MlxBackend) -> None:
    whole = answer(backend, ask(QUESTIONS[3], max_tokens=24)).text
    stop = whole[6:8]
    request = ask(QUESTIONS[3], max_tokens=24, stop=(stop, "never there"))
    # Others are in the batch, so that the sequence must be taken out of it.
    others = [ask(QUESTIONS[0]), ask(QUESTIONS[1])]
    together = answers(backend, [*others, request])
    assert [told(together[other.id]) for other in others] == [told(answer(backend, other)) for other in others]
    found = together[request.id]
    assert (found.text, found.finish_reason) == (whole[: whole.index(stop)], "stop")
    assert "".join(piece.text for piece in backend.stream(request)) == found.text


def test_a_full_context_ends_the_answer_with_what_there_is(backend: MlxBackend, reference: Reference) -> None:
    request = ask("x" * (CONTEXT_TOKENS - 30), max_tokens=100)
    found = answer(backend, request)
    assert found.finish_reason == "error"
    assert found.prompt_tokens + found.completion_tokens == CONTEXT_TOKENS
    assert f"the context of {CONTEXT_TOKENS} tokens is full after a prompt of {found.prompt_tokens}" in str(found.error)
    assert found.text == expected(reference, ask("x" * (CONTEXT_TOKENS - 30), max_tokens=found.completion_tokens))[0]


def test_the_context_is_not_longer_than_the_models(llama: Path) -> None:
    backend = MlxBackend(str(llama), "tiny", MlxSettings(context_tokens=100_000))
    assert backend.model.context_tokens == 4096
    backend.close()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ask("x" * CONTEXT_TOKENS), "Raise context_tokens"),
        (ask("hi", max_tokens=0), "max_tokens is 0"),
        (ask("hi", temperature=-1.0, top_p=0.0), "generation options: 2 problems"),
        (ask("hi", schema={"type": "array", "uniqueItems": True}), "json_schema"),
        (ask("half a character: \ud83d"), "cannot be cut into tokens"),
    ],
)
def test_a_request_that_cannot_be_is_answered_with_the_reason(
    backend: MlxBackend, request_: CompletionRequest, message: str
) -> None:
    good = ask("fine", "good")
    found = answers(backend, [request_, good])
    assert (found[request_.id].finish_reason, found[request_.id].text) == ("error", "")
    assert message in str(found[request_.id].error)
    assert told(found["good"]) == told(answer(backend, good))
    (piece,) = backend.stream(request_)
    assert piece.completion is not None
    assert piece.completion.error == found[request_.id].error


def test_cancelling_keeps_what_there_is(backend: MlxBackend) -> None:
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > 8

    requests = [ask(question, max_tokens=100) for question in QUESTIONS]
    found = {completion.request_id: completion for completion in backend.complete(requests, cancelled=cancelled)}
    assert {completion.finish_reason for completion in found.values()} == {"cancelled"}
    assert [found[request.id].completion_tokens > 0 for request in requests] == [True] * 3 + [False] * 3
    for request in requests[:3]:
        assert answer(backend, request).text.startswith(found[request.id].text.rstrip("\ufffd"))


def test_one_thing_at_a_time_and_closing_frees(backend: MlxBackend) -> None:
    iterator = iter(
        backend.complete([ask(question, max_tokens=3 + 9 * number) for number, question in enumerate("abc")])
    )
    next(iterator)
    with pytest.raises(BackendError, match="complete is still under way"):
        backend.classify(["a"], ["b"])
    iterator.close()  # type: ignore[attr-defined]
    assert told(answer(backend, ask(QUESTIONS[0])))
    with pytest.raises(BackendError, match="share an id"):
        list(backend.complete([ask("a", "same"), ask("b", "same")]))


def test_a_batch_that_fails_takes_only_its_own_with_it(backend: MlxBackend) -> None:
    requests = [ask(question, max_tokens=12) for question in QUESTIONS]
    whole = {name: completion.text for name, completion in answers(backend, requests).items()}
    network, calls = backend.model.module, 0

    def failing(*args: Any, **options: Any) -> mx.array:
        nonlocal calls
        calls += 1
        if calls == 12:
            raise RuntimeError("[malloc] Unable to allocate 8 bytes.")
        return network(*args, **options)  # type: ignore[no-any-return]

    failing.layers = network.layers  # type: ignore[attr-defined]
    backend.model.module = failing
    try:
        found = answers(backend, requests)
    finally:
        backend.model.module = network
    lost = [completion for completion in found.values() if completion.finish_reason == "error"]
    assert len(lost) == 3
    for completion in lost:
        assert completion.error == "mlx-lm failed: RuntimeError: [malloc] Unable to allocate 8 bytes."
        assert completion.completion_tokens > 0
        assert whole[completion.request_id].startswith(completion.text.rstrip("\ufffd"))
    assert all(found[name].text == text for name, text in whole.items() if found[name] not in lost)


def test_nan_is_an_error_and_not_an_answer(backend: MlxBackend) -> None:
    norm = backend.model.module.model.norm
    weight = norm.weight
    norm.weight = weight * mx.nan
    try:
        found = [answer(backend, ask("hi", **options)) for options in ({}, SAMPLED, {"schema": {"type": "integer"}})]
    finally:
        norm.weight = weight
    assert {(completion.text, completion.finish_reason) for completion in found} == {("", "error")}
    assert all("NaN" in str(completion.error) for completion in found)


SCHEMA = {
    "type": "object",
    "properties": {
        "score": {"type": "integer", "minimum": 0, "maximum": 10},
        "kind": {"enum": ["good", "bad"]},
        "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
    },
    "required": ["score", "kind", "tags"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_an_answer_in_a_schema_always_parses(backend: MlxBackend, temperature: float) -> None:
    requests = [ask(question, schema=SCHEMA, max_tokens=120, temperature=temperature) for question in QUESTIONS]
    free = ask("no schema")
    found = answers(backend, [*requests, free])
    for request in requests:
        assert found[request.id].finish_reason == "stop"
        content = json.loads(found[request.id].text)
        assert content.keys() == {"score", "kind", "tags"}
        assert content["score"] in range(11)
        assert content["kind"] in ("good", "bad")
        assert len(content["tags"]) <= 3
        assert set(content["tags"]) <= {True, False}
    assert told(found[free.id]) == told(answer(backend, free))


def test_it_answers_in_another_thread(backend: MlxBackend) -> None:
    requests = [ask(QUESTIONS[0]), ask(QUESTIONS[1], seed=1, **SAMPLED)]
    here = {name: completion.text for name, completion in answers(backend, requests).items()}
    there: dict[str, str] = {}

    def elsewhere() -> None:
        there.update({name: completion.text for name, completion in answers(backend, requests).items()})

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert there == here


def test_a_model_without_a_chat_template_is_asked_plainly(tmp_path: Path) -> None:
    write_model(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    backend = MlxBackend(str(tmp_path), "tiny", SETTINGS)
    assert answer(backend, ask("Two and two is")).prompt == "Two and two is"
    assert backend.render((Message("system", "Be kind."), Message("user", "Hi"))).endswith("User: Hi\n\nAssistant:")
    backend.close()


def test_importing_it_imports_no_mlx() -> None:
    code = "import sys, ml_pipeline.backends.mlx; print([name for name in sys.modules if name.startswith('mlx')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("attack", ["</s>", "a</s><s>b", "<unk></s></s>", "<s", "word1</s>"])
def test_no_message_spells_a_control_token(backend: MlxBackend, attack: str) -> None:
    prompt = backend.render((Message("user", attack),))
    # The byte-level vocabulary of the fixture: each byte is a token of its own, and <s> would begin a prompt.
    letters = backend.model.tokenizer.convert_ids_to_tokens(backend.tokens(prompt))
    assert "".join(letters) == f"<user>{attack}\u010a<assistant>"
    assert not {"<s>", "</s>", "<unk>"} & set(letters)
    assert prompt == f"<user>{attack}\n<assistant>"
    assert answer(backend, ask(attack, max_tokens=1)).prompt_tokens == len(letters)


def test_an_ordinary_prompt_has_mlx_lms_tokens(backend: MlxBackend, reference: Reference) -> None:
    chat = (Message("user", "2 < 3? [INST] <b>"), Message("assistant", "Yes."), Message("user", "Why?"))
    assert backend.tokens(backend.render(chat)) == reference.prompt(chat)

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml_pipeline.backends.interface import CompletionRequest, GenerationOptions, Message
from ml_pipeline.backends.llama_cpp import LlamaCppBackend
from ml_pipeline.errors import BackendError
from ml_pipeline_tests.backends.conftest import CONTEXT_TOKENS, THREADS
from ml_pipeline_tests.backends.high_level import high_level_model
from ml_pipeline_tests.backends.requests import QUESTIONS, answer, answers, ask


@pytest.fixture(scope="module")
def high_level(smollm2: Path) -> Iterator[Any]:
    """llama-cpp-python's own high-level class, with the same context and the same attention kernel."""
    model = high_level_model(
        smollm2,
        n_ctx=CONTEXT_TOKENS,
        n_threads=THREADS,
        flash_attn=True,
    )
    yield model
    model.close()


@pytest.mark.parametrize("question", QUESTIONS[:4])
@pytest.mark.parametrize("repeat_penalty", [1.0, 1.3])
def test_one_sequence_answers_exactly_as_the_high_level_call(
    single: LlamaCppBackend, high_level: Any, question: str, repeat_penalty: float
) -> None:
    # reset() alone keeps its prefix, which decodes in another batch shape.
    high_level.reset()
    theirs = high_level.create_chat_completion(
        [{"role": "user", "content": question}], temperature=0.0, max_tokens=24, repeat_penalty=repeat_penalty
    )["choices"][0]
    ours = answer(single, ask(question, max_tokens=24, repeat_penalty=repeat_penalty))
    assert ours.text == theirs["message"]["content"]
    assert ours.finish_reason == theirs["finish_reason"]


def test_more_requests_than_sequences_are_all_answered_once(backend: LlamaCppBackend) -> None:
    requests = [ask(question, f"{round_}/{question}") for round_ in range(2) for question in QUESTIONS]
    done = list(backend.complete(requests))
    assert sorted(completion.request_id for completion in done) == sorted(request.id for request in requests)
    assert {completion.finish_reason for completion in done} <= {"stop", "length"}
    assert all(completion.text and completion.seconds > 0 for completion in done)


def test_a_batch_answers_the_same_twice(backend: LlamaCppBackend) -> None:
    requests = [ask(question, temperature=0.9, seed=7) for question in QUESTIONS]
    first, second = (answers(backend, requests) for _ in range(2))
    assert {key: done.text for key, done in first.items()} == {key: done.text for key, done in second.items()}


def test_the_seed_and_the_id_decide_what_is_drawn(single: LlamaCppBackend) -> None:
    def draw(request_id: str, seed: int) -> str:
        return answer(single, ask(QUESTIONS[2], request_id, temperature=1.2, seed=seed)).text

    assert draw("a", 1) == draw("a", 1)
    assert len({draw("a", 1), draw("a", 2), draw("b", 1)}) == 3


def test_top_k_one_is_greedy_at_any_temperature(single: LlamaCppBackend) -> None:
    greedy = answer(single, ask(QUESTIONS[1]))
    assert answer(single, ask(QUESTIONS[1], temperature=1.5, top_k=1)).text == greedy.text
    assert answer(single, ask(QUESTIONS[1], temperature=1.5, top_p=1e-6)).text == greedy.text


def test_a_stop_string_is_cut_off_with_all_after_it(single: LlamaCppBackend) -> None:
    whole = answer(single, ask(QUESTIONS[1], max_tokens=32)).text
    stop = whole[len(whole) // 2 : len(whole) // 2 + 4]
    stopped = answer(single, ask(QUESTIONS[1], max_tokens=32, stop=("never there", stop)))
    assert stopped.text == whole[: whole.index(stop)]
    assert stopped.finish_reason == "stop"


def test_an_answer_is_cut_at_max_tokens(single: LlamaCppBackend) -> None:
    done = answer(single, ask(QUESTIONS[2], max_tokens=3))
    assert (done.finish_reason, done.completion_tokens, done.error) == ("length", 3, None)


def test_stream_gives_the_text_of_complete(single: LlamaCppBackend) -> None:
    request = ask(QUESTIONS[1], max_tokens=24, stop=("Orange", "zzz"))
    pieces = list(single.stream(request))
    assert len(pieces) > 1
    whole = answer(single, request)
    assert "".join(piece.text for piece in pieces) == whole.text
    assert [piece.completion is None for piece in pieces] == [True] * (len(pieces) - 1) + [False]
    last = pieces[-1].completion
    assert last is not None
    assert (last.text, last.finish_reason, last.completion_tokens) == (
        whole.text,
        whole.finish_reason,
        whole.completion_tokens,
    )


def test_a_stream_that_cannot_begin_says_why(single: LlamaCppBackend) -> None:
    (piece,) = single.stream(ask("word " * 5000))
    assert piece.completion is not None
    assert (piece.text, piece.completion.finish_reason) == ("", "error")
    assert "Raise context_tokens" in str(piece.completion.error)


def test_log_probabilities_are_those_of_the_model_itself(single: LlamaCppBackend) -> None:
    plain = ask(QUESTIONS[0], max_tokens=8)
    (told,) = single.complete([replace(plain, log_probabilities=True)])
    assert answer(single, plain).log_probabilities is None
    assert told.log_probabilities is not None
    assert len(told.log_probabilities) == told.completion_tokens
    total = single.classify([told.prompt], [told.text]).log_probabilities[0][0]
    assert sum(told.log_probabilities) == pytest.approx(total, abs=0.05)


SCORE_SCHEMA = {
    "type": "object",
    "properties": {
        "reason": {"type": "string", "maxLength": 40},
        "score": {"type": "number", "minimum": 0, "maximum": 10},
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
    },
    "required": ["reason", "score", "stars"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_an_answer_in_a_schema_always_parses(backend: LlamaCppBackend, temperature: float) -> None:
    requests = [
        ask(f"Rate this answer: {question}", schema=SCORE_SCHEMA, max_tokens=120, temperature=temperature)
        for question in QUESTIONS[:4]
    ]
    for completion in backend.complete(requests):
        assert completion.finish_reason == "stop", completion
        parsed = json.loads(completion.text)
        assert list(parsed) == ["reason", "score", "stars"]
        assert 0 <= parsed["score"] <= 10
        assert parsed["stars"] in range(1, 6)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ask("word " * CONTEXT_TOKENS), "Raise context_tokens or shorten the prompt"),
        (ask("hi", max_tokens=0), "max_tokens is 0"),
        (ask("hi", temperature=-1.0, top_p=2.0), "2 problems"),
        (ask("hi", schema={"type": "object", "properties": {"x": {"type": "array", "uniqueItems": True}}}), r"\$\.x"),
        (ask("\ud800"), "surrogates"),
    ],
)
def test_a_bad_request_is_its_own_error_and_hurts_no_other(
    backend: LlamaCppBackend, request_: CompletionRequest, message: str
) -> None:
    done = answers(backend, [request_, ask(QUESTIONS[0], "good")])
    assert done[request_.id].finish_reason == "error"
    assert re.search(message, str(done[request_.id].error))
    assert done["good"].text


def test_a_full_context_ends_an_answer_with_its_text_and_the_reason(backend: LlamaCppBackend) -> None:
    long = ask("tell " * (CONTEXT_TOKENS - 50), max_tokens=400)
    done = answers(backend, [long, ask(QUESTIONS[0], "good")])
    if done[long.id].finish_reason == "stop":
        pytest.skip("the model ended its answer before the context was full")
    assert done[long.id].finish_reason == "error"
    assert "is full" in str(done[long.id].error)
    assert done[long.id].prompt_tokens + done[long.id].completion_tokens == CONTEXT_TOKENS + 1
    assert done[long.id].text
    assert done["good"].finish_reason in ("stop", "length")


def test_two_requests_of_one_id_are_refused(backend: LlamaCppBackend) -> None:
    with pytest.raises(BackendError, match="share an id"):
        list(backend.complete([ask("a", "x"), ask("b", "x")]))


def test_cancelling_brings_back_what_there_is(backend: LlamaCppBackend) -> None:
    steps = itertools.count()
    requests = [ask(question, max_tokens=200) for question in QUESTIONS]
    done = list(backend.complete(requests, cancelled=lambda: next(steps) >= 6))
    assert len(done) == len(requests)
    cancelled = [completion for completion in done if completion.finish_reason == "cancelled"]
    assert any(completion.text for completion in cancelled)
    assert any(not completion.text for completion in cancelled)
    assert answer(backend, ask(QUESTIONS[0])).finish_reason in ("stop", "length")


def test_closing_the_iterator_early_leaves_the_backend_ready(backend: LlamaCppBackend) -> None:
    before = answer(backend, ask(QUESTIONS[0])).text
    running = backend.complete([ask(question) for question in QUESTIONS])
    next(running)
    with pytest.raises(BackendError, match="still under way"):
        list(backend.complete([ask("hi")]))
    running.close()  # type: ignore[attr-defined]
    assert answer(backend, ask(QUESTIONS[0])).text == before


def test_an_interrupt_leaves_the_backend_ready(backend: LlamaCppBackend) -> None:
    steps = itertools.count()

    def interrupt() -> bool:
        if next(steps) == 3:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        list(backend.complete([ask(question) for question in QUESTIONS], cancelled=interrupt))
    assert answer(backend, ask(QUESTIONS[0])).text


@pytest.mark.parametrize("shared", [True, False])
def test_a_shared_prefix_is_decoded_once(smollm2: Path, shared: bool) -> None:
    made = LlamaCppBackend(
        smollm2,
        "smollm2-135m",
        sequences=4,
        context_tokens=CONTEXT_TOKENS,
        threads=THREADS,
        min_shared_prefix=16 if shared else CONTEXT_TOKENS,
    )
    library = CountingLibrary(made.model.lib)
    made.model.lib = library
    done = answers(made, [judge_request(question) for question in QUESTIONS])
    made.close()
    prompts = sum(completion.prompt_tokens for completion in done.values())
    # An answer's last token is never decoded, and one that stopped had a token more, which ended it.
    answered = sum(c.completion_tokens - (c.finish_reason == "length") for c in done.values())
    if shared:
        # Five of six prompts of about 100 tokens start from the first one's, of which all but some 15 are theirs too.
        assert library.decoded < prompts + answered - 5 * 70
    else:
        assert library.decoded == prompts + answered


def test_a_copied_prefix_gives_the_bits_of_one_decoded_in_place(backend: LlamaCppBackend) -> None:
    # Whole texts cannot be compared: llama.cpp's logits depend on how a prompt is cut into batches (by up to 1 here).
    model, memory, batch = backend.model, backend._memory, backend._batch
    first, second = (
        model.tokenize(backend.render(judge_request(question).messages), add_special=True, parse_special=True)
        for question in QUESTIONS[:2]
    )

    def last_logits(sequence: int, position: int, tokens: Any) -> Any:
        batch.clear()
        batch.add(sequence, position, tokens, wanted_rows=1)
        batch.decode()
        memory.append(sequence, tokens)
        return model.logits(1)[0].copy()

    memory.clear()
    last_logits(0, 0, first)
    kept = memory.start(2, second)
    copied = last_logits(2, kept, second[kept:])
    memory.clear()
    last_logits(0, 0, second[:kept])
    in_place = last_logits(0, kept, second[kept:])
    memory.clear()
    assert kept > 80
    assert np.array_equal(copied, in_place)


class CountingLibrary:
    """llama.cpp's functions, counting the tokens that go through llama_decode."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self.decoded = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)

    def llama_decode(self, context: Any, batch: Any) -> int:
        self.decoded += batch.n_tokens
        return int(self._library.llama_decode(context, batch))


def judge_request(question: str) -> CompletionRequest:
    rubric = "You are a careful judge. Read the answer, think about how true and how clear it is. " * 4
    return CompletionRequest(
        question, (Message("system", rubric), Message("user", question)), GenerationOptions(max_tokens=8)
    )


def test_a_prompt_is_the_models_own_template(backend: LlamaCppBackend, high_level: Any) -> None:
    done = answer(backend, ask("Hi there", max_tokens=1))
    assert done.prompt == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n"
    )
    assert done.prompt == backend.render((Message("user", "Hi there"),))
    assert done.prompt_tokens == len(high_level.tokenize(done.prompt.encode(), add_bos=False, special=True))

"""The http backend against real servers: llama_cpp.server, mlx_lm.server and llama-server, each with a small model."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from ml_pipeline.backend_settings import HttpSettings
from ml_pipeline.backends.http import HttpBackend
from ml_pipeline.backends.llama_cpp import LlamaCppBackend
from ml_pipeline.errors import BackendError
from ml_pipeline_tests.adapters.tiny_models import tiny_llama
from ml_pipeline_tests.backends.conftest import THREADS
from ml_pipeline_tests.backends.high_level import high_level_model
from ml_pipeline_tests.backends.llama_servers import require_llama_server
from ml_pipeline_tests.backends.requests import QUESTIONS, answer, answers, ask
from ml_pipeline_tests.backends.tiny_mlx import Reference, write_model
from ml_pipeline_tests.servers import free_port, running

SERVERS = ("llama_cpp_server", "mlx_server", "llama_server")
TEXTS = ("The capital of France is", "The capital of England is")
SINGLE, SEVERAL = (" Paris", " London"), (" Paris", " New Caledonia")
# What llama_cpp.server takes for its own default is 1.1.
NEUTRAL = {"repeat_penalty": 1.0}


@dataclass(frozen=True)
class Real:
    """A server that runs, the settings to reach it, and its model."""

    name: str
    settings: HttpSettings
    model: Path

    def backend(self, **options: Any) -> Any:
        return closing(HttpBackend("tiny", self.settings.model_copy(update=options)))

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """What the server itself says, without our client and without a stream."""
        answered = httpx.post(
            f"{self.settings.url}{path}", json={"model": self.settings.model, **NEUTRAL, **body}, timeout=60
        )
        return dict(answered.raise_for_status().json())


@contextmanager
def serving(name: str, command: list[str], model: Path, log: Path, served_as: str, **options: Any) -> Iterator[Real]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"{url}/v1/models").status_code == 200
        return False

    with running([*command, "--port", str(port)], log, ready, timeout_s=120):
        yield Real(name, HttpSettings(type="http", url=url, model=served_as, **options), model)


@contextmanager
def llama_cpp_server(gguf: Path, log: Path, *options: str) -> Iterator[Real]:
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(gguf), "--model_alias", "tiny"]
    # Unless told otherwise, it ends the answer under way when the next request comes.
    command += [
        "--n_ctx",
        "512",
        "--n_threads",
        str(THREADS),
        "--logits_all",
        "true",
        "--interrupt_requests",
        "false",
        *options,
    ]
    with serving("llama_cpp_server", command, gguf, log, "tiny", samplers="repeat_penalty") as real:
        yield real


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[Real]:
    folder = tmp_path_factory.mktemp(request.param)
    log = folder / "log"
    if request.param == "llama_cpp_server":
        with llama_cpp_server(tiny_llama(folder).gguf_path, log) as real:
            yield real
    elif request.param == "mlx_server":
        model = folder / "model"
        write_model(model)
        command = [sys.executable, "-m", "mlx_lm.server", "--model", str(model), "--host", "127.0.0.1"]
        with serving("mlx_server", command, model, log, str(model.resolve()), samplers="repetition_penalty") as real:
            yield real
    else:
        binary = str(require_llama_server())
        command = [binary, "-m", str(smollm2), "--alias", "tiny", "-np", "2", "-c", "1024", "-t", str(THREADS)]
        with serving("llama_server", command, smollm2, log, "tiny", samplers="repeat_penalty") as real:
            yield real


@pytest.fixture(scope="module")
def backend(server: Real) -> Iterator[HttpBackend]:
    with server.backend() as made:
        yield made


def as_streamed(server: Real, text: str, streamed: str) -> str:
    """`text` as the server streams it: llama_cpp.server leaves out a character that takes several tokens."""
    if server.name != "llama_cpp_server":
        return text
    return "".join(sign for sign in text if sign.isascii() or sign in streamed)


def test_answers_are_the_servers_own(server: Real, backend: HttpBackend) -> None:
    found = answers(backend, [ask(question) for question in QUESTIONS])
    for question in QUESTIONS:
        body = {"messages": [{"role": "user", "content": question}], "max_tokens": 16, "temperature": 0}
        own = server.post("/v1/chat/completions", body)
        completion = found[question]
        assert completion.error is None
        assert completion.text == as_streamed(server, own["choices"][0]["message"]["content"], completion.text)
        assert completion.finish_reason == own["choices"][0]["finish_reason"]
        if server.name != "llama_cpp_server":
            assert completion.prompt_tokens == own["usage"]["prompt_tokens"]
            assert completion.completion_tokens == own["usage"]["completion_tokens"]
        if server.name == "mlx_server":
            assert completion.text == Reference(server.model).answer(ask(question).messages, 16)


def test_without_a_stream_the_answers_are_the_same(server: Real, backend: HttpBackend) -> None:
    with server.backend(stream=False) as plain:
        for question in QUESTIONS[:2]:
            whole, streamed = answer(plain, ask(question)), answer(backend, ask(question))
            assert as_streamed(server, whole.text, streamed.text) == streamed.text
            assert whole.finish_reason == streamed.finish_reason
            stop = whole.text[4:6]
            cut = answer(plain, ask(question, stop=(stop,)))
            assert (cut.text, cut.finish_reason) == (whole.text[: whole.text.find(stop)], "stop")


def test_a_stream_joins_to_the_answer_and_a_stop_string_ends_it(backend: HttpBackend) -> None:
    whole = answer(backend, ask(QUESTIONS[0], max_tokens=24))
    pieces = list(backend.stream(ask(QUESTIONS[0], max_tokens=24)))
    assert len(pieces) > 3
    assert "".join(piece.text for piece in pieces) == whole.text
    stop = whole.text[6:9]
    cut = answer(backend, ask(QUESTIONS[0], max_tokens=24, stop=(stop,)))
    assert (cut.text, cut.finish_reason) == (whole.text[: whole.text.find(stop)], "stop")


@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p": 1e-6}])
def test_samplers_reach_the_server(backend: HttpBackend, options: dict[str, Any]) -> None:
    greedy = answer(backend, ask(QUESTIONS[1])).text
    assert answer(backend, ask(QUESTIONS[1], "a", temperature=2.0, **options)).text == greedy
    assert answer(backend, ask(QUESTIONS[1], "a", temperature=2.0)).text != greedy


def test_a_repeat_penalty_and_a_seed_reach_the_server(backend: HttpBackend) -> None:
    greedy = answer(backend, ask(QUESTIONS[1], max_tokens=40)).text
    assert answer(backend, ask(QUESTIONS[1], max_tokens=40, repeat_penalty=5.0)).text != greedy
    drawn = [answer(backend, ask(QUESTIONS[0], temperature=1.0, seed=seed)).text for seed in (3, 3, 4)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_log_probabilities_are_those_of_the_answers_tokens(server: Real, backend: HttpBackend) -> None:
    # mlx_lm.server gives none with a stream.
    with server.backend(stream=server.name != "mlx_server") as telling:
        found = answer(telling, replace(ask(QUESTIONS[0], max_tokens=6), log_probabilities=True))
        if server.name == "mlx_server":
            drawn = replace(ask(QUESTIONS[0], temperature=2.0), log_probabilities=True)
            assert answer(telling, drawn).log_probabilities is None, "it tells those of the likeliest tokens"
    body = {"messages": [{"role": "user", "content": QUESTIONS[0]}], "max_tokens": 6, "temperature": 0}
    own = server.post("/v1/chat/completions", {**body, "logprobs": True, "top_logprobs": 1})["choices"][0]["logprobs"]
    expected = [entry["logprob"] for entry in own["content"]]
    assert found.log_probabilities == pytest.approx(expected, abs=1e-3)
    assert len(expected) == 6


def test_cancelling_frees_the_server(server: Real, backend: HttpBackend) -> None:
    requests = [ask(question, max_tokens=200) for question in QUESTIONS] + [ask(str(number)) for number in range(30)]
    polled = iter(range(10_000))
    found = list(backend.complete(requests, cancelled=lambda: next(polled) > 2))
    assert len(found) == len(requests)
    assert "cancelled" in {completion.finish_reason for completion in found}
    if server.name == "llama_server":
        give_up_at = time.monotonic() + 10
        while any(slot["is_processing"] for slot in httpx.get(f"{server.settings.url}/slots").json()):
            assert time.monotonic() < give_up_at
            time.sleep(0.05)
    assert answer(backend, ask(QUESTIONS[0])).error is None


def test_the_identity_says_what_the_server_tells(server: Real, backend: HttpBackend) -> None:
    identity = backend.identity()
    assert (identity.backend, identity.base_model) == ("http", "tiny")
    assert identity.base_sha256.startswith("unknown:")
    if server.name == "llama_server":
        assert identity.backend_version.startswith("llama-server ")
        assert identity.quantisation == "Q4_1"
    else:
        assert identity.quantisation == "unknown"


def test_json_is_constrained_where_it_is_said(server: Real, backend: HttpBackend) -> None:
    assert backend.constrains_json is (server.name != "mlx_server")
    schema = {"type": "object", "properties": {"mood": {"enum": ["calm", "wild"]}}, "required": ["mood"]}
    completion = answer(backend, ask("q", schema=schema, max_tokens=60))
    if backend.constrains_json:
        assert completion.error is None
        assert json.loads(completion.text)["mood"] in ("calm", "wild")
    else:
        assert "does not hold answers" in str(completion.error)


def expected_scores(smollm2: Path, text: str, label: str) -> float:
    """Log-probability of the label's tokens, one after another, from llama.cpp's own logits after a BOS token."""
    model = high_level_model(smollm2, n_ctx=128, n_threads=THREADS, logits_all=True)
    with closing(model):
        alone, both = (
            [model.token_bos(), *model.tokenize(words.encode(), add_bos=False)] for words in (text, text + label)
        )
        assert both[: len(alone)] == alone
        model.eval(both)
        logits = np.array(model.scores[: len(both)], dtype=np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return float(sum(log_probabilities[place - 1, both[place]] for place in range(len(alone), len(both))))


def test_classify_is_scored_or_chosen_and_says_which(server: Real, backend: HttpBackend, smollm2: Path) -> None:
    if server.name != "llama_server":
        if server.name == "mlx_server":
            with pytest.raises(BackendError, match="cannot classify"):
                backend.classify(TEXTS, SINGLE)
        return
    scored = backend.classify(TEXTS, SINGLE)
    reference = LlamaCppBackend(smollm2, "smollm2", sequences=1, context_tokens=512, threads=THREADS)
    with closing(reference):
        expected = reference.classify(TEXTS, SINGLE).log_probabilities
    assert scored.method == "scored"
    assert np.array(scored.log_probabilities) == pytest.approx(np.array(expected), abs=0.3)
    # llama-server repeats no prompt, and one of these labels is of several tokens.
    chosen = backend.classify(TEXTS, SEVERAL)
    assert chosen.method == "chosen"
    assert [sorted(row) for row in chosen.log_probabilities] == [[-np.inf, 0.0]] * 2


@pytest.mark.slow
def test_an_echo_that_is_off_by_one_is_not_believed(smollm2: Path, tmp_path: Path) -> None:
    """Without a BOS token llama_cpp.server tells the neighbours' figures: a " Paris" of e^-11 for e^-0.3."""
    with llama_cpp_server(smollm2, tmp_path / "log") as real, real.backend() as backend:
        body = {"prompt": TEXTS[0] + SINGLE[0], "max_tokens": 1, "echo": True, "logprobs": 1, "temperature": 0}
        told = real.post("/v1/completions", body)["choices"][0]["logprobs"]
        found = backend.classify(TEXTS[:1], SINGLE)
        assert found.method == "scored"
        assert found.log_probabilities[0][0] > -0.5
        assert told["token_logprobs"][told["tokens"].index(" Paris")] < -8


@pytest.mark.slow
def test_an_echo_that_is_right_scores_labels_of_several_tokens(smollm2: Path, tmp_path: Path) -> None:
    with_bos = ["--kv_overrides", "tokenizer.ggml.add_bos_token=bool:true"]
    with llama_cpp_server(smollm2, tmp_path / "log", *with_bos) as real, real.backend() as backend:
        found = backend.classify(TEXTS[:1], SEVERAL)
    assert found.method == "scored"
    expected = [expected_scores(smollm2, TEXTS[0], label) for label in SEVERAL]
    assert found.log_probabilities[0] == pytest.approx(expected, abs=0.3)

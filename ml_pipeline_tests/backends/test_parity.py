"""Every backend gives the same answers: one small suite, one real model in float32, with an adapter and without.

Tolerances: greedy texts are equal to the last character; log-probabilities of their tokens agree within 0.002 (measured
differences are printed); what classify scores agrees within 0.005, a sum over a label's tokens, and
within 0.02 for a label of 67 tokens.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from ml_pipeline.adapters import read_adapter, write_gguf_lora
from ml_pipeline.backend_settings import HttpSettings, LlamaServerSettings, MlxServerSettings, MlxSettings
from ml_pipeline.backends.guarded.local_launcher import LocalLauncher
from ml_pipeline.backends.http import HttpBackend
from ml_pipeline.backends.interface import AdapterFile, Backend, Completion
from ml_pipeline.backends.llama_cpp import LlamaCppBackend
from ml_pipeline.backends.llama_server import LlamaServerBackend
from ml_pipeline.backends.mlx import MlxBackend
from ml_pipeline.backends.mlx_server import MlxServerBackend
from ml_pipeline_tests.adapters.real_model import float32_models
from ml_pipeline_tests.backends.conftest import CONTEXT_TOKENS, THREADS
from ml_pipeline_tests.backends.llama_servers import require_llama_server
from ml_pipeline_tests.backends.requests import QUESTIONS, ask
from ml_pipeline_tests.benchmarks.generate import llama_server
from ml_pipeline_tests.project import SAMPLES

pytestmark = pytest.mark.slow

SUITE = [replace(ask(question, max_tokens=12), log_probabilities=True) for question in QUESTIONS[:4]]
TEXTS = ["The capital of France is", "Ice is very"]
# The last is longer than llama.cpp tells of at once.
LABELS = [" Paris", " cold", " a large city", " so that" + " one after another" * 22]
LOG_PROBABILITY_TOLERANCE = 0.002
LABEL_TOLERANCES = np.array([0.005, 0.005, 0.005, 0.02])
# Half-precision keys and values alone would move log-probabilities by 0.02.
FLOAT32_CACHE = ("--cache-type-k", "f32", "--cache-type-v", "f32", "--flash-attn", "off")


@dataclass(frozen=True)
class Model:
    """The same model for every backend, and a trained adapter in each form."""

    folder: Path
    gguf: Path
    saved: AdapterFile
    lora: AdapterFile


@dataclass(frozen=True)
class Answers:
    """What one backend said: completions by question, bare and with the adapter, and what it scored."""

    bare: dict[str, Completion]
    adapted: dict[str, Completion] | None
    scored: np.ndarray[tuple[int, int], np.dtype[np.float64]] | None


@pytest.fixture(scope="module")
def model(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("parity")
    mlx_folder, gguf = float32_models(smollm2, folder)
    weights = max((SAMPLES / "adapters-smollm2-135m-reasoning").glob("*_adapters.safetensors"))
    adapter = read_adapter(weights, weights.with_name("adapter_config.json"))
    lora = write_gguf_lora(adapter, gguf, folder / "lora.gguf")
    return Model(mlx_folder, gguf, AdapterFile(weights, adapter.sha256), AdapterFile(lora, adapter.sha256))


@contextmanager
def llama_cpp(model: Model) -> Iterator[tuple[Backend, AdapterFile | None]]:
    backend = LlamaCppBackend(
        model.gguf, "smollm2", sequences=2, context_tokens=CONTEXT_TOKENS, threads=THREADS, kv_type="f32"
    )
    with closing(backend):
        yield backend, model.lora


@contextmanager
def llama_server_child(model: Model) -> Iterator[tuple[Backend, AdapterFile | None]]:
    require_llama_server()
    settings = LlamaServerSettings(
        sequences=2, context_tokens=CONTEXT_TOKENS, threads=THREADS, arguments=FLOAT32_CACHE, start_timeout_s=120
    )
    with closing(LlamaServerBackend(model.gguf, "smollm2", settings)) as backend:
        yield backend, model.lora


@contextmanager
def mlx(model: Model) -> Iterator[tuple[Backend, AdapterFile | None]]:
    with closing(MlxBackend(str(model.folder), "smollm2", MlxSettings(sequences=2))) as backend:
        yield backend, model.saved


@contextmanager
def mlx_server(model: Model) -> Iterator[tuple[Backend, AdapterFile | None]]:
    settings = MlxServerSettings(python=(sys.executable,), start_timeout_s=200)
    with closing(MlxServerBackend(LocalLauncher(), str(model.folder), "smollm2", settings)) as backend:
        yield backend, model.saved


@contextmanager
def http(model: Model) -> Iterator[tuple[Backend, AdapterFile | None]]:
    more = ["--alias", "smollm2", *FLOAT32_CACHE]
    with llama_server(require_llama_server(), model.gguf, THREADS, more) as address:
        settings = HttpSettings(type="http", url=address, model="smollm2", samplers="repeat_penalty")
        with closing(HttpBackend("smollm2", settings)) as backend:
            yield backend, None


def asked(backend: Backend, adapter: AdapterFile | None, *, scores: bool) -> Answers:
    scored = np.array(backend.classify(TEXTS, LABELS).log_probabilities) if scores else None
    bare = {done.request_id: done for done in backend.complete(SUITE)}
    if adapter is None:
        return Answers(bare, None, scored)
    proof = backend.use_adapter(adapter)
    assert proof is not None
    assert proof.max_abs_logit_difference > 0.1
    return Answers(bare, {done.request_id: done for done in backend.complete(SUITE)}, scored)


@pytest.fixture(scope="module")
def reference(model: Model) -> Answers:
    with llama_cpp(model) as (backend, adapter):
        found = asked(backend, adapter, scores=True)
    assert found.adapted is not None
    assert any(found.adapted[name].text != done.text for name, done in found.bare.items()), "the adapter is seen"
    return found


@pytest.mark.parametrize(
    ("made", "scores"),
    [(llama_server_child, True), (mlx, True), (mlx_server, False), (http, False)],
    ids=["llama_server", "mlx", "mlx_server", "http"],
)
def test_it_answers_as_llama_cpp_does(
    made: Callable[[Model], AbstractContextManager[tuple[Backend, AdapterFile | None]]],
    scores: bool,
    model: Model,
    reference: Answers,
) -> None:
    with made(model) as (backend, adapter):
        found = asked(backend, adapter, scores=scores)
    pairs = [(found.bare[name], done) for name, done in reference.bare.items()]
    if found.adapted is not None and reference.adapted is not None:
        pairs += [(found.adapted[name], done) for name, done in reference.adapted.items()]
    differences = []
    for ours, theirs in pairs:
        assert ours.error is None
        assert (ours.text, ours.finish_reason) == (theirs.text, theirs.finish_reason)
        assert ours.prompt_tokens == theirs.prompt_tokens
        if ours.log_probabilities is not None:
            assert theirs.log_probabilities is not None
            size = len(theirs.log_probabilities)  # some count what ended the answer as well
            differences.append(np.abs(np.subtract(ours.log_probabilities[:size], theirs.log_probabilities)).max())
    largest = max(differences, default=0.0)
    told = f"log-probabilities of {len(differences)} within {largest:.1e}" if differences else "no log-probabilities"
    print(f"{made.__name__}: {len(pairs)} texts equal, {told}")
    assert differences or made is mlx_server, "only mlx_lm.server tells none in a stream"
    assert largest < LOG_PROBABILITY_TOLERANCE
    if scores:
        assert reference.scored is not None
        assert found.scored is not None
        differences = np.abs(found.scored - reference.scored).max(axis=0)
        print(f"{made.__name__}: labels within {differences}")
        assert (differences < LABEL_TOLERANCES).all()

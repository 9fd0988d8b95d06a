"""An adapter is proven applied by llama-server, answers as in llama.cpp, and leaves no trace; a bad one is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml_pipeline.adapters import read_adapter, write_gguf_lora
from ml_pipeline.backends.interface import AdapterFile
from ml_pipeline.backends.llama_cpp import LlamaCppBackend
from ml_pipeline.backends.llama_server import LlamaServerBackend
from ml_pipeline.errors import AdapterError
from ml_pipeline_tests.adapters.tiny_models import tiny_llama
from ml_pipeline_tests.backends.conftest import CONTEXT_TOKENS, THREADS
from ml_pipeline_tests.backends.llama_servers import running_backend
from ml_pipeline_tests.backends.requests import answer, ask
from ml_pipeline_tests.backends.test_llama_cpp_adapters import write_adapter
from ml_pipeline_tests.backends.test_llama_cpp_classify import BATCH_NOISE
from ml_pipeline_tests.data_sample.test_sample_data import SAMPLE

# The server sums probabilities in single precision.
NOISE = 5e-4
TEXTS, LABELS = ["The capital of France is", "tell me"], [" Paris", " a very large city", " no"]
SHAPES = {"blk.0.attn_q.weight": (64, 64), "blk.1.attn_v.weight": (32, 64), "blk.1.ffn_down.weight": (64, 128)}


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny")).gguf_path


@pytest.fixture(scope="module")
def server(gguf: Path) -> Iterator[LlamaServerBackend]:
    with running_backend(gguf) as backend:
        yield backend


@pytest.fixture(scope="module")
def reference(gguf: Path) -> Iterator[LlamaCppBackend]:
    backend = LlamaCppBackend(gguf, "tiny", sequences=1, context_tokens=CONTEXT_TOKENS, threads=THREADS)
    yield backend
    backend.close()


@pytest.fixture(autouse=True)
def _bare_bases(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    for name in {"server", "reference"} & set(request.fixturenames):
        request.getfixturevalue(name).use_adapter(None)


def random_adapter(path: Path, b_scale: float = 3.0, **options: Any) -> AdapterFile:
    return write_adapter(path, **{"b_scale": b_scale, "shapes": SHAPES, **options})


def number(backend: LlamaServerBackend) -> int | None:
    """The process that answers now."""
    return backend._server._process


def assert_same(server: LlamaServerBackend, reference: LlamaCppBackend, noise: float = NOISE) -> None:
    # Random weights write bytes that are no UTF-8. Of the last one, only llama.cpp knows that nothing can mend it.
    texts = [answer(backend, ask("Who wrote Hamlet?")).text.rstrip("\ufffd") for backend in (server, reference)]
    assert texts[0] == texts[1]
    ours, theirs = (backend.classify(TEXTS, LABELS).log_probabilities for backend in (server, reference))
    np.testing.assert_allclose(ours, theirs, atol=noise)


def test_an_adapter_answers_as_in_llama_cpp_and_leaves_no_trace(
    server: LlamaServerBackend, reference: LlamaCppBackend, tmp_path: Path
) -> None:
    adapter = random_adapter(tmp_path / "a.gguf")
    assert_same(server, reference)
    bare = server.classify(TEXTS, LABELS)
    proof, expected = server.use_adapter(adapter), reference.use_adapter(adapter)
    assert proof is not None
    assert expected is not None
    assert proof.tensors_matched == expected.tensors_matched == 6
    assert proof.max_abs_logit_difference > 0.1
    assert_same(server, reference)
    assert np.abs(np.subtract(server.classify(TEXTS, LABELS).log_probabilities, bare.log_probabilities)).max() > 0.1
    process = number(server)
    assert server.use_adapter(None) is None
    assert server.classify(TEXTS, LABELS) == bare
    assert server.use_adapter(adapter) == proof
    assert number(server) == process


def test_the_scale_multiplies_the_adapter_without_a_restart(
    server: LlamaServerBackend, reference: LlamaCppBackend, tmp_path: Path
) -> None:
    whole = random_adapter(tmp_path / "a.gguf")
    server.use_adapter(whole)
    process = number(server)
    for scale in (0.25, 2.0):
        for backend in (server, reference):
            assert backend.use_adapter(replace(whole, scale=scale)) is not None
        assert_same(server, reference)
    assert number(server) == process


def test_a_file_written_again_is_loaded_again(
    server: LlamaServerBackend, reference: LlamaCppBackend, tmp_path: Path
) -> None:
    for strength in (1.0, 4.0):
        adapter = random_adapter(tmp_path / "a.gguf", strength)
        for backend in (server, reference):
            assert backend.use_adapter(adapter) is not None
        assert_same(server, reference)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"b_scale": 0.0}, "not applied"),
        ({"spoil": float("nan")}, r"blk.0.attn_q.weight.lora_b: holds NaN"),
        ({"spoil": 3e38}, "logits are NaN or infinite under this adapter"),
        ({"shapes": {"blk.0.attn_q.weight": (65, 64)}}, r"cannot load this adapter(?s:.)*has incorrect shape"),
        ({"shapes": {"blk.77.attn_q.weight": (64, 64)}}, "the base model has no such tensor"),
        ({"leave_out": "blk.1.attn_v.weight.lora_a"}, "its other half is missing"),
        ({"dtype": np.int8}, "stored as I8"),
    ],
)
def test_a_bad_adapter_is_refused_and_the_base_answers(
    server: LlamaServerBackend, reference: LlamaCppBackend, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    server.use_adapter(random_adapter(tmp_path / "good.gguf"))
    with pytest.raises(AdapterError, match=message):
        server.use_adapter(random_adapter(tmp_path / "bad.gguf", **options))
    assert_same(server, reference)


def test_a_path_that_llama_server_would_take_for_two_is_refused(server: LlamaServerBackend, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="no path with a comma"):
        server.use_adapter(random_adapter(tmp_path / "a,b.gguf"))
    with pytest.raises(AdapterError, match="there is no such adapter"):
        server.use_adapter(AdapterFile(tmp_path / "none.gguf", "0" * 64))


def test_a_trained_adapter_answers_as_in_llama_cpp(smollm2: Path, single: LlamaCppBackend, tmp_path: Path) -> None:
    folder = SAMPLE / "checkpoints" / "adapters-smollm2-135m-reasoning"
    adapter = read_adapter(folder / "0000400_adapters.safetensors", folder / "adapter_config.json")
    trained = AdapterFile(write_gguf_lora(adapter, smollm2, tmp_path / "lora.gguf"), adapter.sha256)
    with running_backend(smollm2) as server:
        bare = answer(server, ask("Who wrote Hamlet?")).text
        proofs = [backend.use_adapter(trained) for backend in (server, single)]
        assert [proof.tensors_matched for proof in proofs if proof is not None] == [adapter.tensor_count] * 2
        # The two builds round differently in the adapter's matrices; the base's 8-bit activations multiply that.
        assert_same(server, single, BATCH_NOISE)
        assert answer(server, ask("Who wrote Hamlet?")).text != bare
    single.use_adapter(None)

"""An adapter is proven applied by llama-server, answers as in llama.cpp, and leaves no trace; a bad one is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline.adapters import read_adapter, write_gguf_lora
from ml_pipeline.backends.interface import AdapterFile
from ml_pipeline.backends.llama_cpp import LlamaCppBackend
from ml_pipeline.backends.llama_server import LlamaServerBackend
from ml_pipeline.errors import AdapterError
from ml_pipeline_tests.backends.llama_servers import running_backend
from ml_pipeline_tests.backends.requests import QUESTIONS, answer, ask
from ml_pipeline_tests.backends.test_llama_cpp_adapters import write_adapter
from ml_pipeline_tests.backends.tiny_mlx import server_processes
from ml_pipeline_tests.data_sample.test_sample_data import SAMPLE

LOG_PROBABILITY_NOISE = 5e-4
REQUEST = replace(ask(QUESTIONS[0]), log_probabilities=True)


@pytest.fixture(scope="module")
def server(smollm2: Path) -> Iterator[LlamaServerBackend]:
    with running_backend(smollm2) as backend:
        yield backend


@pytest.fixture(scope="module")
def trained(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> AdapterFile:
    """The last checkpoint of the sample run that changes the model most."""
    folder = SAMPLE / "checkpoints" / "adapters-smollm2-135m-hot"
    adapter = read_adapter(folder / "0000060_adapters.safetensors", folder / "adapter_config.json")
    return AdapterFile(
        write_gguf_lora(adapter, smollm2, tmp_path_factory.mktemp("trained") / "lora.gguf"), adapter.sha256
    )


def same_as(server: LlamaServerBackend, reference: LlamaCppBackend) -> bool:
    ours, theirs = answer(server, REQUEST), answer(reference, REQUEST)
    assert ours.log_probabilities is not None
    assert theirs.log_probabilities is not None
    assert ours.text == theirs.text
    assert ours.log_probabilities == pytest.approx(theirs.log_probabilities, abs=LOG_PROBABILITY_NOISE)
    return True


def test_a_trained_adapter_answers_as_in_llama_cpp_and_leaves_no_trace(
    server: LlamaServerBackend, single: LlamaCppBackend, trained: AdapterFile
) -> None:
    bare = answer(server, REQUEST)
    proof, expected = server.use_adapter(trained), single.use_adapter(trained)
    assert proof is not None
    assert expected is not None
    assert proof.tensors_matched == expected.tensors_matched > 100
    assert proof.max_abs_logit_difference > 1
    assert same_as(server, single)
    assert answer(server, REQUEST).text != bare.text
    (process,) = server_processes(server._facts.path)
    assert server.use_adapter(None) is None
    assert replace(answer(server, REQUEST), seconds=0) == replace(bare, seconds=0)
    assert server.use_adapter(trained) == proof
    assert server_processes(server._facts.path) == [process]
    server.use_adapter(None)
    single.use_adapter(None)


def test_labels_are_scored_with_the_adapter(
    server: LlamaServerBackend, single: LlamaCppBackend, trained: AdapterFile
) -> None:
    texts, labels = ["The capital of France is"], [" Paris", " no"]
    bare = server.classify(texts, labels).log_probabilities
    for backend in (server, single):
        backend.use_adapter(trained)
    (ours,), (theirs,) = (backend.classify(texts, labels).log_probabilities for backend in (server, single))
    assert ours == pytest.approx(theirs, abs=LOG_PROBABILITY_NOISE)
    assert ours != pytest.approx(bare[0], abs=0.01)
    for backend in (server, single):
        backend.use_adapter(None)


def test_the_scale_multiplies_the_adapter_without_a_restart(
    server: LlamaServerBackend, single: LlamaCppBackend, tmp_path: Path
) -> None:
    whole = write_adapter(tmp_path / "a.gguf", b_scale=0.1)
    server.use_adapter(whole)
    (process,) = server_processes(server._facts.path)
    half = replace(whole, scale=0.5)
    proof, expected = server.use_adapter(half), single.use_adapter(half)
    assert same_as(server, single)
    assert proof is not None
    assert expected is not None
    assert proof.max_abs_logit_difference > 0
    assert server_processes(server._facts.path) == [process]
    server.use_adapter(None)
    single.use_adapter(None)


def test_a_file_written_again_is_loaded_again(server: LlamaServerBackend, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    first = server.use_adapter(write_adapter(path, b_scale=0.05))
    second = server.use_adapter(write_adapter(path, b_scale=0.2))
    assert first is not None
    assert second is not None
    assert first.max_abs_logit_difference < second.max_abs_logit_difference
    server.use_adapter(None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"b_scale": 0.0}, "not applied"),
        ({"spoil": float("nan")}, r"blk.0.attn_q.weight.lora_b: holds NaN"),
        ({"spoil": 3e38}, "NaN or infinite under this adapter|fails under this adapter"),
        (
            {"shapes": {"blk.0.attn_q.weight": (577, 576)}},
            r"cannot load this adapter(?s:.)*has incorrect shape",
        ),
        ({"shapes": {"blk.77.attn_q.weight": (576, 576)}}, "the base model has no such tensor"),
        ({"leave_out": "blk.5.attn_v.weight.lora_a"}, "its other half is missing"),
    ],
)
def test_a_bad_adapter_is_refused_and_the_base_answers(
    server: LlamaServerBackend, single: LlamaCppBackend, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    server.use_adapter(write_adapter(tmp_path / "good.gguf"))
    with pytest.raises(AdapterError, match=message):
        server.use_adapter(write_adapter(tmp_path / "bad.gguf", **options))
    assert same_as(server, single)


def test_a_path_that_llama_server_would_take_for_two_is_refused(server: LlamaServerBackend, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="no path with a comma"):
        server.use_adapter(write_adapter(tmp_path / "a,b.gguf"))
    with pytest.raises(AdapterError, match="there is no such adapter"):
        server.use_adapter(AdapterFile(tmp_path / "none.gguf", "0" * 64))

"""Weights written out in 16 bits: the same ones, the same model, and nothing half done."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import llama_cpp
import numpy as np
import pytest
from gguf.quants import dequantize

from ml_pipeline.adapters.file_hash import file_sha256
from ml_pipeline.backends.llama_cpp import LlamaCppBackend, decoded_weights
from ml_pipeline.errors import BackendError, StoreFullError
from ml_pipeline_tests.adapters.test_base_gguf import written
from ml_pipeline_tests.backends.conftest import CONTEXT_TOKENS, THREADS
from ml_pipeline_tests.backends.test_llama_cpp_adapters import write_adapter

TEXTS = ("The capital of France is", "Two and two make", "She was so happy that she", "Water boils at a hundred")
LABELS = (" Paris", " four", " cried", " degrees")


@pytest.fixture(scope="module")
def decoded(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decoded_weights(smollm2, tmp_path_factory.mktemp("decoded"))


@pytest.fixture(scope="module")
def in_f16(smollm2: Path, decoded: Path) -> Iterator[LlamaCppBackend]:
    backend = opened(smollm2, decoded)
    yield backend
    backend.close()


def opened(base: Path, weights: Path | None) -> LlamaCppBackend:
    return LlamaCppBackend(
        base,
        "smollm2-135m",
        sequences=4,
        context_tokens=CONTEXT_TOKENS,
        threads=THREADS,
        decoded=weights,
    )


def test_every_weight_is_the_dequantised_one_in_16_bits(smollm2: Path, decoded: Path) -> None:
    class Kept(NamedTuple):
        fields: dict[str, Any]
        tensors: dict[str, Any]

    def read(path: Path) -> Kept:
        reader = gguf.GGUFReader(path)
        own = ("GGUF.", "general.file_type", "general.quantization_version")
        fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith(own)}
        return Kept(fields, {tensor.name: tensor for tensor in reader.tensors})

    stored, copy = read(smollm2), read(decoded)
    assert copy.fields == stored.fields
    assert copy.tensors.keys() == stored.tensors.keys()
    kinds = {tensor.tensor_type.name for tensor in stored.tensors.values()}
    assert kinds == {"F32", "Q4_1", "Q8_0"}
    for name, tensor in stored.tensors.items():
        values = dequantize(tensor.data, tensor.tensor_type)
        kind = np.float32 if tensor.tensor_type.name == "F32" else np.float16
        assert copy.tensors[name].data.dtype == kind
        np.testing.assert_array_equal(copy.tensors[name].data, values.astype(kind))


def test_log_probabilities_are_nearer_to_those_of_float32(
    smollm2: Path, in_f16: LlamaCppBackend, backend: LlamaCppBackend, tmp_path: Path
) -> None:
    exact = tmp_path / "f32.gguf"
    params = llama_cpp.llama_model_quantize_default_params()
    params.allow_requantize, params.ftype = True, llama_cpp.LLAMA_FTYPE_ALL_F32
    assert llama_cpp.llama_model_quantize(str(smollm2).encode(), str(exact).encode(), ctypes.byref(params)) == 0
    reference = opened(exact, None)

    def scores(of: LlamaCppBackend) -> Any:
        return np.array(of.classify(TEXTS, LABELS).log_probabilities)

    wanted = scores(reference)
    reference.close()
    assert np.abs(scores(in_f16) - wanted).max() < 0.05
    assert np.abs(scores(in_f16) - wanted).mean() < 0.2 * np.abs(scores(backend) - wanted).mean()


def test_the_identity_names_the_original_and_the_arithmetic(
    smollm2: Path, in_f16: LlamaCppBackend, backend: LlamaCppBackend
) -> None:
    identity = in_f16.identity()
    assert identity.base_sha256 == file_sha256(smollm2)
    assert (backend.identity().quantisation, identity.quantisation) == ("Q4_1", "Q4_1 in f16")


def test_an_adapter_of_the_original_is_applied(in_f16: LlamaCppBackend, tmp_path: Path) -> None:
    proof = in_f16.use_adapter(write_adapter(tmp_path / "a.gguf"))
    assert proof is not None
    assert proof.tensors_matched == 6
    assert proof.max_abs_logit_difference > 0.1
    in_f16.use_adapter(None)


def test_it_is_written_once(smollm2: Path, decoded: Path) -> None:
    before = decoded.stat()
    assert decoded_weights(smollm2, decoded.parent) == decoded
    assert decoded.stat().st_mtime_ns == before.st_mtime_ns
    assert list(decoded.parent.iterdir()) == [decoded]


def test_a_base_that_is_not_quantised_is_its_own_copy(tmp_path: Path) -> None:
    base = written(tmp_path / "base.gguf", general__file_type=int(gguf.LlamaFileType.MOSTLY_F16))
    assert decoded_weights(base, tmp_path / "decoded") == base
    assert not (tmp_path / "decoded").exists()


def test_what_llama_cpp_cannot_decode_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    base = written(tmp_path / "base.gguf", general__file_type=int(gguf.LlamaFileType.MOSTLY_Q4_1))
    with pytest.raises(BackendError, match=r"base\.gguf: llama\.cpp cannot write its weights out in 16 bits: .+stored"):
        decoded_weights(base, tmp_path / "decoded")
    assert list((tmp_path / "decoded").iterdir()) == []


def test_no_room_is_told_before_anything_is_written(
    smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(StoreFullError, match=r"takes 269,\d{3},\d{3} bytes with 16-bit weights, and 1,000 are free"):
        decoded_weights(smollm2, tmp_path / "decoded")
    assert list((tmp_path / "decoded").iterdir()) == []

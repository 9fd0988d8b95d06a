from __future__ import annotations

import hashlib
from pathlib import Path

import gguf
import numpy as np
import pytest

from ml_pipeline.backends.cpu_threads import physical_cores
from ml_pipeline.backends.llama_cpp import LlamaCppBackend
from ml_pipeline.errors import BackendError
from ml_pipeline_tests.backends.conftest import THREADS
from ml_pipeline_tests.backends.requests import ask


def test_the_identity_names_file_quantisation_and_template(backend: LlamaCppBackend, smollm2: Path) -> None:
    identity = backend.identity()
    template = gguf.GGUFReader(smollm2).get_field("tokenizer.chat_template").contents()  # type: ignore[union-attr]
    assert identity.base_sha256 == hashlib.sha256(smollm2.read_bytes()).hexdigest()
    assert identity.chat_template_sha256 == hashlib.sha256(template.encode()).hexdigest()
    assert (identity.backend, identity.base_model, identity.quantisation) == ("llama_cpp", "smollm2-135m", "Q4_1")
    assert "llama-cpp-python" in identity.backend_version


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"gone\.gguf"):
        LlamaCppBackend(tmp_path / "gone.gguf", "x")


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"not a model" * 100)
    with pytest.raises(BackendError, match=r"x\.gguf"):
        LlamaCppBackend(tmp_path / "x.gguf", "x")


def test_a_truncated_model_is_refused_with_llama_cpps_reason(
    smollm2: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with smollm2.open("rb") as whole:
        (tmp_path / "half.gguf").write_bytes(whole.read(smollm2.stat().st_size // 2))
    with pytest.raises(BackendError, match=r"half\.gguf.*(bounds|corrupted|incomplete).*Fetch the file again"):
        LlamaCppBackend(tmp_path / "half.gguf", "x", sequences=1)
    assert capfd.readouterr() == ("", "")


def test_an_unknown_architecture_is_refused_with_llama_cpps_reason(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "odd.gguf", "no-such-architecture")
    writer.add_tensor("x", np.zeros((2, 2), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(BackendError, match="unknown model architecture: 'no-such-architecture'"):
        LlamaCppBackend(tmp_path / "odd.gguf", "x", sequences=1)


def test_senseless_numbers_are_all_named(smollm2: Path) -> None:
    with pytest.raises(BackendError, match=r"(?s)2 problems.*sequences is 0.*context_tokens is 1"):
        LlamaCppBackend(smollm2, "x", sequences=0, context_tokens=1)
    with pytest.raises(BackendError, match="was trained for 8192"):
        LlamaCppBackend(smollm2, "x", sequences=1, context_tokens=8193)


def test_a_closed_backend_says_so(smollm2: Path) -> None:
    made = LlamaCppBackend(smollm2, "x", sequences=1, context_tokens=64, threads=THREADS)
    made.close()
    made.close()
    for use in (
        lambda: list(made.complete([ask("hi")])),
        lambda: made.classify(["a"], ["b"]),
        lambda: made.use_adapter(None),
    ):
        with pytest.raises(BackendError, match="closed"):
            use()


def test_there_is_at_least_one_core() -> None:
    assert physical_cores() >= 1

"""Loading by the mlx backend, what it says it is, and a real model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ml_pipeline.adapters.mlx_base import write_mlx_base
from ml_pipeline.adapters.read import read_adapter
from ml_pipeline.backend_settings import MlxServerSettings, MlxSettings
from ml_pipeline.backends.interface import AdapterFile
from ml_pipeline.backends.mlx import MlxBackend
from ml_pipeline.backends.mlx_server import LocalLauncher, MlxServerBackend
from ml_pipeline.errors import BackendError
from ml_pipeline_tests.adapters.tiny_models import mlx_logits, tiny_llama
from ml_pipeline_tests.backends.requests import QUESTIONS, answers, ask
from ml_pipeline_tests.backends.tiny_mlx import Reference, as_mlx_wants, write_model

SAMPLE = Path(__file__).parents[2] / "data" / "sample" / "checkpoints"


@pytest.mark.parametrize("bits", [None, 4])
def test_it_says_what_mlx_server_says_of_the_same_folder(tmp_path: Path, bits: int | None) -> None:
    write_model(tmp_path, partial(tiny_llama, hidden=128), bits=bits)
    with closing(MlxBackend(str(tmp_path), "tiny", MlxSettings())) as backend:
        identity = backend.identity()
    settings = MlxServerSettings(python=(sys.executable,), start_timeout_s=120)
    with closing(MlxServerBackend(LocalLauncher(), str(tmp_path), "tiny", settings)) as server:
        assert replace(identity, backend="mlx_server") == server.identity()
    assert identity.quantisation == ("float32" if bits is None else "4bit group 64")


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def of_another_type(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "no such type"}))


def cut_off(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:10_000])


@pytest.mark.parametrize("damage", [without("config.json"), without("model.safetensors"), of_another_type, cut_off])
def test_a_model_that_cannot_be_loaded(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    write_model(tmp_path)
    damage(tmp_path)
    with pytest.raises(BackendError, match=rf"{tmp_path}: mlx-lm cannot load this model: \w+"):
        MlxBackend(str(tmp_path), "tiny", MlxSettings())


def test_a_model_that_is_not_on_this_machine_is_not_downloaded() -> None:
    with pytest.raises(BackendError, match="a model that was downloaded to this machine"):
        MlxBackend("nobody/has-this-model", "tiny", MlxSettings())


def test_without_mlx_lm_it_says_how_to_get_it() -> None:
    code = """
import sys
sys.modules["mlx_lm"] = None
from ml_pipeline.backend_settings import MlxSettings
from ml_pipeline.backends.mlx import MlxBackend
from ml_pipeline.errors import BackendError
try:
    MlxBackend("x", "tiny", MlxSettings())
except BackendError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("Run: pip install 'mlx-lm>=0.32' llguidance")


@pytest.mark.slow
def test_smollm2_with_a_trained_adapter(smollm2: Path, tmp_path: Path) -> None:
    folder = write_mlx_base(smollm2, tmp_path / "smollm2", dtype="float32")
    checkpoint = max((SAMPLE / "adapters-smollm2-135m-reasoning").glob("*_adapters.safetensors"))
    record = read_adapter(checkpoint, checkpoint.with_name("adapter_config.json"))
    tuned = Reference(folder, as_mlx_wants(checkpoint, tmp_path / "adapter"))
    tokens = tuned.tokenizer.encode("The capital of France is Paris, and twelve plus thirty makes")
    requests = [ask(question, max_tokens=12) for question in QUESTIONS[:3]]
    with closing(MlxBackend(str(folder), "smollm2-135m", MlxSettings(sequences=2))) as backend:
        base = mlx_logits(backend.model.module, tokens)
        found = backend.classify(["The capital of France is", "The capital of Germany is"], [" Paris", " Berlin"])
        assert [int(np.argmax(row)) for row in found.log_probabilities] == [0, 1]
        proof = backend.use_adapter(AdapterFile(checkpoint, record.sha256))
        assert proof is not None
        assert (proof.tensors_matched, proof.max_abs_logit_difference > 1) == (record.tensor_count, True)
        np.testing.assert_array_equal(mlx_logits(backend.model.module, tokens), mlx_logits(tuned.model, tokens))
        texts = {name: completion.text for name, completion in answers(backend, requests).items()}
        assert texts == {request.id: tuned.answer(request.messages, 12) for request in requests}
        backend.use_adapter(None)
        np.testing.assert_array_equal(mlx_logits(backend.model.module, tokens), base)

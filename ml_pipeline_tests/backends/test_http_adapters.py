"""Adapters through the http backend: the exact requests to Ollama and vLLM, and what is left there afterwards.

Neither program can be installed where these tests run. Both are doubles here, written after their documentation: what
they are asked is checked to the letter, what they answer is made up. That an adapter changes a real model's numbers is
not shown here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ml_pipeline.backend_settings import HttpSettings
from ml_pipeline.backends.http import HttpBackend
from ml_pipeline.backends.interface import PROBE_TEXT, AdapterFile
from ml_pipeline.errors import AdapterError, BackendError
from ml_pipeline_tests.backends.requests import answer, ask
from ml_pipeline_tests.backends.scripted_server import Asked, Reply, Server, chunk, scripted_server, whole

DIGEST = "ab" * 32
OLD = "ml-pipeline-5f000000-0123abcd:latest"
FOREIGN = "ml-pipeline-notes:latest"
MODULE = "base_model.model.model.layers.0.self_attn.q_proj"


def adapter_folder(folder: Path) -> AdapterFile:
    folder.mkdir()
    tensors = {
        f"{MODULE}.lora_A.weight": np.ones((4, 8), np.float32),
        f"{MODULE}.lora_B.weight": np.ones((8, 4), np.float32),
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}))
    return AdapterFile(folder, "0" * 64)


def says(model: str, asked: Asked, reply: Reply, logits: dict[str, dict[str, float]]) -> None:
    """A greedy answer that is the model's likeliest token; its log-probabilities where they are asked for."""
    likeliest = max(logits[model], key=logits[model].__getitem__)
    told = [{"token": name, "logprob": value} for name, value in logits[model].items()]
    if asked.body.get("stream"):
        reply.events(chunk(likeliest, "stop"))
    elif asked.body.get("logprobs"):
        reply.json(whole(likeliest, logprobs={"content": [{"token": likeliest, "top_logprobs": told}]}))
    else:
        reply.json(whole(likeliest))


BASE, CHANGED = {"a": -0.25, "b": -1.5}, {"a": -0.5, "b": -0.75}


@dataclass
class Ollama:
    """The double: models by name, blobs by digest. `adapted` is what any model with an adapter computes."""

    adapted: dict[str, float] = field(default_factory=lambda: CHANGED)
    refuses: int | None = None
    models: dict[str, dict[str, float]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.models |= {"smol:latest": BASE, OLD: BASE, FOREIGN: BASE}

    def chat(self, asked: Asked, reply: Reply) -> None:
        if asked.body["model"] not in self.models:
            reply.json({"error": {"message": "model not found"}}, 404)
            return
        says(asked.body["model"], asked, reply, self.models)

    def page(self, asked: Asked, reply: Reply) -> None:
        match asked.method, asked.path.split("/")[1:]:
            case "GET", ["api", "version"]:
                reply.json({"version": "0.12.1"})
            case "GET", ["api", "tags"]:
                details = {"quantization_level": "Q4_K_M"}
                reply.json({"models": [{"name": n, "digest": DIGEST, "details": details} for n in self.models]})
            case "GET", ["v1", "models"]:
                reply.json({"data": [{"id": name} for name in self.models]})
            case "POST", ["api", "show"]:
                reply.json({"template": "{{ .Prompt }}"})
            case "HEAD", ["api", "blobs", digest]:
                reply.head(200 if digest in self.blobs else 404, "text/plain")
            case "POST", ["api", "blobs", digest]:
                content = asked.body if isinstance(asked.body, bytes) else json.dumps(asked.body).encode()
                self.blobs[digest] = content
                reply.head(201, "text/plain")
            case "POST", ["api", "create"]:
                if self.refuses and "adapters" in asked.body:
                    reply.json({"error": "unsupported architecture"}, self.refuses)
                    return
                self.models[asked.body["model"] + ":latest"] = self.adapted if "adapters" in asked.body else BASE
                self.models[asked.body["model"]] = self.models[asked.body["model"] + ":latest"]
                reply.json({"status": "success"})
            case "DELETE", ["api", "delete"]:
                name = asked.body["model"].removesuffix(":latest")
                found = [self.models.pop(each, None) for each in (name, f"{name}:latest")]
                reply.head(200 if any(found) else 404, "text/plain")
            case _:
                reply.json({"error": "no such page"}, 404)


@contextmanager
def ollama(double: Ollama) -> Iterator[tuple[HttpBackend, Server]]:
    with scripted_server(double.chat, _v1_models=double.page, other=double.page) as server:
        settings = HttpSettings(
            type="http", url=server.url, model="smol", adapters="ollama", attempts=2, longest_wait_s=0.2
        )
        with closing(HttpBackend("base", settings)) as backend:
            yield backend, server


def test_ollama_is_asked_for_a_model_of_base_and_adapter_and_to_forget_it(tmp_path: Path) -> None:
    double, adapter = Ollama(), adapter_folder(tmp_path / "adapter")
    with ollama(double) as (backend, server):
        assert backend.adapter_form == "peft"
        assert OLD not in double.models, "left by a crash long ago"
        assert FOREIGN in double.models
        proof = backend.use_adapter(adapter)
        assert proof is not None
        assert (proof.tensors_matched, proof.max_abs_logit_difference) == (2, 0.75)
        digests = {
            name: f"sha256:{hashlib.sha256((adapter.path / name).read_bytes()).hexdigest()}"
            for name in ("adapter_model.safetensors", "adapter_config.json")
        }
        assert set(double.blobs) == set(digests.values())
        weights = double.blobs[digests["adapter_model.safetensors"]]
        assert weights == (adapter.path / "adapter_model.safetensors").read_bytes()
        base, adapted = server.bodies("/api/create")
        neutral = {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0}
        assert base == {"model": base["model"], "from": "smol:latest", "parameters": neutral, "stream": False}
        assert adapted == {**base, "model": adapted["model"], "adapters": digests}
        assert answer(backend, ask("q")).text == "a"
        assert server.asked[-1].body["model"] == adapted["model"]

        backend.use_adapter(adapter)
        assert len(double.blobs) == 2
        assert len([asked for asked in server.asked if asked.method == "POST" and "blobs" in asked.path]) == 2
        assert adapted["model"] not in double.models
        backend.use_adapter(None)
        answer(backend, ask("q"))
        assert server.asked[-1].body["model"] == base["model"]
        assert {name for name in double.models if ":" not in name} == {base["model"]}
    assert set(double.models) == {"smol:latest", FOREIGN}


def test_ollamas_own_facts_are_the_identity() -> None:
    with ollama(Ollama()) as (backend, server):
        identity = backend.identity()
        assert identity.base_sha256 == DIGEST
        assert (identity.backend_version, identity.quantisation) == ("Ollama 0.12.1", "Q4_K_M")
        assert identity.chat_template_sha256 == hashlib.sha256(b"{{ .Prompt }}").hexdigest()
        assert server.bodies("/api/show") == [{"model": "smol:latest"}]


@pytest.mark.parametrize(
    ("double", "change", "message"),
    [
        (Ollama(adapted=BASE), {}, "not applied: the model answers as without"),
        (Ollama(refuses=400), {}, "status 400: unsupported architecture"),
        (Ollama(), {"scale": 2.0}, "cannot scale an adapter by 2"),
        (Ollama(), {"path": Path("nowhere")}, "nowhere"),
    ],
)
def test_an_adapter_that_is_not_applied_is_refused_and_the_base_answers(
    tmp_path: Path, double: Ollama, change: dict[str, Any], message: str
) -> None:
    with ollama(double) as (backend, server):
        with pytest.raises(AdapterError, match=message):
            backend.use_adapter(replace(adapter_folder(tmp_path / "adapter"), **change))
        answer(backend, ask("q"))
        assert server.asked[-1].body["model"] == server.bodies("/api/create")[0]["model"]
    assert set(double.models) == {"smol:latest", FOREIGN}


def test_a_server_that_is_down_is_not_the_adapters_fault(tmp_path: Path) -> None:
    double = Ollama(refuses=503)
    with ollama(double) as (backend, _server), pytest.raises(BackendError, match="status 503"):
        backend.use_adapter(adapter_folder(tmp_path / "adapter"))
    assert set(double.models) == {"smol:latest", FOREIGN}


@dataclass
class Vllm:
    """The double: adapters by name. Without `told` it gives no log-probabilities."""

    adapted: dict[str, float]
    told: bool = True
    models: dict[str, dict[str, float]] = field(
        default_factory=lambda: {"smol": BASE, OLD.removesuffix(":latest"): BASE}
    )

    def chat(self, asked: Asked, reply: Reply) -> None:
        if asked.body.get("logprobs") and not self.told:
            reply.json({"error": "logprobs are off"}, 400)
        else:
            says(asked.body["model"], asked, reply, self.models)

    def page(self, asked: Asked, reply: Reply) -> None:
        match asked.path:
            case "/v1/models":
                reply.json({"data": [{"id": name} for name in self.models]})
            case "/version":
                reply.json({"version": "0.11.0"})
            case "/v1/load_lora_adapter":
                self.models[asked.body["lora_name"]] = self.adapted
                reply.raw(b"Success: LoRA adapter added successfully.")
            case "/v1/unload_lora_adapter":
                found = self.models.pop(asked.body["lora_name"], None)
                reply.raw(b"Success", 200 if found else 404)
            case _:
                reply.json({"detail": "Not Found"}, 404)


@contextmanager
def vllm(double: Vllm) -> Iterator[tuple[HttpBackend, Server]]:
    with scripted_server(double.chat, _v1_models=double.page, other=double.page) as server:
        settings = HttpSettings(type="http", url=server.url, model="smol", adapters="vllm", attempts=1)
        with closing(HttpBackend("base", settings)) as backend:
            yield backend, server


def test_vllm_loads_the_folder_by_its_path_and_forgets_it(tmp_path: Path) -> None:
    double, adapter = Vllm(CHANGED), adapter_folder(tmp_path / "adapter")
    with vllm(double) as (backend, server):
        assert list(double.models) == ["smol"], "what a crash left is gone"
        proof = backend.use_adapter(adapter)
        assert proof is not None
        assert (proof.max_abs_logit_difference, proof.probe_text) == (0.75, PROBE_TEXT)
        (loaded,) = server.bodies("/v1/load_lora_adapter")
        assert loaded == {"lora_name": loaded["lora_name"], "lora_path": str(adapter.path.resolve())}
        answer(backend, ask("q"))
        assert server.asked[-1].body["model"] == loaded["lora_name"]
        assert backend.identity().backend_version == "vLLM 0.11.0"
    assert list(double.models) == ["smol"]


@pytest.mark.parametrize(("adapted", "applied"), [({"b": -0.1, "a": -9.0}, True), (CHANGED, False)])
def test_without_log_probabilities_the_text_must_differ(
    tmp_path: Path, adapted: dict[str, float], applied: bool
) -> None:
    with vllm(Vllm(adapted, told=False)) as (backend, _server):
        adapter = adapter_folder(tmp_path / "adapter")
        if applied:
            proof = backend.use_adapter(adapter)
            assert proof is not None
            assert 0 < proof.max_abs_logit_difference < 1e-300, "all that is known is that it is above zero"
        else:
            with pytest.raises(AdapterError, match="not applied"):
                backend.use_adapter(adapter)


def test_nan_under_an_adapter_is_told(tmp_path: Path) -> None:
    with vllm(Vllm({"a": float("nan"), "b": -1.0})) as (backend, _server):
        with pytest.raises(AdapterError, match="NaN or infinite values under this adapter"):
            backend.use_adapter(adapter_folder(tmp_path / "adapter"))
        assert answer(backend, ask("q")).text == "a"


def test_a_server_without_a_path_for_adapters_says_so(tmp_path: Path) -> None:
    with (
        scripted_server(lambda _, reply: reply.events(chunk("x", "stop"))) as server,
        closing(HttpBackend("base", HttpSettings(type="http", url=server.url))) as backend,
    ):
        assert backend.adapter_form == "none"
        assert backend.use_adapter(None) is None
        with pytest.raises(AdapterError, match=r"no path for adapters\. Set `adapters`"):
            backend.use_adapter(adapter_folder(tmp_path / "adapter"))


def test_noise_of_the_base_is_no_proof(tmp_path: Path) -> None:
    """A base whose own figures waver by 0.3 proves nothing with a difference of 0.75."""
    wavering = iter([BASE, {"a": -0.25, "b": -1.8}])

    class Wavering(Vllm):
        def chat(self, asked: Asked, reply: Reply) -> None:
            self.models["smol"] = next(wavering, BASE)
            super().chat(asked, reply)

    with vllm(Wavering(CHANGED)) as (backend, _server), pytest.raises(AdapterError, match="not applied"):
        backend.use_adapter(adapter_folder(tmp_path / "adapter"))

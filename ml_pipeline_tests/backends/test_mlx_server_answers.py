"""The real mlx_lm.server behind a real sshd, against mlx_lm itself in this process."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ml_pipeline.adapters.read import read_adapter
from ml_pipeline.backend_settings import MlxServerSettings
from ml_pipeline.backends.interface import PROBE_TEXT, AdapterFile, AppliedProof
from ml_pipeline.backends.mlx_server import MlxServerBackend, SshLauncher
from ml_pipeline.errors import AdapterError, BackendError
from ml_pipeline_tests.adapters.tiny_models import TinyModel
from ml_pipeline_tests.backends.requests import QUESTIONS, answer, answers, ask
from ml_pipeline_tests.backends.tiny_mlx import (
    CHAT_TEMPLATE,
    Reference,
    as_mlx_wants,
    gone_within,
    write_checkpoint,
    write_model,
)
from ml_pipeline_tests.sshd import running_sshd

SETTINGS = MlxServerSettings(python=(sys.executable,), start_timeout_s=120, silence_timeout_s=60)


@dataclass(frozen=True)
class Host:
    """A training host: a model, and a run with a checkpoint."""

    folder: Path
    model: Path
    base: TinyModel
    checkpoint: Path
    backend: MlxServerBackend


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    # What a shell or an SSH client might take apart.
    folder = tmp_path_factory.mktemp("host") / "it's a $(host); with spaces"
    model = folder / "model"
    base = write_model(model)
    checkpoint = write_checkpoint(base, folder / "adapters-1b-run", 100, strength=0.3)
    # mlx_lm would take this one if it were given the run's folder.
    shutil.copy(checkpoint, folder / "adapters-1b-run" / "adapters.safetensors")
    with running_sshd(tmp_path_factory.mktemp("sshd")) as sshd, closing(sshd.transport()) as transport:
        launcher = SshLauncher("the host", lambda: transport)
        with closing(MlxServerBackend(launcher, str(model), "tiny", SETTINGS)) as backend:
            yield Host(folder, model, base, checkpoint, backend)
        assert transport.is_active(), "the connection is the caller's"
    assert gone_within(model, 10)


@pytest.fixture
def backend(host: Host) -> Iterator[MlxServerBackend]:
    yield host.backend
    host.backend.use_adapter(None)


def put_on(backend: MlxServerBackend, checkpoint: Path) -> AppliedProof:
    proof = backend.use_adapter(AdapterFile(checkpoint, backend.adapter(str(checkpoint)).sha256))
    assert proof is not None
    return proof


def test_answers_are_those_of_mlx_lm(host: Host, backend: MlxServerBackend) -> None:
    reference = Reference(host.model)
    requests = [ask(question) for question in QUESTIONS]
    found = answers(backend, requests)
    for request in requests:
        completion = found[request.id]
        expected = reference.reply(request.messages, 16)
        assert (completion.text, completion.completion_tokens, completion.finish_reason) == expected
        prompt = f"<user>{request.messages[0].content}\n<assistant>"
        assert completion.prompt_tokens == len(prompt.encode())
        assert completion.error is None
        assert json.loads(completion.prompt) == [{"role": "user", "content": request.messages[0].content}]
    assert {completion.finish_reason for completion in found.values()} == {"stop", "length"}


def test_an_adapter_answers_by_its_path_there(host: Host, backend: MlxServerBackend, tmp_path: Path) -> None:
    reference = Reference(host.model, as_mlx_wants(host.checkpoint, tmp_path / "adapter"))
    proof = put_on(backend, host.checkpoint)
    assert proof.tensors_matched == len(load_file(host.checkpoint))
    requests = [ask(question) for question in QUESTIONS[:3]]
    assert {name: completion.text for name, completion in answers(backend, requests).items()} == {
        request.id: reference.answer(request.messages, 16) for request in requests
    }
    backend.use_adapter(None)
    request = requests[0]
    assert answer(backend, request).text == Reference(host.model).answer(request.messages, 16)


def test_the_proof_is_measured_on_the_models_own_figures(host: Host, backend: MlxServerBackend, tmp_path: Path) -> None:
    adapter = as_mlx_wants(host.checkpoint, tmp_path / "adapter")
    plain, tuned = Reference(host.model), Reference(host.model, adapter)
    tokens = plain.tokenizer.encode(PROBE_TEXT)
    before, after = plain.log_probabilities(tokens), tuned.log_probabilities(tokens)
    for token, value in host.backend._server.base_probe[0].items():
        assert value == pytest.approx(before[token], abs=1e-4)
    proof = put_on(backend, host.checkpoint)
    assert host.backend._staged is not None
    for token, value in host.backend._server.probe(host.backend._staged.folder)[0].items():
        assert value == pytest.approx(after[token], abs=1e-4)
    likeliest = {int(token) for values in (before, after) for token in np.argsort(values)[-11:]}
    assert proof.max_abs_logit_difference > 0.01
    assert (
        proof.max_abs_logit_difference
        >= max(
            abs(before[token] - after[token])
            for token in likeliest
            if token in set(np.argsort(before)[-11:]) & set(np.argsort(after)[-11:])
        )
        - 1e-4
    )


def test_the_record_of_an_adapter_is_that_of_a_fetched_one(host: Host) -> None:
    here = read_adapter(host.checkpoint, host.checkpoint.with_name("adapter_config.json"))
    assert host.backend.adapter(str(host.checkpoint)) == here


def spoiled(host: Host, name: str, fill: float) -> Path:
    """A checkpoint of its own, every `lora_b` of which holds nothing but `fill`."""
    checkpoint = write_checkpoint(host.base, host.folder / name, 1)
    weights = load_file(checkpoint)
    for tensor in weights:
        if tensor.endswith("lora_b"):
            weights[tensor] = np.full_like(weights[tensor], fill)
    save_file(weights, checkpoint)
    return checkpoint


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda host: host.folder / "nowhere" / "0000001_adapters.safetensors",
            r"the host: cannot read the adapter .*No such",
        ),
        (lambda host: host.folder, r"the host: cannot read the adapter .*not a regular file"),
        (lambda host: spoiled(host, "zero", fill=0.0), "not applied: the model answers as without it"),
        (lambda host: spoiled(host, "nan", fill=float("nan")), "NaN or infinite values under this adapter"),
    ],
)
def test_a_bad_adapter_is_refused_and_the_base_answers(
    host: Host, backend: MlxServerBackend, make: Callable[[Host], Path], message: str
) -> None:
    path = make(host)
    put_on(backend, host.checkpoint)
    sha256 = "0" * 64
    with suppress(AdapterError):
        sha256 = backend.adapter(str(path)).sha256
    with pytest.raises(AdapterError, match=message):
        backend.use_adapter(AdapterFile(path, sha256))
    request = ask(QUESTIONS[0])
    assert answer(backend, request).text == Reference(host.model).answer(request.messages, 16)


def test_an_adapter_of_another_base_is_refused(host: Host, backend: MlxServerBackend, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(host.base, host.folder / "foreign", 1)
    wide = {
        name: np.concatenate([value, value]) if name.endswith("lora_a") else value
        for name, value in load_file(checkpoint).items()
    }
    save_file(wide, checkpoint)
    with pytest.raises(AdapterError, match=r"cannot load .*does not match"):
        put_on(backend, checkpoint)


def test_a_damaged_file_is_named_by_its_path_there(host: Host, backend: MlxServerBackend) -> None:
    checkpoint = write_checkpoint(host.base, host.folder / "damaged", 1)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-10])
    with pytest.raises(AdapterError, match=rf"the host: .*damaged/{checkpoint.name}"):
        put_on(backend, checkpoint)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sha256": "0" * 64}, "is not what it was"),
        ({"sha256": ""}, "is not what it was"),
        ({"sha256": "", "scale": 2.0}, "cannot scale an adapter by 2.0"),
    ],
)
def test_an_adapter_that_is_not_the_one_meant_is_refused(
    host: Host, backend: MlxServerBackend, options: dict[str, object], message: str
) -> None:
    with pytest.raises(AdapterError, match=message):
        backend.use_adapter(AdapterFile(host.checkpoint, **options))  # type: ignore[arg-type]


def test_a_checkpoint_written_again_is_loaded_again(host: Host, backend: MlxServerBackend) -> None:
    checkpoint = write_checkpoint(host.base, host.folder / "again", 1, strength=0.3)
    put_on(backend, checkpoint)
    first = answer(backend, ask(QUESTIONS[0])).text
    write_checkpoint(host.base, host.folder / "again", 1, strength=0.9)
    put_on(backend, checkpoint)
    assert answer(backend, ask(QUESTIONS[0])).text != first


def test_a_seed_fixes_the_answer_in_any_company(backend: MlxServerBackend) -> None:
    request = ask(QUESTIONS[0], temperature=1.0, seed=3)
    alone = answer(backend, request).text
    batch = answers(backend, [ask(question, temperature=1.0, seed=3) for question in QUESTIONS])
    assert batch[request.id].text == alone
    assert answer(backend, ask(QUESTIONS[0], temperature=1.0, seed=4)).text != alone


@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p": 1e-6}])
def test_samplers_reach_the_server(backend: MlxServerBackend, options: dict[str, Any]) -> None:
    greedy = answer(backend, ask(QUESTIONS[1])).text
    assert answer(backend, ask(QUESTIONS[1], "a", temperature=5.0, **options)).text == greedy


def test_a_repeat_penalty_reaches_the_server(backend: MlxServerBackend) -> None:
    greedy = answer(backend, ask(QUESTIONS[1], max_tokens=40)).text
    assert answer(backend, ask(QUESTIONS[1], max_tokens=40, repeat_penalty=5.0)).text != greedy


def test_a_stop_string_ends_the_text_before_it(backend: MlxServerBackend) -> None:
    whole = answer(backend, ask(QUESTIONS[0], max_tokens=40))
    stop = whole.text[10:13]
    cut = answer(backend, ask(QUESTIONS[0], max_tokens=40, stop=(stop,)))
    assert cut.text == whole.text[: whole.text.find(stop)]
    assert cut.finish_reason == "stop"
    assert cut.prompt_tokens == whole.prompt_tokens
    assert 0 < cut.completion_tokens < 40


def test_a_stream_joins_to_the_answer(backend: MlxServerBackend) -> None:
    request = ask(QUESTIONS[0], max_tokens=24)
    pieces = list(backend.stream(request))
    assert len(pieces) > 3
    whole = answer(backend, request)
    assert "".join(piece.text for piece in pieces) == whole.text
    assert [piece.completion is None for piece in pieces] == [True] * (len(pieces) - 1) + [False]
    assert pieces[-1].completion is not None
    assert pieces[-1].completion.finish_reason == whole.finish_reason


def test_what_the_server_cannot_do_is_refused(backend: MlxServerBackend) -> None:
    refused, fine = answers(backend, [ask("a", schema={"type": "object"}), ask("b")]).values()
    assert refused.finish_reason == "error"
    assert "JSON schema" in str(refused.error)
    assert fine.error is None
    with pytest.raises(BackendError, match="cannot classify"):
        backend.classify(["a"], ["b"])
    with pytest.raises(BackendError, match="share an id"):
        list(backend.complete([ask("a"), ask("a")]))


def test_cancelled_requests_come_back_with_what_they_had(backend: MlxServerBackend) -> None:
    requests = [ask(question, max_tokens=4000) for question in QUESTIONS] + [ask(str(number)) for number in range(20)]
    polled = iter(range(1000))
    found = list(backend.complete(requests, cancelled=lambda: next(polled) > 5))
    assert len(found) == len(requests)
    assert {completion.finish_reason for completion in found} <= {"cancelled", "length", "stop"}
    stopped = [completion for completion in found if completion.finish_reason == "cancelled"]
    assert stopped
    assert any(completion.text for completion in stopped)
    assert answer(backend, ask(QUESTIONS[0])).error is None


def test_a_closed_iterator_leaves_the_backend_ready(backend: MlxServerBackend) -> None:
    run = backend.complete([ask(QUESTIONS[0], max_tokens=4000), ask("short", max_tokens=2)])
    assert next(run).request_id == "short"
    with pytest.raises(BackendError, match="complete is still under way"):
        next(backend.stream(ask("x")))
    run.close()  # type: ignore[attr-defined]
    assert answer(backend, ask(QUESTIONS[0])).error is None


def test_the_identity_names_model_versions_and_template(host: Host) -> None:
    identity = host.backend.identity()
    assert identity.backend == "mlx_server"
    assert f"mlx-lm {metadata.version('mlx-lm')}" in identity.backend_version
    assert identity.base_model == "tiny"
    assert identity.quantisation == "float32"
    assert identity.chat_template_sha256 == hashlib.sha256(CHAT_TEMPLATE.encode()).hexdigest()
    lines = [
        f"{name} {hashlib.sha256((host.model / name).read_bytes()).hexdigest()}\n"
        for name in ("config.json", "model.safetensors", "tokenizer.json")
    ]
    assert identity.base_sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()

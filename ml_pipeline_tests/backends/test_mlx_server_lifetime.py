"""The server ends when we do, however that happens, and is started again when it is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import paramiko
import pytest
from safetensors.numpy import load_file, save_file

from ml_pipeline.backend_settings import MlxServerSettings
from ml_pipeline.backends.interface import AdapterFile
from ml_pipeline.backends.mlx_server import LocalLauncher, MlxServerBackend, SshLauncher
from ml_pipeline.errors import AdapterError, BackendError
from ml_pipeline_tests.backends.requests import QUESTIONS, answer, ask
from ml_pipeline_tests.backends.tiny_mlx import (
    Reference,
    as_mlx_wants,
    gone_within,
    server_processes,
    write_checkpoint,
    write_model,
)
from ml_pipeline_tests.sshd import Sshd, running_sshd
from ml_pipeline_tests.tcp_proxy import running_proxy

LOST_AFTER_S = 4.0
SETTINGS = MlxServerSettings(
    python=(sys.executable,), start_timeout_s=120, silence_timeout_s=60, connect_timeout_s=5, lost_after_s=LOST_AFTER_S
)
# With these, silence ends nothing within a test.
PATIENT = SETTINGS.model_copy(update={"lost_after_s": 300.0})

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("host") / "model"
    base = write_model(folder)
    write_checkpoint(base, folder.parent / "adapters-run", 100, strength=0.3)
    return folder


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_left(model: Path) -> Iterator[None]:
    yield
    assert gone_within(model, 10), "a server was left behind"


class Connections:
    """Gives one connection for as long as it works, and counts how many were needed."""

    def __init__(self, sshd: Sshd, port: int | None = None) -> None:
        self.made: list[paramiko.Transport] = []
        self._sshd = sshd
        self._port = port

    def __call__(self) -> paramiko.Transport:
        if not self.made or not self.made[-1].is_active():
            self.made.append(self._sshd.transport(self._port))
        return self.made[-1]

    def close(self) -> None:
        for transport in self.made:
            transport.close()


def over_ssh(connections: Connections) -> SshLauncher:
    return SshLauncher("the host", connections)


OWNER = """
import sys, time
from pathlib import Path
from ml_pipeline_tests.backends.test_mlx_server_lifetime import PATIENT, MlxServerBackend, LocalLauncher, SshLauncher
import paramiko
kind, port, key, model = sys.argv[1:]
if kind == "ssh":
    import getpass
    transport = paramiko.Transport(("127.0.0.1", int(port)))
    transport.connect(username=getpass.getuser(), pkey=paramiko.PKey.from_path(key))
    launcher = SshLauncher("the host", lambda: transport)
else:
    launcher = LocalLauncher()
backend = MlxServerBackend(launcher, model, "tiny", PATIENT)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("kind", ["ssh", "local"])
def test_the_server_ends_when_our_process_is_killed(kind: str, sshd: Sshd, model: Path) -> None:
    command = [sys.executable, "-c", OWNER, kind, str(sshd.port), str(sshd.client_key), str(model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"ready\n"
        assert len(server_processes(model)) == 1
        owner.send_signal(signal.SIGKILL)
    assert gone_within(model, 5)


def test_the_server_ends_when_the_connection_is_cut_and_is_started_again(sshd: Sshd, model: Path) -> None:
    with running_proxy(sshd.port) as wire, closing(Connections(sshd, wire.port)) as connections:
        checkpoint = model.parent / "adapters-run" / "0000100_adapters.safetensors"
        with closing(MlxServerBackend(over_ssh(connections), str(model), "tiny", SETTINGS)) as backend:
            backend.use_adapter(AdapterFile(checkpoint, backend.adapter(str(checkpoint)).sha256))
            (first,) = server_processes(model)
            requests = [ask(question, max_tokens=8) for question in QUESTIONS]
            requests += [ask(question, f"long {question}", max_tokens=1500) for question in QUESTIONS]
            done = []
            for completion in backend.complete(requests):
                done.append(completion)
                if len(done) == len(QUESTIONS):
                    wire.cut()
            assert len(connections.made) == 2
            (second,) = server_processes(model)
            assert second != first
            assert {completion.finish_reason for completion in done} == {"length"}
            assert sorted(completion.request_id for completion in done) == sorted(request.id for request in requests)
            reference = Reference(model, as_mlx_wants(checkpoint, model.parent / "adapter-for-reference"))
            found = {completion.request_id: completion.text for completion in done}
            name = f"long {QUESTIONS[0]}"
            expected = reference.answer(requests[0].messages, 60)
            assert found[name].startswith(expected.rstrip("\ufffd")[:50])


def test_the_server_ends_when_the_connection_falls_silent(sshd: Sshd, model: Path) -> None:
    with running_proxy(sshd.port) as wire, closing(Connections(sshd, wire.port)) as connections:
        settings = SETTINGS.model_copy(update={"attempts": 1})
        backend = MlxServerBackend(over_ssh(connections), str(model), "tiny", settings)
        with suppress(BackendError), closing(backend):
            wire.silent = True
            started = time.monotonic()
            assert gone_within(model, LOST_AFTER_S + 5)
            found = answer(backend, ask(QUESTIONS[0]))
            assert found.finish_reason == "error"
            assert time.monotonic() - started < LOST_AFTER_S + 20
            assert "silent" in str(backend._server.session.over) or "broke" in str(found.error)


def test_a_server_that_is_killed_is_started_again(model: Path) -> None:
    launcher = LocalLauncher()
    with closing(MlxServerBackend(launcher, str(model), "tiny", SETTINGS)) as backend:
        (number,) = server_processes(model)
        run = backend.complete([ask("short", max_tokens=2), ask(QUESTIONS[0], "long", max_tokens=2000)])
        assert next(run).request_id == "short"
        os.kill(number, signal.SIGKILL)
        (late,) = run
        assert late.finish_reason == "length"
        assert late.completion_tokens == 2000
        assert server_processes(model) != [number]


def test_the_server_ends_when_the_guard_is_killed(model: Path) -> None:
    with closing(MlxServerBackend(LocalLauncher(), str(model), "tiny", PATIENT)) as backend:
        assert server_processes(model)
        backend._server.session._link.process.kill()  # type: ignore[attr-defined]
        assert gone_within(model, 5)


@pytest.mark.parametrize(
    ("change", "model_name", "message"),
    [
        ({}, "/nowhere/at all", r"did not get ready: .*(?s:.)*The last lines it wrote:\n"),
        ({"python": ("/nowhere/python 3",)}, None, r"did not get ready: .*(?s:.)*/nowhere/python 3"),
        (
            {"arguments": ("--no-such-option",)},
            None,
            r"ended with code 2(?s:.)*unrecognized arguments: --no-such-option",
        ),
    ],
)
def test_why_a_server_does_not_start_is_told(
    sshd: Sshd, model: Path, change: dict[str, object], model_name: str | None, message: str
) -> None:
    settings = SETTINGS.model_copy(update=change)
    with closing(Connections(sshd)) as connections, pytest.raises(BackendError, match=message):
        MlxServerBackend(over_ssh(connections), model_name or str(model), "tiny", settings)


def test_a_host_that_forbids_tunnels_is_told_so(model: Path, tmp_path: Path) -> None:
    with (
        running_sshd(tmp_path / "sshd", options="AllowTcpForwarding no") as sshd,
        closing(Connections(sshd)) as connections,
        pytest.raises(BackendError, match="AllowTcpForwarding"),
    ):
        MlxServerBackend(over_ssh(connections), str(model), "tiny", SETTINGS)


def test_a_local_python_that_is_not_there_is_told() -> None:
    settings = SETTINGS.model_copy(update={"python": ("/nowhere/python",)})
    with pytest.raises(BackendError, match="cannot run /nowhere/python: No such file"):
        MlxServerBackend(LocalLauncher(), "model", "tiny", settings)


LENIENT = """
import json, types
from pathlib import Path
import mlx_lm.utils
from mlx_lm.tuner.utils import linear_to_lora_layers

def load_adapters(model, adapter_path):
    config = types.SimpleNamespace(**json.loads(Path(adapter_path, "adapter_config.json").read_text()))
    linear_to_lora_layers(model, config.num_layers, config.lora_parameters)
    model.load_weights(str(Path(adapter_path, "adapters.safetensors")), strict=False)
    return model

mlx_lm.utils.load_adapters = load_adapters
"""


def test_an_adapter_that_fits_in_part_is_refused_by_an_mlx_lm_that_takes_it(model: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(LENIENT)
    settings = SETTINGS.model_copy(update={"python": ("env", f"PYTHONPATH={tmp_path}", sys.executable)})
    whole = model.parent / "adapters-run" / "0000100_adapters.safetensors"
    partial = tmp_path / "adapters-partial" / whole.name
    partial.parent.mkdir()
    (partial.parent / "adapter_config.json").write_text(whole.with_name("adapter_config.json").read_text())
    weights = {name.replace("layers.1.", "layers.9."): value for name, value in load_file(whole).items()}
    save_file(weights, partial)
    foreign = sum("layers.9." in name for name in weights)
    with closing(MlxServerBackend(LocalLauncher(), str(model), "tiny", settings)) as backend:
        assert backend.use_adapter(AdapterFile(whole, backend.adapter(str(whole)).sha256)) is not None
        with pytest.raises(AdapterError, match=f"{foreign} tensors are not of this model, such as .*layers.9"):
            backend.use_adapter(AdapterFile(partial, backend.adapter(str(partial)).sha256))

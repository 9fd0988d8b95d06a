"""llama-server ends when we do, however that happens, is started again when it is lost, and answers to nobody else."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline.backends.http_answer import HttpError
from ml_pipeline.backends.interface import AdapterFile, Message
from ml_pipeline.backends.llama_cpp import LlamaCppBackend
from ml_pipeline.backends.llama_server import LlamaServerBackend
from ml_pipeline.backends.loopback_http import HttpClient
from ml_pipeline.errors import BackendError
from ml_pipeline_tests.adapters.tiny_models import tiny_llama
from ml_pipeline_tests.backends.conftest import CONTEXT_TOKENS, THREADS
from ml_pipeline_tests.backends.llama_servers import running_backend, server_settings
from ml_pipeline_tests.backends.requests import answer, ask
from ml_pipeline_tests.backends.test_llama_cpp_adapters import write_adapter
from ml_pipeline_tests.backends.tiny_mlx import gone_within, server_processes

# Random weights seldom end an answer by themselves.
LONG, LONGER = 200, 450


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny")).gguf_path


@pytest.fixture(autouse=True)
def _nothing_left(gguf: Path) -> Iterator[None]:
    yield
    assert gone_within(gguf, 10), "a server was left behind"


@pytest.fixture
def adapter(gguf: Path, tmp_path: Path) -> AdapterFile:
    return write_adapter(tmp_path / "adapter.gguf", shapes={"blk.1.attn_q.weight": (64, 64)}, b_scale=5.0)


OWNER = """
import sys, time
from pathlib import Path
from ml_pipeline_tests.backends.llama_servers import LlamaServerBackend, server_settings
backend = LlamaServerBackend(Path(sys.argv[1]), "tiny", server_settings())
print(backend._server._folder, flush=True)
time.sleep(600)
"""


def test_the_server_ends_when_our_process_is_killed(gguf: Path) -> None:
    server_settings()
    with subprocess.Popen([sys.executable, "-c", OWNER, str(gguf)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        folder = Path(owner.stdout.readline().strip())
        assert len(server_processes(gguf)) == 1
        assert (folder / "llama.sock").is_socket()
        owner.send_signal(signal.SIGKILL)
    assert gone_within(gguf, 5)
    give_up_at = time.monotonic() + 5
    while folder.exists() and time.monotonic() < give_up_at:
        time.sleep(0.05)
    assert not folder.exists()


def test_a_server_that_is_killed_is_started_again_with_its_adapter(gguf: Path, adapter: AdapterFile) -> None:
    with running_backend(gguf) as backend:
        bare = answer(backend, ask("tell", max_tokens=LONG))
        proof = backend.use_adapter(adapter)
        expected = answer(backend, ask("tell", max_tokens=LONG))
        assert expected.text != bare.text
        (number,) = server_processes(gguf)
        requests = [ask("x", "short", max_tokens=2), *(ask("tell", f"long {i}", max_tokens=LONG) for i in range(6))]
        done = []
        for completion in backend.complete(requests):
            done.append(completion)
            if len(done) == 1:
                os.kill(number, signal.SIGKILL)
        assert sorted(completion.request_id for completion in done) == sorted(request.id for request in requests)
        assert {completion.error for completion in done} == {None}
        assert server_processes(gguf) != [number]
        assert answer(backend, ask("tell", max_tokens=LONG)).text == expected.text
        assert backend.use_adapter(adapter) == proof
        uses: list[Callable[[], object]] = [
            lambda: backend.classify(["tell"], [" me"]),
            lambda: backend.render([Message("user", "never seen")]),
            lambda: backend.use_adapter(adapter),
        ]
        for use in uses:
            os.kill(server_processes(gguf)[0], signal.SIGKILL)
            assert use() is not None


def test_an_adapter_that_cannot_be_applied_again_is_never_left_out(gguf: Path, adapter: AdapterFile) -> None:
    with running_backend(gguf) as backend:
        backend.use_adapter(adapter)
        adapter.path.unlink()
        os.kill(server_processes(gguf)[0], signal.SIGKILL)
        first, second = (answer(backend, ask("tell")) for _ in range(2))
        assert "there is no such adapter" in str(first.error)
        assert "could not be applied again" in str(second.error)
        with pytest.raises(BackendError, match="could not be applied again"):
            backend.classify(["tell"], [" me"])
        backend.use_adapter(None)
        assert answer(backend, ask("tell")).error is None


def test_a_stream_whose_server_dies_keeps_its_text_and_says_why(gguf: Path) -> None:
    with running_backend(gguf) as backend:
        pieces = []
        for piece in backend.stream(ask("tell", max_tokens=LONGER)):
            pieces.append(piece)
            if len(pieces) == 5:
                os.kill(server_processes(gguf)[0], signal.SIGKILL)
        last = pieces[-1].completion
        assert last is not None
        assert last.finish_reason == "error"
        assert last.error
        assert last.text == "".join(piece.text for piece in pieces)
        assert last.completion_tokens >= 5


def test_after_so_many_attempts_the_error_is_told(gguf: Path) -> None:
    with running_backend(gguf, attempts=1) as backend:
        os.kill(server_processes(gguf)[0], signal.SIGKILL)
        found = answer(backend, ask("tell"))
        assert found.finish_reason == "error"
        assert "broke" in str(found.error)
        assert "the server was ended by SIGKILL (Killed)" in str(found.error)


def test_the_server_ends_when_the_guard_is_killed(gguf: Path) -> None:
    with running_backend(gguf) as backend:
        (number,) = server_processes(gguf)
        backend._server._link.process.kill()
        give_up_at = time.monotonic() + 5
        while backend._server.session.over is None and time.monotonic() < give_up_at:
            time.sleep(0.01)
        assert answer(backend, ask("tell")).error is None
        assert number not in server_processes(gguf)


def test_nobody_else_is_answered(gguf: Path) -> None:
    with running_backend(gguf) as backend:
        server = backend._server
        folder = Path(server._folder)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        stranger = HttpClient(server._connect, 80, connect_timeout_s=5, silence_timeout_s=5, api_key="guessed")
        with pytest.raises(HttpError, match="Invalid API Key"):
            stranger.post("/completion", {"prompt": "x", "n_predict": 1})
        command = Path(f"/proc/{server_processes(gguf)[0]}/cmdline")
        if command.exists():
            key = str(server.client._authorization["Authorization"]).removeprefix("Bearer ")
            assert key not in command.read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"binary": "/nowhere/llama-server"}, r"^/nowhere/llama-server: there is no such program. Set the backend's"),
        ({"arguments": ("--no-such-option",)}, r"ended with code 1(?s:.)*wrote:(?s:.)*--no-such-option"),
        ({"binary": "true"}, "ended with code 0"),
        ({"start_timeout_s": 0.01}, "did not get ready(?s:.)* 0.01 s"),
        ({"context_tokens": 4096}, "context_tokens is 4096, but the model was trained for 512"),
    ],
)
def test_why_a_server_does_not_start_is_told(gguf: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        LlamaServerBackend(gguf, "tiny", server_settings(**changes))


def test_a_model_that_is_none_is_told(gguf: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(gguf.read_bytes()[:-4096])
    with pytest.raises(BackendError, match=r"did not get ready for .*cut\.gguf: the server ended(?s:.)*wrote:\n"):
        LlamaServerBackend(cut, "tiny", server_settings())


def test_a_base_without_a_template_is_asked_as_by_llama_cpp(gguf: Path) -> None:
    reference = LlamaCppBackend(gguf, "tiny", sequences=1, context_tokens=256, threads=THREADS)
    with running_backend(gguf, context_tokens=256) as backend:
        for chat in ([Message("user", "Hi")], [Message("system", "Be brief."), Message("user", "Hi")]):
            assert backend.render(chat) == reference.render(chat)
        assert backend.identity().chat_template_sha256 == reference.identity().chat_template_sha256
        ours, theirs = (answer(model, ask("tell me", max_tokens=40)) for model in (backend, reference))
        assert ours.prompt_tokens == theirs.prompt_tokens
        assert ours.text == theirs.text
    reference.close()


def test_a_full_context_ends_an_answer_with_its_text_and_the_reason(gguf: Path) -> None:
    endless = {"type": "array", "items": {"type": "integer"}, "minItems": 300}
    with running_backend(gguf) as backend:
        found = answer(backend, ask("tell me", schema=endless, max_tokens=CONTEXT_TOKENS))
    assert found.finish_reason == "error"
    assert "the context is full" in str(found.error)
    assert found.prompt_tokens + found.completion_tokens in (CONTEXT_TOKENS, CONTEXT_TOKENS + 1)
    assert found.text.startswith("[")


def test_a_closed_backend_says_so(gguf: Path) -> None:
    with running_backend(gguf) as backend:
        pass
    backend.close()
    for use in (
        lambda: list(backend.complete([ask("hi")])),
        lambda: backend.classify(["a"], ["b"]),
        lambda: backend.use_adapter(None),
    ):
        with pytest.raises(BackendError, match="closed"):
            use()

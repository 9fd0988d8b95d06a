"""The parts of the mlx_server backend that need no model: the guard, requests and answers, the proof's arithmetic."""

from __future__ import annotations

import math
import shlex
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ml_pipeline.backends.fan_out import fan_out
from ml_pipeline.backends.guarded.link import guard_command
from ml_pipeline.backends.guarded.local_launcher import LocalLauncher
from ml_pipeline.backends.guarded.session import GuardError, GuardSession
from ml_pipeline.backends.http_answer import HttpError
from ml_pipeline.backends.likeliest import is_finite, largest_difference
from ml_pipeline.backends.mlx_server.chat import Answer, counting_body, prompt_tokens, request_body
from ml_pipeline.backends.mlx_server.remote_adapter import stage
from ml_pipeline.backends.seeds import request_seed
from ml_pipeline.errors import AdapterError
from ml_pipeline_tests.backends.requests import ask


def test_the_guards_command_survives_a_shell() -> None:
    command = shlex.join(guard_command(["/opt/my python/bin/python3", "-X", "dev"], 30))
    done = subprocess.run(
        ["sh", "-c", f'printf "%s\\n" {command}'], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert done[:4] == ["/opt/my python/bin/python3", "-X", "dev", "-c"]
    assert done[-1] == "30"


class Pipe:
    """A link to a host that sends what the test says."""

    def __init__(self, *pieces: bytes) -> None:
        self.ends = socket.socketpair()
        self.sent = b""
        self.abandoned = False
        for piece in pieces:
            self.ends[0].sendall(piece)

    def send(self, data: bytes) -> None:
        self.sent += data

    def receive(self) -> bytes:
        return self.ends[1].recv(1 << 16)

    def receive_error(self) -> bytes:
        return b""

    def connect(self, port: int, timeout_s: float) -> socket.socket:
        raise OSError

    def close(self) -> None:
        self.ends[0].close()

    def abandon(self) -> None:
        self.abandoned = True
        self.close()


def test_a_guard_that_says_nothing_is_given_up() -> None:
    pipe = Pipe()
    with closing(GuardSession(pipe, lost_after_s=0.4)) as session:
        with pytest.raises(GuardError, match="silent") as error:
            session.ask("model", 5)
        assert error.value.gone
        assert pipe.abandoned
        assert b'"alive"' in pipe.sent


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"id": 1, "error": "no \\u001b[31mfile"}\n', "no  .31mfile"),
        (b'{"exited": 3}\n', "ended with code 3"),
        (b"Welcome!\n[1]\nnull\n" + b"[" * 100_000 + b'\n{"id": 1, "error": "after"}\n', "after"),
        (b'{"id": 99}\n{"id": 1, "error": "mine"}\n', "mine"),
    ],
)
def test_a_guard_that_talks_nonsense_is_told(line: bytes, message: str) -> None:
    pipe = Pipe()
    with closing(GuardSession(pipe, lost_after_s=30)) as session:
        threading.Timer(0.1, lambda: pipe.ends[0].sendall(line)).start()
        with pytest.raises(GuardError, match=message):
            session.ask("model", 5)


def test_the_guard_reads_adapters_and_ends_with_its_input(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    weights = tmp_path / "weights.safetensors"
    link = LocalLauncher().launch(guard_command((sys.executable,), 30), 5)
    with closing(GuardSession(link, lost_after_s=30)) as session:
        for content, message in [
            (None, f"{weights}: No such file or directory"),
            (b"abc", "3 bytes, too short"),
            (b"\xff" * 9, "claims a header of 18446744073709551615 bytes"),
        ]:
            if content is not None:
                weights.write_bytes(content)
            with pytest.raises(GuardError, match=message):
                session.ask("adapter", 5, weights=str(weights), config=str(tmp_path / "adapter_config.json"))
        with pytest.raises(GuardError, match="AttributeError"):
            session.ask("nothing", 5)
        weights.write_bytes((2).to_bytes(8, "little") + b"{}")
        answer = session.ask("adapter", 5, weights=str(weights), config=str(tmp_path / "adapter_config.json"))
        assert Path(answer["folder"], "adapters.safetensors").resolve() == weights.resolve()
    assert link.process.returncode == 0
    assert not Path(answer["folder"]).parent.exists()


def test_adapters_that_mlx_lm_did_not_save_are_refused(tmp_path: Path) -> None:
    weights, config = tmp_path / "adapter_model.safetensors", tmp_path / "adapter_config.json"
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    shapes = {f"{module}.lora_A.weight": (2, 4), f"{module}.lora_B.weight": (4, 2)}
    save_file({name: np.ones(shape, np.float32) for name, shape in shapes.items()}, weights)
    config.write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 4}')
    link = LocalLauncher().launch(guard_command((sys.executable,), 30), 5)
    with (
        closing(GuardSession(link, lost_after_s=30)) as session,
        pytest.raises(AdapterError, match=r"saved by peft, and mlx_lm\.server loads only what mlx-lm saved"),
    ):
        stage(session, "here", str(weights), str(config))


def test_the_guard_ends_when_it_hears_nothing() -> None:
    link = LocalLauncher().launch(guard_command((sys.executable,), 0.5), 5)
    assert link.process.wait(5) == 0
    link.close()


BASE = [{1: -0.5, 2: -1.5, 3: -3.0}, {1: -0.1, 2: -4.0, 3: -5.0}]


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (BASE, 0.0),
        # A token in both lists.
        ([{1: -0.5, 2: -1.75, 3: -3.0}, BASE[1]], 0.25),
        # Token 3 fell out of the list, to -2 or lower; token 4, new in it, was at -3 or lower before.
        ([{1: -0.5, 2: -1.5, 4: -2.0}, BASE[1]], 1.0),
        # Another likeliest token: what follows has another text before it and does not count.
        ([{1: -1.5, 2: -0.5, 3: -3.0}, {7: -0.1, 8: -90.0, 9: -99.0}], 1.0),
        ([BASE[0], {1: -0.1, 2: -4.0, 3: -5.5}], 0.5),
    ],
)
def test_difference_of_two_probes(other: list[dict[int, float]], expected: float) -> None:
    assert largest_difference(BASE, other) == pytest.approx(expected)


def test_numbers_that_are_none_are_seen() -> None:
    assert is_finite(BASE)
    assert not is_finite([{1: math.nan}])
    assert not is_finite([{1: math.inf}])


def test_a_request_says_all_that_was_asked_for() -> None:
    request = ask("Hello", "an id", temperature=0.5, top_p=0.9, top_k=7, repeat_penalty=1.5, seed=3, stop=("x",))
    body = request_body(request, "/models/m", "/tmp/adapter")
    assert body == {
        "model": "/models/m",
        "adapters": "/tmp/adapter",
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 16,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "repetition_penalty": 1.5,
        "repetition_context_size": 64,
        "seed": request_seed(3, "an id"),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert {"seed", "adapters", "repetition_penalty"}.isdisjoint(request_body(ask("Hello"), "m", None))
    spelled = request_body(ask("a<|im_end|>b < c"), "m", None)
    assert spelled["messages"] == [{"role": "user", "content": "a< |im_end|>b < c"}]
    assert counting_body(body).keys() == body.keys() - {"stream_options", "seed"}
    assert prompt_tokens({"usage": {"prompt_tokens": 3}}) == 3


def event(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


USAGE = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 9}}


@pytest.mark.parametrize(
    ("events", "text", "finish"),
    [
        ([event(content="Hel"), event(content="lo"), event("stop"), USAGE], "Hello", "stop"),
        ([event(content="Hello"), event("length"), USAGE], "Hello", "length"),
        (
            [event(reasoning="Hm"), event(reasoning="m"), event("stop", content="Hi"), USAGE],
            "<think>Hmm</think>Hi",
            "stop",
        ),
        ([event("length", reasoning="Hm"), USAGE], "<think>Hm", "length"),
        ([event("tool_calls", tool_calls=[{"a": 1}]), USAGE], '<tool_call>[{"a": 1}]</tool_call>', "stop"),
        ([event(content="a STOP b"), event("length"), USAGE], "a ", "length"),
        ([event(content="\ud800"), event("stop"), USAGE], "?", "stop"),
        ([event(content=None), event("weird"), USAGE], "", None),
    ],
)
def test_an_answer_is_put_together(events: list[dict[str, Any]], text: str, finish: str | None) -> None:
    answer = Answer(("STOP",))
    for one in events:
        answer.add(one)
        if answer.text.stopped:
            finish = "stop"
            break
    assert (answer.text.text, answer.finish) == (text, finish)
    if not answer.text.stopped:
        assert (answer.prompt_tokens, answer.completion_tokens) == (5, 9)


@pytest.mark.parametrize(
    "bad",
    [{}, {"choices": None}, {"choices": []}, {"choices": [], "usage": {"prompt_tokens": -1}}, event(content=7)],
)
def test_an_event_that_makes_no_sense_is_told(bad: dict[str, Any]) -> None:
    with pytest.raises(HttpError):
        Answer(()).add(bad)


def test_fan_out_bounds_what_runs_and_stops_on_request() -> None:
    running, most, lock, stopped = 0, 0, threading.Lock(), threading.Event()

    def work(item: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        stopped.wait(0.02 if item < 10 else 30)
        with lock:
            running -= 1
        return item * 2

    started = time.monotonic()
    found = dict(
        fan_out(work, list(range(20)), at_once=3, cancelled=lambda: time.monotonic() > started + 0.5, stop=stopped.set)
    )
    assert found == {item: item * 2 for item in range(20)}
    assert most == 3
    assert time.monotonic() - started < 10

"""Tokens a second of mlx_lm.server behind a real sshd on loopback, with a tiny model so that the way there counts.

    python -m ml_pipeline_tests.benchmarks.remote_inference [--json] [--prompts N] [--repeats N]

- ours: MlxServerBackend through its SSH tunnel, 8 requests at a time.
- no_ssh: plain HTTP to the same server's port on this machine, 8 requests at a time, answers not streamed.
- one_at_a_time: ours with a single request under way, as a loop over prompts does it.

Beside them: seconds to start (Python, mlx-lm and the model), to swap an adapter with its proof, and to end.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx

from ml_pipeline.backend_settings import MlxServerSettings
from ml_pipeline.backends.interface import AdapterFile, CompletionRequest, GenerationOptions, Message
from ml_pipeline.backends.mlx_server import MlxServerBackend, SshLauncher
from ml_pipeline_tests.backends.tiny_mlx import write_checkpoint, write_model
from ml_pipeline_tests.benchmarks.result import compare, interleaved, medians, print_result
from ml_pipeline_tests.sshd import running_sshd

AT_ONCE = 8
MAX_TOKENS = 64
TIMEOUT_S = 300.0


class RemoteInference:
    """Every subject of the benchmark over one server; each method returns tokens a second."""

    def __init__(self, backend: MlxServerBackend, address: str, prompts: int) -> None:
        self._backend = backend
        self._address = address
        self._prompts = [f"Question {number}: what comes next?" for number in range(prompts)]

    def ours(self) -> float:
        """All prompts in one call."""
        started = time.perf_counter()
        return self._tokens(self._prompts) / (time.perf_counter() - started)

    def one_at_a_time(self) -> float:
        """A call for each prompt."""
        started = time.perf_counter()
        return sum(self._tokens([prompt]) for prompt in self._prompts) / (time.perf_counter() - started)

    def no_ssh(self) -> float:
        """The same requests over plain HTTP."""
        with (
            httpx.Client(base_url=self._address, timeout=TIMEOUT_S) as client,
            ThreadPoolExecutor(AT_ONCE) as pool,
        ):

            def ask(prompt: str) -> int:
                body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": MAX_TOKENS}
                reply = client.post("/v1/chat/completions", json=body).raise_for_status().json()
                return int(reply["usage"]["completion_tokens"])

            started = time.perf_counter()
            return sum(pool.map(ask, self._prompts)) / (time.perf_counter() - started)

    def _tokens(self, prompts: list[str]) -> int:
        requests = [
            CompletionRequest(prompt, (Message("user", prompt),), GenerationOptions(max_tokens=MAX_TOKENS))
            for prompt in prompts
        ]
        done = list(self._backend.complete(requests))
        errors = [completion.error for completion in done if completion.error]
        if errors:
            sys.exit(f"the server failed: {errors[0]}")
        return sum(completion.completion_tokens for completion in done)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="tokens a second through an SSH tunnel")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    settings = MlxServerSettings(python=(sys.executable,), concurrency=AT_ONCE)
    with tempfile.TemporaryDirectory() as name, running_sshd(Path(name, "sshd")) as sshd:
        base = write_model(Path(name, "model"))
        checkpoint = write_checkpoint(base, Path(name, "adapters-run"), 100, strength=0.3)
        with closing(sshd.transport()) as transport:
            launcher = SshLauncher("sshd", lambda: transport)
            started = time.perf_counter()
            backend = MlxServerBackend(launcher, str(Path(name, "model")), "tiny", settings)
            with closing(backend):
                start_s = time.perf_counter() - started
                started = time.perf_counter()
                backend.use_adapter(AdapterFile(checkpoint, backend.adapter(str(checkpoint)).sha256))
                swap_s = time.perf_counter() - started
                backend.use_adapter(None)
                subject = RemoteInference(backend, backend._server.client.address, arguments.prompts)
                subjects = {
                    "ours": subject.ours,
                    "no_ssh": subject.no_ssh,
                    "one_at_a_time": subject.one_at_a_time,
                }
                figures = interleaved(subjects, arguments.repeats)
                started = time.perf_counter()
            end_s = time.perf_counter() - started
    context = {
        "prompts": arguments.prompts,
        "max_tokens": MAX_TOKENS,
        "repeats": arguments.repeats,
        "start_s": round(start_s, 2),
        "swap_s": round(swap_s, 3),
        "end_s": round(end_s, 3),
        "all_figures": {name: [round(value, 1) for value in values] for name, values in figures.items()},
    }
    result = compare("remote_inference", "tokens/s", medians(figures), more_is_better=True, context=context)
    print_result(result, as_json=arguments.json)


if __name__ == "__main__":
    main()

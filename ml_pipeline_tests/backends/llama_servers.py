"""The real llama-server for the tests, and how to ask it without the backend."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline.backend_settings import LlamaServerSettings
from ml_pipeline.backends.llama_server import LlamaServerBackend, find_llama_server
from ml_pipeline.errors import BackendError
from ml_pipeline_tests.backends.conftest import CONTEXT_TOKENS, THREADS


def require_llama_server() -> Path:
    """The program; without it the test is skipped, or fails in CI."""
    try:
        return find_llama_server()
    except BackendError as error:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


def server_settings(**changes: Any) -> LlamaServerSettings:
    """Two slots of the other tests' size."""
    require_llama_server()
    return LlamaServerSettings(
        **{"sequences": 2, "context_tokens": CONTEXT_TOKENS, "threads": THREADS, "start_timeout_s": 60} | changes
    )


@contextmanager
def running_backend(gguf: Path, **changes: Any) -> Iterator[LlamaServerBackend]:
    """A backend for the body."""
    backend = LlamaServerBackend(gguf, "the base", server_settings(**changes))
    try:
        yield backend
    finally:
        backend.close()


def busy_slots(backend: LlamaServerBackend) -> int:
    """How many slots of the server work right now."""
    client = backend._server.client
    client.allow()
    with client._request("GET", "/slots", None, 10) as response:
        return bytes(response.read()).count(b'"is_processing":true')

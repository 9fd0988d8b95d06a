"""A real S3-compatible server (moto) on a loopback port, and the environment that lets clients in."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

from ml_pipeline_tests.servers import free_port, running


@contextmanager
def running_s3(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Run the server until the end of the body; yields the options that an fsspec `s3://` file system needs.

    The keys go through the environment, as a user's would.
    """
    missing = [name for name in ("moto", "flask", "flask_cors", "s3fs") if find_spec(name) is None]
    if missing:
        reason = f"not installed: {', '.join(missing)} (pip install 'ml_pipeline[dev]')"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tests")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "tests")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    port = free_port()
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{address}/moto-api/", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    server = Path(sys.executable).with_name("moto_server")
    with running([str(server), "-H", "127.0.0.1", "-p", str(port)], folder / "moto.log", answers, timeout_s=60):
        yield {"endpoint_url": address}

"""One real SSH server for the tests of this folder, and connections that are closed after each of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_pipeline.checkpoints.ssh.connection import ConnectionPool
from ml_pipeline_tests.sshd import Sshd, running_sshd


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def pool() -> Iterator[ConnectionPool]:
    """A pool of its own for each test, which leaves no thread behind."""
    before = {thread.ident for thread in threading.enumerate()}
    pool = ConnectionPool()
    yield pool
    pool.close()
    left = [thread for thread in threading.enumerate() if type(thread).__module__.startswith("paramiko")]
    assert [thread for thread in left if thread.ident not in before] == []


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder that the server's machine holds."""
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder

"""Disks that are full or read-only, and servers of line protocol, for real."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from ml_pipeline_tests.disks import Disk, mounted
from ml_pipeline_tests.influxd import Influxd, running_influxd
from ml_pipeline_tests.victoria_metrics import running_victoria_metrics

# How long an example takes says how busy the machine is.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 1 MiB. Where it cannot be had, the tests with a file size limit cover the same code."""
    with mounted(tmp_path / "small", "size=1m") as disk:
        yield disk.folder


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk of 24 MiB, to be filled or made read-only."""
    with mounted(tmp_path / "disk", "size=24m") as disk:
        yield disk


@pytest.fixture
def read_only_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in which nothing can be written, by root either."""
    if os.geteuid() != 0:
        folder = tmp_path / "readonly"
        folder.mkdir(mode=0o555)
        yield folder
        return
    with mounted(tmp_path / "readonly", "ro") as disk:
        yield disk.folder


@pytest.fixture(scope="session")
def victoria_metrics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running VictoriaMetrics."""
    with running_victoria_metrics(tmp_path_factory.mktemp("victoria")) as url:
        yield url


@pytest.fixture(scope="session")
def _influxd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    with running_influxd(tmp_path_factory.mktemp("influxd")) as server:
        yield server


@pytest.fixture
def influxd(_influxd: Influxd) -> Influxd:
    """A running InfluxDB 1 with an empty database."""
    _influxd.clear()
    return _influxd

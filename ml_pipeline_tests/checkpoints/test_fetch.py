"""Fetching into the cache: verified, content-addressed, and bounded."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.checkpoints.discovery import discover
from ml_pipeline.checkpoints.fetch import FetchCache
from ml_pipeline.checkpoints.source import LocalFolder
from ml_pipeline.errors import CheckpointError
from ml_pipeline_tests.checkpoints.files import write_checkpoint


@pytest.fixture
def source(tmp_path: Path) -> LocalFolder:
    write_checkpoint(tmp_path / "mac" / "adapters-1b", "1_adapters.safetensors", mtime_ns=1)
    return LocalFolder("mac", tmp_path / "mac")


def only_checkpoint(source: LocalFolder) -> Checkpoint:
    (checkpoint,) = discover(source, (), now_ns=10**18, settle_s=0).checkpoints
    return checkpoint


def test_a_fetched_file_is_named_by_its_content_and_fetched_once(source: LocalFolder, tmp_path: Path) -> None:
    cache = FetchCache(tmp_path / "cache", largest_bytes=10**6)
    seen: list[tuple[int, int]] = []
    files = cache.fetch(source, only_checkpoint(source), lambda done, total: seen.append((done, total)))
    original = (source.root / "adapters-1b" / "1_adapters.safetensors").read_bytes()
    assert files.weights.name == hashlib.sha256(original).hexdigest() + ".safetensors"
    assert files.weights.read_bytes() == original
    assert seen[-1] == (len(original), len(original))
    assert cache.fetch(source, only_checkpoint(source)) == files
    assert sorted(p.suffix for p in cache.folder.iterdir()) == [".json", ".safetensors"]


def test_a_file_that_changed_after_discovery_is_refused(source: LocalFolder, tmp_path: Path) -> None:
    checkpoint = only_checkpoint(source)
    (source.root / checkpoint.file).write_bytes(b"other")
    with pytest.raises(CheckpointError, match="changed since it was discovered"):
        FetchCache(tmp_path / "cache", 10**6).fetch(source, checkpoint)


def test_a_file_larger_than_the_limit_is_refused(source: LocalFolder, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"limits\.adapter_bytes"):
        FetchCache(tmp_path / "cache", 10).fetch(source, only_checkpoint(source))


def test_a_missing_or_bloated_configuration_is_refused(source: LocalFolder, tmp_path: Path) -> None:
    config = source.root / "adapters-1b" / "adapter_config.json"
    config.write_bytes(b" " * (2**20 + 1))
    with pytest.raises(CheckpointError, match="not what mlx-lm writes"):
        FetchCache(tmp_path / "cache", 10**6).fetch(source, only_checkpoint(source))
    config.unlink()
    with pytest.raises(CheckpointError, match=r"adapter_config\.json"):
        FetchCache(tmp_path / "cache", 10**6).fetch(source, only_checkpoint(source))


def test_nothing_outside_the_source_is_read(source: LocalFolder) -> None:
    for path in ("../outside", "adapters-1b/../../outside", "/etc/passwd"):
        with pytest.raises(CheckpointError, match="source mac"):
            source.open(path)

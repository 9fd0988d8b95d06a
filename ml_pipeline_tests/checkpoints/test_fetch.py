"""Fetching into the cache: verified, content-addressed, resumable, once for several processes, and bounded."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ml_pipeline.checkpoints.fetch import FetchCache
from ml_pipeline.checkpoints.source import LocalFolder
from ml_pipeline.errors import CheckpointChangedError, CheckpointError, StoreFullError
from ml_pipeline_tests.checkpoints.sources import (
    FaultySource,
    add_weights,
    cache_in,
    checkpoints_of,
    only_checkpoint,
    parts,
    weights_path,
)

SIZE = 300_000
RESET = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


@pytest.fixture
def source(tmp_path: Path) -> FaultySource:
    add_weights(tmp_path / "mac", SIZE)
    return FaultySource("mac", tmp_path / "mac")


@pytest.fixture
def cache(tmp_path: Path) -> FetchCache:
    return cache_in(tmp_path / "cache")


def test_a_fetched_file_is_named_by_its_content_and_fetched_once(source: FaultySource, cache: FetchCache) -> None:
    seen: list[tuple[int, int]] = []
    files = cache.fetch(source, only_checkpoint(source), lambda here, total: seen.append((here, total)))
    original = weights_path(source).read_bytes()
    assert files.weights.name == hashlib.sha256(original).hexdigest() + ".safetensors"
    assert files.weights.read_bytes() == original
    assert files.config.name == hashlib.sha256(b"{}").hexdigest() + ".json"
    assert (seen[0], seen[-1]) == ((0, SIZE), (SIZE, SIZE))
    assert cache.fetch(source, only_checkpoint(source)) == files
    assert source.read_bytes == SIZE
    assert sorted(p.suffix for p in cache.folder.iterdir() if p.is_file()) == [".json", ".safetensors"]
    assert parts(cache) == []


def test_another_process_finds_what_was_fetched(source: FaultySource, cache: FetchCache, tmp_path: Path) -> None:
    files = cache.fetch(source, only_checkpoint(source))
    assert cache_in(tmp_path / "cache").fetch(source, only_checkpoint(source)) == files
    assert source.read_bytes == SIZE


def test_what_its_source_has_lost_is_still_found(source: FaultySource, cache: FetchCache) -> None:
    checkpoint = only_checkpoint(source)
    files = cache.fetch(source, checkpoint)
    for path in (weights_path(source), weights_path(source).with_name("adapter_config.json")):
        path.unlink()
    assert cache.fetch(source, checkpoint) == files
    assert cache.index.latest(checkpoint.key) == checkpoint


def test_what_its_source_has_lost_and_the_cache_too_is_an_error(source: FaultySource, cache: FetchCache) -> None:
    checkpoint = only_checkpoint(source)
    files = cache.fetch(source, checkpoint)
    weights_path(source).unlink()
    files.weights.unlink()
    with pytest.raises(CheckpointError, match=r"cannot read 'adapters-1b/0000001_adapters\.safetensors'"):
        cache.fetch(source, checkpoint)


def test_a_file_overwritten_in_place_is_fetched_again_and_the_old_content_kept(
    source: FaultySource, cache: FetchCache
) -> None:
    first = only_checkpoint(source)
    old = cache.fetch(source, first)
    weights_path(source).write_bytes(bytes(SIZE))
    new = cache.fetch(source, only_checkpoint(source))
    assert new.weights.read_bytes() == bytes(SIZE)
    assert old.weights.exists()
    assert cache.index.latest(first.key) == only_checkpoint(source)


def test_a_new_configuration_beside_old_weights_is_taken(source: FaultySource, cache: FetchCache) -> None:
    cache.fetch(source, only_checkpoint(source))
    weights_path(source).with_name("adapter_config.json").write_text('{"new": 1}')
    assert cache.fetch(source, only_checkpoint(source)).config.read_text() == '{"new": 1}'
    assert source.read_bytes == SIZE, "the weights are not transferred again"
    assert parts(cache) == []


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [flip_a_byte, Path.unlink, lambda path: os.truncate(path, 5)])
def test_damaged_content_is_fetched_again(
    source: FaultySource, cache: FetchCache, damage: Callable[[Path], None]
) -> None:
    files = cache.fetch(source, only_checkpoint(source))
    damage(files.weights)
    assert cache.fetch(source, only_checkpoint(source)) == files
    assert files.weights.read_bytes() == weights_path(source).read_bytes()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"checkpoint": {}}', "null", "\x00" * 50])
def test_a_damaged_record_costs_one_transfer(source: FaultySource, cache: FetchCache, content: str) -> None:
    checkpoint = only_checkpoint(source)
    files = cache.fetch(source, checkpoint)
    cache.index.path_of(checkpoint).write_text(content)
    assert cache.index.latest(checkpoint.key) is None
    assert cache.fetch(source, checkpoint) == files
    assert source.read_bytes == 2 * SIZE
    assert cache.fetch(source, checkpoint) == files
    assert source.read_bytes == 2 * SIZE


def test_a_record_of_another_checkpoint_in_its_place_is_not_believed(source: FaultySource, cache: FetchCache) -> None:
    first = only_checkpoint(source)
    cache.fetch(source, first)
    add_weights(source.root, 1000, iteration=2)
    second = checkpoints_of(source)[1]
    cache.index.path_of(first).replace(cache.index.path_of(second))
    assert cache.fetch(source, second).weights.stat().st_size == 1000


def test_a_broken_transfer_is_continued_by_the_next_fetch(source: FaultySource, cache: FetchCache) -> None:
    source.breaks = [(50_000, RESET)] * 3
    with pytest.raises(CheckpointError, match="150000 of 300000 bytes kept"):
        cache.fetch(source, only_checkpoint(source))
    assert [path.stat().st_size for path in parts(cache)] == [150_000]
    seen: list[tuple[int, int]] = []
    cache.fetch(source, only_checkpoint(source), lambda here, total: seen.append((here, total)))
    assert seen[0] == (150_000, SIZE)
    assert source.read_bytes == SIZE
    assert parts(cache) == []


def test_a_part_is_never_continued_with_another_version(source: FaultySource, cache: FetchCache) -> None:
    source.breaks = [(50_000, RESET)] * 3
    with pytest.raises(CheckpointError):
        cache.fetch(source, only_checkpoint(source))
    weights_path(source).write_bytes(bytes(SIZE))
    assert cache.fetch(source, only_checkpoint(source)).weights.read_bytes() == bytes(SIZE)


def test_the_part_of_a_version_that_is_no_more_is_removed(source: FaultySource, cache: FetchCache) -> None:
    checkpoint, path = only_checkpoint(source), weights_path(source)
    source.at_byte = {100_000: lambda: path.write_bytes(b"new")}
    source.breaks = [(100_000, RESET)]
    with pytest.raises(CheckpointChangedError):
        cache.fetch(source, checkpoint)
    assert parts(cache) == []


def test_a_file_that_changed_after_discovery_is_refused(source: FaultySource, cache: FetchCache) -> None:
    checkpoint = only_checkpoint(source)
    weights_path(source).write_bytes(b"other")
    with pytest.raises(CheckpointError, match="changed since it was discovered"):
        cache.fetch(source, checkpoint)


def test_a_file_larger_than_the_limit_is_refused(source: FaultySource, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"limits\.adapter_bytes"):
        cache_in(tmp_path / "cache", largest_bytes=10).fetch(source, only_checkpoint(source))


def test_a_missing_or_bloated_configuration_is_refused(source: FaultySource, cache: FetchCache) -> None:
    config = weights_path(source).with_name("adapter_config.json")
    config.write_bytes(b" " * (2**20 + 1))
    with pytest.raises(CheckpointError, match="not what mlx-lm writes"):
        cache.fetch(source, only_checkpoint(source))
    config.unlink()
    with pytest.raises(CheckpointError, match=r"adapter_config\.json"):
        cache.fetch(source, only_checkpoint(source))


def test_nothing_outside_the_source_is_read(source: FaultySource) -> None:
    for path in ("../outside", "adapters-1b/../../outside", "/etc/passwd"):
        with pytest.raises(CheckpointError, match="source mac"):
            source.open(path)


def test_a_disk_without_space_is_told_before_anything_is_copied(tmp_path: Path, small_disk: Path) -> None:
    add_weights(tmp_path / "big", 3 * 2**20)
    source = FaultySource("big", tmp_path / "big")
    with pytest.raises(StoreFullError, match=r"needs 3\.1 MB on the disk of .* has 1\.0 MB free\. Free 2\.\d MB there"):
        cache_in(small_disk).fetch(source, only_checkpoint(source))
    assert source.opened == []
    assert parts(cache_in(small_disk)) == []


def test_a_full_disk_is_cleared_of_what_was_used_least_recently(tmp_path: Path, small_disk: Path) -> None:
    for iteration in (1, 2, 3):
        add_weights(tmp_path / "mac", 400_000, iteration=iteration)
    source = LocalFolder("mac", tmp_path / "mac")
    cache = cache_in(small_disk)
    paths = []
    for checkpoint in checkpoints_of(source):
        files = cache.fetch(source, checkpoint)
        files.release()
        paths.append(files.weights)
        time.sleep(0.01)
    assert [path.exists() for path in paths] == [False, True, True]

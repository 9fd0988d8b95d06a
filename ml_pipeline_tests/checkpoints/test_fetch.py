"""Fetching into the cache: verified, content-addressed, resumable, once for several processes, and bounded."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ml_pipeline.checkpoints.cache_room import CacheRoom
from ml_pipeline.checkpoints.fetch import FetchCache
from ml_pipeline.checkpoints.source import LocalFolder
from ml_pipeline.errors import CheckpointChangedError, CheckpointError, StoreFullError
from ml_pipeline_tests.checkpoints.sources import FaultySource, add_weights, checkpoints_of, only_checkpoint
from ml_pipeline_tests.stores.processes import background_python, run_python

SIZE = 300_000
RESET = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


@pytest.fixture
def source(tmp_path: Path) -> FaultySource:
    add_weights(tmp_path / "mac", SIZE)
    return FaultySource("mac", tmp_path / "mac")


@pytest.fixture
def cache(tmp_path: Path) -> FetchCache:
    return cache_in(tmp_path / "cache")


def cache_in(folder: Path, largest_bytes: int = 10**7) -> FetchCache:
    return FetchCache(CacheRoom(folder, 10**9), largest_bytes, waits_s=(0, 0))


def parts(cache: FetchCache) -> list[Path]:
    return list((cache.folder / "parts").glob("*"))


def weights_path(source: FaultySource) -> Path:
    return source.root / only_checkpoint(source).file


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


FETCH = """
import sys, time
from pathlib import Path
from ml_pipeline.checkpoints.cache_room import CacheRoom
from ml_pipeline.checkpoints.fetch import FetchCache
from ml_pipeline.checkpoints.source import LocalFolder
from ml_pipeline_tests.checkpoints.sources import FaultySource, only_checkpoint
def hang():
    while sum(path.stat().st_size for path in Path(sys.argv[2]).rglob("*.part")) < 50_000:
        time.sleep(0.01)
    print("half", flush=True)
    time.sleep(float(sys.argv[3]))
source = FaultySource("mac", Path(sys.argv[1]), [(100_000, OSError(5, "broken"))])
source.at_byte = {100_000: hang}
FetchCache(CacheRoom(Path(sys.argv[2]), 10**9), 10**7, waits_s=(0,)).fetch(source, only_checkpoint(source))
print(source.read_bytes, flush=True)
"""


def test_a_process_killed_in_the_middle_loses_nothing(source: FaultySource, cache: FetchCache, tmp_path: Path) -> None:
    with background_python(FETCH, source.root, tmp_path / "cache", 60) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert [path.stat().st_size for path in parts(cache)] == [50_000]  # what it had been given
    cache.fetch(source, only_checkpoint(source))
    assert source.read_bytes == SIZE - 50_000


def test_a_second_process_waits_and_takes_the_result(source: FaultySource, cache: FetchCache, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with background_python(FETCH, source.root, tmp_path / "cache", 0.5) as process:
        files = cache.fetch(source, only_checkpoint(source), lambda here, total: seen.append((here, total)))
        output, errors = process.communicate(timeout=20)
    assert output == f"{SIZE}\n", errors
    assert files.weights.read_bytes() == weights_path(source).read_bytes()
    assert source.read_bytes == 0
    assert seen, "it showed how far the other one is"
    assert parts(cache) == []


def test_a_second_process_goes_on_when_the_first_dies(source: FaultySource, cache: FetchCache, tmp_path: Path) -> None:
    with background_python(FETCH, source.root, tmp_path / "cache", 60) as process:
        cache.fetch(source, only_checkpoint(source), lambda here, total: process.kill())
    assert 0 < source.read_bytes < SIZE


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


DIE_WHILE_PUBLISHING = """
import os, sys
from pathlib import Path
from ml_pipeline.checkpoints import fetch
from ml_pipeline.checkpoints.cache_room import CacheRoom
from ml_pipeline.checkpoints.source import LocalFolder
from ml_pipeline_tests.checkpoints.sources import only_checkpoint
fetch._put = lambda *arguments, **options: os._exit(9)
source = LocalFolder("mac", Path(sys.argv[1]))
fetch.FetchCache(CacheRoom(Path(sys.argv[2]), 10**9), 10**7).fetch(source, only_checkpoint(source))
"""


def test_a_process_that_dies_while_it_publishes_leaves_a_part_that_is_taken(
    source: FaultySource, cache: FetchCache, tmp_path: Path
) -> None:
    assert run_python(DIE_WHILE_PUBLISHING, source.root, tmp_path / "cache").returncode == 9
    assert [path.stat().st_size for path in parts(cache)] == [SIZE]
    files = cache.fetch(source, only_checkpoint(source))
    assert files.weights.read_bytes() == weights_path(source).read_bytes()
    assert source.read_bytes == 0


FETCH_MANY = """
import hashlib, random, sys
from pathlib import Path
from ml_pipeline.checkpoints.cache_room import CacheRoom
from ml_pipeline.checkpoints.fetch import FetchCache
from ml_pipeline.checkpoints.source import LocalFolder
from ml_pipeline_tests.checkpoints.sources import checkpoints_of
source = LocalFolder("mac", Path(sys.argv[1]))
checkpoints = checkpoints_of(source)
chance = random.Random(sys.argv[3])
cache = FetchCache(CacheRoom(Path(sys.argv[2]), 250_000), 10**7, waits_s=())
print("ready", flush=True)
for _ in range(40):
    checkpoint = chance.choice(checkpoints)
    files = cache.fetch(source, checkpoint)
    for _ in range(3):
        content = files.weights.read_bytes()
        assert content == (source.root / checkpoint.file).read_bytes()
        assert files.weights.name.startswith(hashlib.sha256(content).hexdigest())
        assert files.config.read_bytes() == b"{}"
    files.release()
"""


def test_processes_that_push_each_others_files_out_never_lose_what_they_use(tmp_path: Path) -> None:
    for iteration in range(1, 5):
        add_weights(tmp_path / "mac", 100_000, iteration=iteration)
    with (
        background_python(FETCH_MANY, tmp_path / "mac", tmp_path / "cache", 1) as one,
        background_python(FETCH_MANY, tmp_path / "mac", tmp_path / "cache", 2) as two,
        background_python(FETCH_MANY, tmp_path / "mac", tmp_path / "cache", 3) as three,
    ):
        for process in (one, two, three):
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    room = CacheRoom(tmp_path / "cache", 250_000)
    cache = FetchCache(room, 10**7)
    room.make_room(0, "test")
    assert sum(path.stat().st_size for path in cache.folder.rglob("*") if path.is_file()) <= 250_000
    assert parts(cache) == []

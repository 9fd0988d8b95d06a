"""Several processes and one cache: killed in the middle, waiting for each other, pushing each other's files out."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from ml_pipeline.checkpoints.cache_room import CacheRoom
from ml_pipeline.checkpoints.fetch import FetchCache
from ml_pipeline_tests.checkpoints.sources import (
    FaultySource,
    add_weights,
    cache_in,
    only_checkpoint,
    parts,
    weights_path,
)
from ml_pipeline_tests.stores.processes import background_python, run_python

SIZE = 300_000


@pytest.fixture
def source(tmp_path: Path) -> FaultySource:
    add_weights(tmp_path / "mac", SIZE)
    return FaultySource("mac", tmp_path / "mac")


@pytest.fixture
def cache(tmp_path: Path) -> FetchCache:
    return cache_in(tmp_path / "cache")


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

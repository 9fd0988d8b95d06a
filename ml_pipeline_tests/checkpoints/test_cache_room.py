"""What goes when the caches are full: the least recently used, whole, and never what is in use."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path

import pytest

from ml_pipeline.checkpoints.cache_room import CacheRoom, Kept
from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.checkpoints.fetch import FetchCache
from ml_pipeline.checkpoints.source import LocalFolder
from ml_pipeline.files import modified_ns
from ml_pipeline_tests.checkpoints.sources import add_weights, checkpoints_of
from ml_pipeline_tests.stores.processes import background_python

SIZE = 100_000


@pytest.fixture
def source(tmp_path: Path) -> LocalFolder:
    for iteration in range(1, 6):
        add_weights(tmp_path / "mac", SIZE, iteration=iteration)
    return LocalFolder("mac", tmp_path / "mac")


def cache_with(folder: Path, limit_bytes: int) -> FetchCache:
    return FetchCache(CacheRoom(folder, limit_bytes), 10**7)


def use(cache: FetchCache, source: LocalFolder, checkpoint: Checkpoint, used_s: int) -> Path:
    """Fetch it, let it go, and set the time at which it was used."""
    files = cache.fetch(source, checkpoint)
    files.release()
    os.utime(cache.index.path_of(checkpoint), (used_s, used_s))
    return files.weights


def test_the_least_recently_used_goes_first_with_all_that_belongs_to_it(source: LocalFolder, tmp_path: Path) -> None:
    one, two, three, four, _ = checkpoints_of(source)
    cache = cache_with(tmp_path / "cache", 3 * SIZE + 10_000)
    paths = {c.iteration: use(cache, source, c, used_s=100 + c.iteration) for c in (one, two, three)}
    use(cache, source, one, used_s=200)
    paths[4] = use(cache, source, four, used_s=201)
    assert {n for n, path in paths.items() if path.exists()} == {1, 3, 4}
    assert not cache.index.path_of(two).exists()
    configs = list(cache.folder.glob("*.json"))
    assert len(configs) == 1, "all share one configuration, which stays for as long as one of them does"


def test_the_last_user_takes_the_shared_configuration_along(source: LocalFolder, tmp_path: Path) -> None:
    one = checkpoints_of(source)[0]
    cache = cache_with(tmp_path / "cache", 10**9)
    use(cache, source, one, used_s=100)
    room = CacheRoom(tmp_path / "cache", 0)
    again = FetchCache(room, 10**7)
    room.make_room(0, "test")
    assert [path for path in again.folder.rglob("*") if path.is_file()] == []


def test_what_is_in_use_stays_and_the_limit_gives_way(source: LocalFolder, tmp_path: Path) -> None:
    one, two, three, *_ = checkpoints_of(source)
    cache = cache_with(tmp_path / "cache", SIZE)
    first = cache.fetch(source, one)
    second = cache.fetch(source, two)
    assert first.weights.exists()
    first.release()
    third = cache.fetch(source, three)
    assert [files.weights.exists() for files in (first, second, third)] == [False, True, True]
    assert all(files.config.exists() for files in (second, third))


def test_files_that_nobody_refers_to_any_more_may_go(source: LocalFolder, tmp_path: Path) -> None:
    one, two, *_ = checkpoints_of(source)
    cache = cache_with(tmp_path / "cache", SIZE)
    path = cache.fetch(source, one).weights
    gc.collect()
    cache.fetch(source, two)
    assert not path.exists()


HOLD = """
import sys
from pathlib import Path
from ml_pipeline.checkpoints.cache_room import CacheRoom
lease = CacheRoom(Path(sys.argv[1]), 10**9).hold(Path(sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
"""


def test_what_another_process_uses_stays_until_that_one_ends(source: LocalFolder, tmp_path: Path) -> None:
    one, two, three, *_ = checkpoints_of(source)
    cache = cache_with(tmp_path / "cache", SIZE)
    path = use(cache, source, one, used_s=100)
    with background_python(HOLD, tmp_path / "cache", path):
        use(cache, source, two, used_s=101)
        assert path.exists()
    use(cache, source, three, used_s=102)
    assert not path.exists()


def test_what_is_gone_cannot_be_held(tmp_path: Path) -> None:
    room = CacheRoom(tmp_path, 10)
    (tmp_path / "there").write_text("x")
    assert room.hold(tmp_path / "there", tmp_path / "gone") is None
    assert room.hold(tmp_path / "there") is not None


def test_parts_and_strays_count_and_go_in_their_turn(source: LocalFolder, tmp_path: Path) -> None:
    one, two, *_ = checkpoints_of(source)
    cache = cache_with(tmp_path / "cache", 2 * SIZE + 10_000)
    now_s = int(time.time())
    kept = use(cache, source, one, used_s=now_s - 100)
    (cache.folder / "parts").mkdir(exist_ok=True)
    old, stray = cache.folder / "parts" / "abandoned.part", cache.folder / "stray.safetensors"
    writing = cache.folder / ".being-written.tmp"
    for path, used_s in ((old, now_s - 300), (stray, now_s - 200), (writing, now_s - 400)):
        path.write_bytes(bytes(SIZE // 2))
        os.utime(path, (used_s, used_s))
    use(cache, source, two, used_s=now_s)
    assert not old.exists()
    assert not stray.exists()
    assert kept.exists()
    assert writing.exists()


def test_all_caches_of_a_room_are_one_queue(source: LocalFolder, tmp_path: Path) -> None:
    one, two, *_ = checkpoints_of(source)
    room = CacheRoom(tmp_path / "cache", 2 * SIZE + 10_000)
    cache = FetchCache(room, 10**7)
    fetched = use(cache, source, one, used_s=100)
    other = tmp_path / "cache" / "other"
    other.mkdir()
    made = other / "a.gguf"
    made.write_bytes(bytes(SIZE))
    os.utime(made, (99, 99))
    room.add_shelf(other, lambda: [Kept(modified_ns(made), made)])
    use(cache, source, two, used_s=101)
    assert not made.exists()
    assert fetched.exists()

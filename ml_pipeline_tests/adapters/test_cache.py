"""The cache of converted adapters, and the writing of whole files that it rests on."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ml_pipeline.adapters.adapter import Adapter
from ml_pipeline.adapters.cache import ConvertedCache
from ml_pipeline.adapters.read import read_adapter
from ml_pipeline.checkpoints.cache_room import CacheRoom
from ml_pipeline.errors import BackendError, StoreError, StoreFullError
from ml_pipeline_tests.adapters.tiny_models import TinyModel, save_adapter


@pytest.fixture
def adapter(tmp_path: Path, llama_base: TinyModel) -> Adapter:
    saved = save_adapter(llama_base, tmp_path / "adapter")
    return read_adapter(saved.weights, saved.config)


def inode_and_times(path: Path) -> tuple[int, int]:
    return path.stat().st_ino, path.stat().st_mtime_ns


def test_converts_once(tmp_path: Path, adapter: Adapter, llama_base: TinyModel) -> None:
    cache = ConvertedCache(tmp_path / "deep" / "cache")
    first = cache.converted(adapter, llama_base.gguf_path)
    before = inode_and_times(first)
    assert cache.converted(adapter, llama_base.gguf_path) == first
    assert ConvertedCache(cache.folder).converted(adapter, llama_base.gguf_path) == first
    assert inode_and_times(first) == before
    assert sorted(path.suffix for path in cache.folder.iterdir()) == [".gguf", ".json"]


def test_a_copy_of_the_base_elsewhere_is_the_same_base(tmp_path: Path, adapter: Adapter, llama_base: TinyModel) -> None:
    cache = ConvertedCache(tmp_path / "cache")
    copy = shutil.copy(llama_base.gguf_path, tmp_path / "copy.gguf")
    assert cache.converted(adapter, Path(copy)) == cache.converted(adapter, llama_base.gguf_path)


def test_other_adapters_and_bases_have_other_files(tmp_path: Path) -> None:
    cache = ConvertedCache(tmp_path)
    paths = {cache.path_of(a, b) for a in ("a" * 64, "b" * 64) for b in ("a" * 64, "b" * 64)}
    assert len(paths) == 4


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def spoil_receipt(path: Path) -> None:
    path.with_suffix(".json").write_text("{")


def receipt_of_another(path: Path) -> None:
    receipt = path.with_suffix(".json")
    receipt.write_text(json.dumps(json.loads(receipt.read_text()) | {"adapter_sha256": "0" * 64}))


def remove_receipt(path: Path) -> None:
    path.with_suffix(".json").unlink()


@pytest.mark.parametrize(
    "damage", [truncate, flip_a_byte, Path.unlink, spoil_receipt, receipt_of_another, remove_receipt]
)
def test_a_damaged_entry_is_made_again(
    tmp_path: Path, adapter: Adapter, llama_base: TinyModel, damage: Callable[[Path], None]
) -> None:
    cache = ConvertedCache(tmp_path / "cache")
    path = cache.converted(adapter, llama_base.gguf_path)
    good, receipt = path.read_bytes(), path.with_suffix(".json").read_bytes()
    damage(path)
    assert cache.converted(adapter, llama_base.gguf_path) == path
    assert path.read_bytes() == good
    assert path.with_suffix(".json").read_bytes() == receipt


def convert_many_times(folder: Path, adapter: Adapter, base: Path, times: int) -> None:
    for _ in range(times):
        path = ConvertedCache(folder).converted(adapter, base)
        if path.stat().st_size < adapter.size_bytes // 2:
            raise AssertionError("saw half a file")
        path.with_suffix(".json").unlink(missing_ok=True)


def test_processes_at_once(tmp_path: Path, adapter: Adapter, llama_base: TinyModel) -> None:
    """Each process keeps taking the receipt away, so that all of them keep converting into the same place."""
    folder = tmp_path / "cache"
    spawn = multiprocessing.get_context("spawn")
    workers = [
        spawn.Process(target=convert_many_times, args=(folder, adapter, llama_base.gguf_path, 10)) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    final = ConvertedCache(folder).converted(adapter, llama_base.gguf_path)
    reference = ConvertedCache(tmp_path / "alone").converted(adapter, llama_base.gguf_path)
    assert final.read_bytes() == reference.read_bytes()
    assert not list(folder.glob(".*"))


def test_leftovers_of_killed_processes_go_after_a_day(tmp_path: Path, adapter: Adapter, llama_base: TinyModel) -> None:
    cache = ConvertedCache(tmp_path / "cache")
    cache.folder.mkdir()
    old, new = cache.folder / ".old.gguf.1.tmp", cache.folder / ".new.gguf.2.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    cache.converted(adapter, llama_base.gguf_path)
    assert not old.exists()
    assert new.exists()


def test_in_a_room_the_least_recently_used_goes(tmp_path: Path, llama_base: TinyModel) -> None:
    adapters = []
    for seed in (1, 2, 3):
        saved = save_adapter(llama_base, tmp_path / f"adapter{seed}", strength=seed / 10)
        adapters.append(read_adapter(saved.weights, saved.config))
    size_bytes = ConvertedCache(tmp_path / "alone").converted(adapters[0], llama_base.gguf_path).stat().st_size
    room = CacheRoom(tmp_path / "room", 2 * size_bytes + adapters[0].size_bytes + 4096)
    cache = ConvertedCache(tmp_path / "room" / "converted", room)
    paths = []
    for age_s, adapter in zip((30, 20), adapters[:2], strict=True):
        paths.append(cache.converted(adapter, llama_base.gguf_path))
        os.utime(paths[-1].with_suffix(".json"), (time.time() - age_s,) * 2)
    cache.converted(adapters[0], llama_base.gguf_path)
    room.limit_bytes = size_bytes + adapters[0].size_bytes + 4096
    paths.append(cache.converted(adapters[2], llama_base.gguf_path))
    assert [path.exists() for path in paths] == [True, False, True]
    assert not paths[1].with_suffix(".json").exists()


def test_a_missing_base(tmp_path: Path, adapter: Adapter) -> None:
    with pytest.raises(BackendError, match="the base model cannot be read"):
        ConvertedCache(tmp_path / "cache").converted(adapter, tmp_path / "none.gguf")


@pytest.mark.parametrize(("code", "error"), [(errno.ENOSPC, StoreFullError), (errno.EDQUOT, StoreFullError)])
def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path,
    adapter: Adapter,
    llama_base: TinyModel,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    error: type[StoreError],
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    cache = ConvertedCache(tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(error, match=r"Free space on that disk"):
            cache.converted(adapter, llama_base.gguf_path)
    assert list(cache.folder.iterdir()) == []
    assert cache.converted(adapter, llama_base.gguf_path).exists()

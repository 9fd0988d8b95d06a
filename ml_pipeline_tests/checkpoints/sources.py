"""Sources made by tests: run folders with weights of any size, and one that breaks off where it is told to."""

from __future__ import annotations

import io
import os
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from ml_pipeline.checkpoints.cache_room import CacheRoom
from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.checkpoints.discovery import discover
from ml_pipeline.checkpoints.fetch import FetchCache
from ml_pipeline.checkpoints.source import LocalFolder, Source

RUN = "adapters-1b"
_BLOCK_BYTES = 50_000


def add_weights(root: Path, size_bytes: int, *, iteration: int = 1, run: str = RUN) -> bytes:
    """Weights that are only bytes, for whoever never looks into them, and their configuration; returns the weights."""
    content = random.Random(f"{run} {iteration} {size_bytes}").randbytes(size_bytes)
    folder = root / run
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{iteration:07d}_adapters.safetensors").write_bytes(content)
    (folder / "adapter_config.json").write_text("{}")
    os.utime(folder / f"{iteration:07d}_adapters.safetensors", ns=(iteration * 10**9, iteration * 10**9))
    os.utime(folder / "adapter_config.json", ns=(10**9, 10**9))
    return content


def checkpoints_of(source: Source) -> list[Checkpoint]:
    """Every checkpoint that lies in the source now."""
    return discover(source, (), now_ns=10**19, settle_s=0).checkpoints


def only_checkpoint(source: Source) -> Checkpoint:
    """The one checkpoint of the source."""
    (checkpoint,) = checkpoints_of(source)
    return checkpoint


def cache_in(folder: Path, largest_bytes: int = 10**7) -> FetchCache:
    """A cache with room for everything that takes a broken transfer up twice, at once."""
    return FetchCache(CacheRoom(folder, 10**9), largest_bytes, waits_s=(0, 0))


def parts(cache: FetchCache) -> list[Path]:
    """What broke off."""
    return list((cache.folder / "parts").glob("*"))


def weights_path(source: LocalFolder) -> Path:
    """Where the weights of the one checkpoint lie."""
    return source.root / only_checkpoint(source).file


class FaultySource(LocalFolder):
    """A local folder whose connection breaks.

    `breaks` says after how many bytes each opening of a weights file breaks, in turn, and with what (None: it just
    ends); afterwards it holds. A read gives 50,000 bytes at most. `opened` lists the offsets at which weights were
    opened, `read_bytes` counts what was read of them, `at_byte` says what happens when so many were.
    """

    def __init__(self, name: str, root: Path, breaks: Sequence[tuple[int, Exception | None]] = ()) -> None:
        super().__init__(name, root)
        self.breaks = list(breaks)
        self.opened: list[int] = []
        self.read_bytes = 0
        self.at_byte: dict[int, Callable[[], object]] = {}

    def open(self, path: str, offset: int = 0) -> BinaryIO:
        opened = super().open(path, offset)
        if not path.endswith(".safetensors"):
            return opened
        self.opened.append(offset)
        limit, error = self.breaks.pop(0) if self.breaks else (sys.maxsize, None)
        return cast(BinaryIO, _Breaking(self, opened, limit, error))


class _Breaking(io.RawIOBase):
    def __init__(self, source: FaultySource, inner: BinaryIO, limit: int, error: Exception | None) -> None:
        self._source, self._inner, self._left, self._error = source, inner, limit, error

    def read(self, size: int = -1) -> Any:
        if self._left == 0 and self._error is not None:
            raise self._error
        chunk = self._inner.read(min(size, self._left, _BLOCK_BYTES))
        self._left -= len(chunk)
        self._source.read_bytes += len(chunk)
        for place in [place for place in self._source.at_byte if place <= self._source.read_bytes]:
            self._source.at_byte.pop(place)()
        return chunk

    def close(self) -> None:
        self._inner.close()
        super().close()

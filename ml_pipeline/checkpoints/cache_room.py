"""The room that caches share on this machine's disk: its limit, who uses what, and what goes first when it is full."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ml_pipeline.checkpoints.leases import Lease, is_held, lease
from ml_pipeline.errors import StoreFullError
from ml_pipeline.files import is_temporary, lock_file, make_folder, modified_ns, store_errors

_LOCK_FILE = ".room.lock"


@dataclass(frozen=True, slots=True)
class Kept:
    """What a cache keeps and gives up as a whole.

    `used_ns` is when it was used last, in nanoseconds since 1970. `main` is the file that its users hold; `others`
    belong to it and may belong to further ones too: such a file goes with the last of them.
    """

    used_ns: int
    main: Path
    others: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """All files, the ones that say that the main file is good first."""
        return (*self.others, self.main)


class CacheRoom:
    """Several caches below one folder that together stay under `limit_bytes`.

    Least recently used goes first. What a running fetch or score uses is never removed, so that the limit may be
    exceeded by that much. Any number of processes may share the folder.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self._shelves: dict[Path, Callable[[], Iterable[Kept]]] = {}

    def add_shelf(self, folder: Path, kept: Callable[[], Iterable[Kept]]) -> None:
        """Let the cache in `folder` take part. A file there that `kept` does not name is a thing of its own."""
        self._shelves[folder] = kept

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Nobody else publishes, leases or removes files of the room during the body, which must be short.

        Raises:
            StoreFullError, StoreError: the folder cannot be used; an OSError of the body too becomes one.
        """
        with store_errors("change the cache in", self.folder):
            make_folder(self.folder)
            with os.fdopen(lock_file(self.folder / _LOCK_FILE), "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield

    def hold(self, *paths: Path) -> Lease | None:
        """Hold files against removal; None when one of them is gone already."""
        with self.changing():
            return lease(paths)

    def make_room(self, needed_bytes: int, what: str) -> None:
        """Remove what was used least recently until `needed_bytes` more fit under the limit and on the disk.

        `what` is what they are needed for, for the message.

        Raises:
            StoreFullError: the disk has too little space even so.
            StoreError: files cannot be read or removed.
        """
        with self.changing():
            sizes = {path: size for folder in self._shelves for path, size in _sizes(folder)}
            total, free = sum(sizes.values()), shutil.disk_usage(self.folder).free
            goal = min(self.limit_bytes, total + free) - needed_bytes
            if total > goal:
                self._shrink(sizes, total - goal)
                free = shutil.disk_usage(self.folder).free
        if free < needed_bytes:
            raise StoreFullError(
                f"{what} needs {_mb(needed_bytes)} on the disk of {self.folder}, which has {_mb(free)} free. Free "
                f"{_mb(needed_bytes - free)} there or set data_dir in pipeline.yaml to a larger disk, then run again: "
                "it goes on where it stopped. Nothing more can be removed from the cache, since the rest is in use."
            )

    def _shrink(self, sizes: dict[Path, int], surplus_bytes: int) -> None:
        things = [kept for shelf in self._shelves.values() for kept in shelf()]
        named = {path for thing in things for path in thing.files}
        things += [Kept(modified_ns(path), path) for path in sizes if path not in named]
        claims = Counter(path for thing in things for path in thing.files)
        for thing in sorted(things, key=lambda kept: kept.used_ns):
            if surplus_bytes <= 0:
                return
            if is_held(thing.main):
                continue
            for path in thing.files:
                claims[path] -= 1
                if not claims[path] and not is_held(path):
                    path.unlink(missing_ok=True)
                    surplus_bytes -= sizes.get(path, 0)


def _sizes(folder: Path) -> Iterator[tuple[Path, int]]:
    """Every file below `folder` that is whole or can be continued, and its size."""
    for path in folder.rglob("*"):
        try:
            info = path.lstat()
        except FileNotFoundError:
            continue
        if stat.S_ISREG(info.st_mode) and not is_temporary(path):
            yield path, info.st_size


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"

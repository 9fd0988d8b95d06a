"""A durable buffer before InfluxDB: points wait here in files until the server has acknowledged them.

    <folder>/<partition key>~<batch>.lp               line protocol that waits
    <folder>/rejected/<partition key>~<batch>.lp      lines that the server will never take,
    <folder>/rejected/<partition key>~<batch>.txt     and what it said

Any number of processes may add and flush at once. Sending a batch twice is harmless, because a point's time is a pure
function of its checkpoint.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from ml_pipeline.errors import StoreError, StoreFullError
from ml_pipeline.files import (
    fsync,
    make_folder,
    remove_leftovers,
    store_errors,
    write_atomically,
    write_temporary,
)
from ml_pipeline.stores.rows import check_partition_key

_SUFFIX = ".lp"
_BATCH_NAME = re.compile(r"[A-Za-z0-9._=@+~-]+")
_MAX_NAME = 220
_LINES_PER_REQUEST = 5000
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of sending lines: written; rejected (they never will be); unavailable (try again later); and why."""

    kind: Literal["written", "rejected", "unavailable"]
    reason: str = ""


class LineSender(Protocol):
    """Sends line protocol to a server."""

    def send(self, lines: Sequence[str]) -> Answer:
        """Send the lines in one request, within a time-out, and say what came of it; never raises for the network."""


@dataclass(frozen=True, slots=True)
class Pending:
    """What waits in the buffer."""

    batches: int
    points: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """Lines of one batch that the server will never take, its reasons, and the file that keeps them."""

    batch: str
    lines: int
    reason: str
    path: Path


@dataclass(frozen=True, slots=True)
class FlushReport:
    """What a flush did. `stopped_because` is empty when nothing kept it from trying every batch."""

    sent_batches: int
    sent_points: int
    remaining: Pending
    rejected: tuple[Rejected, ...]
    stopped_because: str


@dataclass(frozen=True, slots=True)
class _Batch:
    path: Path
    content: bytes

    @property
    def lines(self) -> list[str]:
        return self.content.decode().splitlines()


class InfluxBuffer:
    """The buffer in one folder, of at most `max_bytes` of waiting lines."""

    def __init__(self, folder: Path, max_bytes: int = 256 * 1024 * 1024) -> None:
        self.folder = folder
        self.max_bytes = max_bytes

    def add(self, partition_key: str, batch: str, lines: Sequence[str]) -> None:
        """Keep lines durably until a flush has delivered them; a waiting batch of that name is replaced.

        No lines remove a waiting batch: what it held is no longer so.

        Raises:
            StoreFullError: the buffer's limit or the disk is reached. Nothing was dropped, nothing added.
            StoreError: the folder cannot be written, or a name or a line is not fit for a file.
        """
        path = self._path(partition_key, batch)
        if not lines:
            with self._locked(), store_errors("remove", path):
                path.unlink(missing_ok=True)
            return
        broken = [line for line in lines if not line or "\n" in line or "\r" in line]
        if broken:
            raise StoreError(f"batch {path.name}: not a line of line protocol: {broken[0]!r}. Use ScorePoint.line().")
        data = ("\n".join(lines) + "\n").encode()
        with store_errors("write", path):
            temporary = write_temporary(path, data)
            try:
                with self._locked():
                    self._check_room(path, len(data))
                    temporary.replace(path)
                    fsync(self.folder)
            finally:
                temporary.unlink(missing_ok=True)

    def pending(self) -> Pending:
        """What waits, rejected lines not counted."""
        batches = [batch for path in self._paths() if (batch := _load(path))]
        return Pending(len(batches), sum(len(b.lines) for b in batches), sum(len(b.content) for b in batches))

    def lines(self) -> Iterator[str]:
        """Every waiting line, oldest batch first."""
        for path in self._paths():
            if batch := _load(path):
                yield from batch.lines

    def flush(self, sender: LineSender, progress: Progress | None = None) -> FlushReport:
        """Send what waits, oldest first, and remove what the server acknowledged.

        Lines that it rejects are moved to `rejected` with its reason and hold nothing else up. When it is not
        available, everything that is left stays, and `stopped_because` says why. `progress` is called with the
        batches done and the batches in all.

        Raises:
            StoreError, StoreFullError: a file in the buffer cannot be read, moved or removed. Nothing is lost.
        """
        if self.folder.exists():
            remove_leftovers(self.folder)
        paths = self._paths()
        sent_batches = sent_points = done = 0
        rejected: list[Rejected] = []
        stopped = ""
        for group in _groups(paths):
            bad, stopped = _send(sender, [line for batch in group for line in batch.lines])
            if stopped:
                break
            for batch in group:
                refused = [line for line in batch.lines if line in bad]
                if refused:
                    rejected.append(self._reject(batch, refused, bad))
                self._remove(batch)
                sent_points += len(batch.lines) - len(refused)
                sent_batches += not refused
            done += len(group)
            if progress:
                progress(done, len(paths))
        return FlushReport(sent_batches, sent_points, self.pending(), tuple(rejected), stopped)

    def _path(self, partition_key: str, batch: str) -> Path:
        check_partition_key(partition_key)
        if not _BATCH_NAME.fullmatch(batch):
            raise StoreError(f"{batch!r} cannot name a batch: use letters, digits and `._=@+~-`.")
        name = f"{partition_key}~{batch}"
        if len(name) > _MAX_NAME:
            name = f"{name[: _MAX_NAME - 17]}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        return self.folder / f"{name}{_SUFFIX}"

    def _paths(self) -> list[Path]:
        """Waiting batches, oldest first."""
        if not self.folder.exists():
            return []
        found = []
        with store_errors("list", self.folder), os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.endswith(_SUFFIX) and not entry.name.startswith("."):
                    with suppress(FileNotFoundError):
                        found.append((entry.stat().st_mtime_ns, entry.name))
        return [self.folder / name for _, name in sorted(found)]

    def _check_room(self, path: Path, size: int) -> None:
        waiting = sum(_size(other) for other in self._paths() if other != path)
        if waiting + size > self.max_bytes:
            raise StoreFullError(
                f"the Influx buffer {self.folder} holds {waiting:,} bytes; {size:,} more would pass its limit of "
                f"{self.max_bytes:,}. Nothing was dropped. Let the server take the points (check stores.influx.url "
                "and the token, then `ml-pipeline flush`), or raise the limit."
            )

    def _remove(self, batch: _Batch) -> None:
        """Remove a batch that was dealt with, unless it was replaced while it was being sent."""
        with self._locked(), store_errors("remove", batch.path), suppress(FileNotFoundError):
            if batch.path.read_bytes() == batch.content:
                batch.path.unlink()

    def _reject(self, batch: _Batch, lines: Sequence[str], reasons: dict[str, str]) -> Rejected:
        target = self.folder / "rejected" / batch.path.name
        reason = "\n".join(dict.fromkeys(reasons[line] for line in lines))
        write_atomically(target.with_suffix(".txt"), f"{reason}\n".encode())
        write_atomically(target, ("\n".join(lines) + "\n").encode())
        return Rejected(batch.path.stem, len(lines), reason, target)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the folder for a rename or a removal, so that nobody replaces a file between look and removal."""
        with store_errors("lock", self.folder):
            make_folder(self.folder)
            descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _groups(paths: Sequence[Path]) -> Iterator[list[_Batch]]:
    """Batches together up to about a request's size: a thousand checkpoints are not four thousand requests."""
    group: list[_Batch] = []
    lines = 0
    for path in paths:
        batch = _load(path)
        if batch is None:
            continue
        if group and lines + len(batch.lines) > _LINES_PER_REQUEST:
            yield group
            group, lines = [], 0
        group.append(batch)
        lines += len(batch.lines)
    if group:
        yield group


def _send(sender: LineSender, lines: list[str]) -> tuple[dict[str, str], str]:
    """Send lines, halving what is rejected until the bad lines stand alone: (reason by bad line, why it stopped)."""
    answer = sender.send(lines)
    if answer.kind == "unavailable":
        return {}, answer.reason or "the server is not available"
    if answer.kind == "written":
        return {}, ""
    if len(lines) == 1:
        return {lines[0]: answer.reason}, ""
    middle = len(lines) // 2
    bad, stopped = _send(sender, lines[:middle])
    if stopped:
        return {}, stopped
    more, stopped = _send(sender, lines[middle:])
    return ({}, stopped) if stopped else ({**bad, **more}, "")


def _load(path: Path) -> _Batch | None:
    with store_errors("read", path):
        try:
            return _Batch(path, path.read_bytes())
        except FileNotFoundError:
            return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0

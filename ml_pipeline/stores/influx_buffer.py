"""A durable buffer before InfluxDB: points wait here in files until the server has acknowledged them.

    <folder>/<partition key>~<batch>.lp               line protocol that waits
    <folder>/rejected/<partition key>~<batch>.lp      lines that the server will never take,
    <folder>/rejected/<partition key>~<batch>.txt     and what it said
    <folder>/rejected/<partition key>~<batch>.damaged what a failing disk or a power cut left of lines

Any number of processes may add and flush at once. Sending a batch twice is harmless, because a point's time is a pure
function of its checkpoint; but they send one after another, since an older version of a batch must not reach the server
after a newer one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ml_pipeline.errors import StoreError, StoreFullError
from ml_pipeline.files import (
    fsync,
    locked_within,
    make_folder,
    remove_leftovers,
    store_errors,
    write_atomically,
    write_temporary,
)
from ml_pipeline.stores.influx_batches import Batch, Pending, counted, groups, load
from ml_pipeline.stores.influx_sending import LineSender, send_lines
from ml_pipeline.stores.rows import check_partition_key

_SUFFIX, _REASON, _DAMAGED = ".lp", ".txt", ".damaged"
_BATCH_NAME = re.compile(r"[A-Za-z0-9._=@+~-]+")
_MAX_NAME = 220
_SECONDS_BETWEEN_LOOKS = 0.5
_SENDING = ".sending"
_LONGEST_TURN_S = 20.0
"""Longest wait for another process that sends: twice a request's time-out."""
_DAMAGE = (
    "the file was damaged on this machine, by its disk or a power cut; its whole lines were dealt with. Lost points "
    "are made again by `ml-pipeline retime`, or when their partition is materialised"
)
Progress = Callable[[int, int], None]


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


class InfluxBuffer:
    """The buffer in one folder, of at most `max_bytes` of waiting lines; who adds more waits up to `max_wait_s`."""

    def __init__(self, folder: Path, max_bytes: int = 256 * 1024 * 1024, max_wait_s: float = 0) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.max_wait_s = max_wait_s

    def add(
        self,
        partition_key: str,
        batch: str,
        lines: Sequence[str],
        make_room: Callable[[], object] = lambda: None,
    ) -> None:
        """Keep lines durably until a flush has delivered them; a waiting batch of that name is replaced.

        No lines remove a waiting batch: what it held is no longer so. While the limit leaves no room, `make_room` is
        called and room is waited for.

        Raises:
            StoreFullError: the limit leaves no room after `max_wait_s`, or the disk is full. Nothing was dropped,
                nothing added.
            StoreError: the folder cannot be written, or a name or a line is not fit for a file.
        """
        path = self._path(partition_key, batch)
        if not lines:
            with self._locked(), store_errors("remove", path):
                path.unlink(missing_ok=True)
            return
        broken = [line for line in lines if not line or any(end in line for end in "\n\r\0")]
        if broken:
            raise StoreError(f"batch {path.name}: not a line of line protocol: {broken[0]!r}. Use ScorePoint.line().")
        data = ("\n".join(lines) + "\n").encode()
        with store_errors("write", path):
            temporary = write_temporary(path, data)
            try:
                give_up_at = time.monotonic() + self.max_wait_s
                while not self._take(temporary, path, len(data)):
                    if time.monotonic() >= give_up_at or len(data) > self.max_bytes:
                        raise self._full(path, len(data))
                    make_room()
                    if self._take(temporary, path, len(data)):
                        break
                    time.sleep(_SECONDS_BETWEEN_LOOKS)
            finally:
                temporary.unlink(missing_ok=True)

    def pending(self) -> Pending:
        """What waits, rejected lines not counted."""
        return counted(self._paths())

    def rejected(self) -> Pending:
        """What the server will never take as it is, kept in the folder `rejected`."""
        return counted(self._paths(self._rejected))

    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not self._paths()

    def lines(self) -> Iterator[str]:
        """Every waiting line, oldest batch first."""
        for path in self._paths():
            if batch := load(path):
                yield from batch.lines

    def flush(self, sender: LineSender, progress: Progress | None = None) -> FlushReport:
        """Send what waits, oldest first, and remove what the server acknowledged.

        Lines that it rejects, and what is left of damaged ones, are moved to `rejected` with the reason and hold
        nothing else up. When the server is not available, or another process is sending and goes on for long,
        everything that is left stays, and `stopped_because` says why. `progress` is called with the batches done and
        the batches in all.

        Raises:
            StoreError, StoreFullError: a file in the buffer cannot be read, moved or removed. Nothing is lost.
        """
        if self.is_empty():
            return FlushReport(0, 0, self.pending(), (), "")
        with locked_within(self.folder / _SENDING, _LONGEST_TURN_S) as is_our_turn:
            if not is_our_turn:
                return FlushReport(0, 0, self.pending(), (), "another process is sending what waits")
            return self._flush(sender, progress)

    def _flush(self, sender: LineSender, progress: Progress | None) -> FlushReport:
        remove_leftovers(self.folder)
        paths = self._paths()
        sent_batches = sent_points = done = 0
        rejected: list[Rejected] = []
        stopped = ""
        for group in groups(paths):
            sent = send_lines(sender, [line for batch in group for line in batch.lines])
            end = 0
            for batch in group:
                end += len(batch.lines)
                if end > sent.decided:
                    break
                refused = [line for line in batch.lines if line in sent.bad]
                rejected += self._settle(batch, refused, sent.bad)
                sent_points += len(batch.lines) - len(refused)
                sent_batches += not refused
                done += 1
            if progress:
                progress(done, len(paths))
            stopped = sent.stopped_because
            if stopped:
                break
        return FlushReport(sent_batches, sent_points, self.pending(), tuple(rejected), stopped)

    def requeue_rejected(self) -> int:
        """Let rejected lines wait again, those of a batch that waits in a newer version excepted; how many batches.

        Raises:
            StoreError: a file cannot be moved. Nothing is lost.
        """
        requeued = 0
        for path in self._paths(self._rejected):
            waiting = self.folder / path.name
            with self._locked(), store_errors("move", path), suppress(FileNotFoundError):
                if waiting.exists():
                    path.unlink()
                else:
                    path.replace(waiting)
                    fsync(self.folder)
                    requeued += 1
                path.with_suffix(_REASON).unlink(missing_ok=True)
        return requeued

    @property
    def _rejected(self) -> Path:
        return self.folder / "rejected"

    def _path(self, partition_key: str, batch: str) -> Path:
        check_partition_key(partition_key)
        if not _BATCH_NAME.fullmatch(batch):
            raise StoreError(f"{batch!r} cannot name a batch: use letters, digits and `._=@+~-`.")
        name = f"{partition_key}~{batch}"
        if len(name) > _MAX_NAME:
            name = f"{name[: _MAX_NAME - 17]}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        return self.folder / f"{name}{_SUFFIX}"

    def _paths(self, folder: Path | None = None) -> list[Path]:
        """Waiting batches, or those of another folder, oldest first."""
        folder = folder or self.folder
        return [folder / name for _, name in sorted((look.st_mtime_ns, name) for name, look in self._looks(folder))]

    @staticmethod
    def _looks(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
        """Name and state of every batch in a folder, in no order."""
        if not folder.exists():
            return
        with store_errors("list", folder), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(_SUFFIX) and not entry.name.startswith("."):
                    with suppress(FileNotFoundError):
                        yield entry.name, entry.stat()

    def _take(self, temporary: Path, path: Path, size: int) -> bool:
        """Let a file that is written wait under its name, if there is room."""
        with self._locked():
            if self._waiting_bytes(path) + size > self.max_bytes:
                return False
            temporary.replace(path)
            fsync(self.folder)
            return True

    def _waiting_bytes(self, besides: Path) -> int:
        return sum(look.st_size for name, look in self._looks(self.folder) if name != besides.name)

    def _full(self, path: Path, size: int) -> StoreFullError:
        waited = f" after {self.max_wait_s:g} s of waiting" if self.max_wait_s else ""
        return StoreFullError(
            f"the Influx buffer {self.folder} holds {self._waiting_bytes(path):,} bytes{waited}; {size:,} more would "
            f"pass its limit of {self.max_bytes:,}. Nothing was dropped. Let the server take the points (check "
            "stores.influx.url and the token, then `ml-pipeline replay`), or raise stores.influx.buffer_bytes."
        )

    def _settle(self, batch: Batch, refused: Sequence[str], reasons: Mapping[str, str]) -> Iterator[Rejected]:
        """Remove a batch that was dealt with and keep what could not be sent, unless it was replaced meanwhile.

        What was refused of an older version of it is superseded by it.
        """
        with self._locked(), store_errors("remove", batch.path):
            now = load(batch.path)
            if now is None or now.content != batch.content:
                return
            letter = self._rejected / batch.path.name
            if refused:
                reason = "\n".join(dict.fromkeys(reasons[line] for line in refused))
                write_atomically(letter.with_suffix(_REASON), f"{reason}\n".encode())
                write_atomically(letter, ("\n".join(refused) + "\n").encode())
                yield Rejected(batch.path.stem, len(refused), reason, letter)
            else:
                for old in (letter, letter.with_suffix(_REASON)):
                    old.unlink(missing_ok=True)
            if batch.damaged or not batch.content:
                kept = letter.with_suffix(_DAMAGED)
                write_atomically(kept, b"".join(batch.damaged))
                yield Rejected(batch.path.stem, len(batch.damaged), _DAMAGE, kept)
            batch.path.unlink()

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

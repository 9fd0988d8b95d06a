"""Brings a checkpoint's files from its source into a content-addressed cache on this machine."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from threading import Event

from ml_pipeline.checkpoints.cache_room import CacheRoom, Kept
from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.checkpoints.fetch_index import FetchIndex, FetchRecord
from ml_pipeline.checkpoints.leases import Lease, lease, try_lock
from ml_pipeline.checkpoints.source import Source
from ml_pipeline.checkpoints.transfer import Progress, SourceFile, copy_file
from ml_pipeline.errors import CheckpointChangedError, CheckpointError
from ml_pipeline.files import (
    file_mode,
    fsync,
    make_folder,
    modified_ns,
    remove_leftovers,
    store_errors,
    temporary_beside,
)
from ml_pipeline.printable import printable

RETRY_WAITS_S = (0.5, 1.0, 2.0, 4.0)
"""A broken transfer is taken up again after each of these, in s."""

_LONGEST_CONFIG_BYTES = 2**20
_WAIT_FOR_ANOTHER_S = 0.1
_ABANDONED_AFTER_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class FetchedFiles:
    """A checkpoint's files on this machine. They stay there until `release`, or until nobody refers to this."""

    weights: Path
    config: Path
    lease: Lease = field(compare=False, repr=False)

    def release(self) -> None:
        """Let the cache remove the files when it needs the room."""
        self.lease.release()


class FetchCache:
    """Files by the hash of their content: a checkpoint that is overwritten or deleted in its source stays here.

    Beside them lie the records of what was fetched, by which a checkpoint that is fetched again costs no transfer, and
    the parts of transfers that broke off, by which they go on. Any number of processes may use the same cache at once:
    two that want the same file copy it once.
    """

    def __init__(self, room: CacheRoom, largest_bytes: int, waits_s: Sequence[float] = RETRY_WAITS_S) -> None:
        self.folder = room.folder / "fetched"
        self.index = fetch_index(room.folder)
        self._room = room
        self._largest_bytes = largest_bytes
        self._waits_s = waits_s
        room.add_shelf(self.folder, self._kept)

    def fetch(
        self,
        source: Source,
        checkpoint: Checkpoint,
        progress: Progress = lambda here, total: None,
        stop: Event | None = None,
    ) -> FetchedFiles:
        """Bring the weights and their configuration here, unless this version of both is here already.

        `progress` is called with the bytes that are here and in all, `stop` ends the transfer and keeps what came. A
        checkpoint that was fetched before is found even when its source has lost it or cannot be reached.

        Raises:
            CheckpointError: a file is missing, too large or changed meanwhile, or the transfer broke off.
            StoreFullError, StoreError: it cannot be kept here.
        """
        stop = stop or Event()
        config = self._config_now(source, checkpoint)
        if files := self._files_here(checkpoint, config):
            return files
        weights = SourceFile(source, checkpoint.file, checkpoint.size_bytes, checkpoint.mtime_ns)
        weights.require_unchanged()
        config = config or _file_now(source, checkpoint.config_file)
        self._require_fitting_sizes(checkpoint, weights, config)
        with self._part_of(weights, progress, stop) as part:
            return self._files_here(checkpoint, config) or self._copy(checkpoint, weights, config, part, progress, stop)

    def _config_now(self, source: Source, checkpoint: Checkpoint) -> SourceFile | None:
        """The configuration as it is now in the source; None when it is gone but was fetched before."""
        try:
            return _file_now(source, checkpoint.config_file)
        except CheckpointError:
            if self.index.find(checkpoint) is None:
                raise
            return None

    def _files_here(self, checkpoint: Checkpoint, config: SourceFile | None) -> FetchedFiles | None:
        """The files if they are here and sound, with the configuration of the version `config` or any."""
        record = self.index.find(checkpoint)
        if record is None:
            return None
        if config and (config.size_bytes, config.mtime_ns) != (record.config_size_bytes, record.config_mtime_ns):
            return None
        weights, config_path = self._paths(record)
        held = self._room.hold(weights, config_path)
        if held is None:
            return None
        if not (_is_sound(weights, record.weights_sha256) and _is_sound(config_path, record.config_sha256)):
            held.release()
            return None
        self.index.touch(checkpoint)
        return FetchedFiles(weights, config_path, held)

    def _weights_here(self, checkpoint: Checkpoint) -> tuple[str | None, Lease | None]:
        """The hash of the weights if they are here and only their configuration is another, held by the lease.

        Training that is taken up again writes the configuration of all its checkpoints anew.
        """
        record = self.index.find(checkpoint)
        if record is None:
            return None, None
        weights, _ = self._paths(record)
        held = self._room.hold(weights)
        if held is None or not _is_sound(weights, record.weights_sha256):
            return None, None
        return record.weights_sha256, held

    def _require_fitting_sizes(self, checkpoint: Checkpoint, weights: SourceFile, config: SourceFile) -> None:
        if weights.size_bytes > self._largest_bytes:
            raise CheckpointError(
                f"{checkpoint.key}: {printable(weights.path)} is {weights.size_bytes} bytes, more than "
                f"limits.adapter_bytes ({self._largest_bytes}). Raise the limit in pipeline.yaml if this is right."
            )
        if config.size_bytes > _LONGEST_CONFIG_BYTES:
            raise CheckpointError(
                f"{checkpoint.key}: {printable(config.path)} is {config.size_bytes} bytes; a configuration has at most "
                f"{_LONGEST_CONFIG_BYTES}. It is not what mlx-lm writes."
            )

    @contextmanager
    def _part_of(self, weights: SourceFile, progress: Progress, stop: Event) -> Iterator[FileIO]:
        """The part file of these weights, with the exclusive lock on it; waits while another process has it."""
        path = self.folder / "parts" / f"{weights.id}.part"
        while True:
            with store_errors("write", path):
                make_folder(path.parent)
                part = FileIO(path, "r+", opener=_open_or_create)
            with part:
                if try_lock(part.fileno()) and _is_at(part, path):
                    try:
                        yield part
                    except CheckpointChangedError:
                        path.unlink(missing_ok=True)
                        raise
                    finally:
                        if _is_at(part, path) and not os.fstat(part.fileno()).st_size:
                            path.unlink()
                    return
                progress(min(os.fstat(part.fileno()).st_size, weights.size_bytes), weights.size_bytes)
            if stop.wait(_WAIT_FOR_ANOTHER_S):
                raise CheckpointError(f"{weights.place}: stopped while another process was fetching it.")

    def _copy(
        self,
        checkpoint: Checkpoint,
        weights: SourceFile,
        config: SourceFile,
        part: FileIO,
        progress: Progress,
        stop: Event,
    ) -> FetchedFiles:
        remove_leftovers(self.folder, older_than_s=_ABANDONED_AFTER_S)
        known_sha256, _held = self._weights_here(checkpoint)
        part_bytes = weights.size_bytes if known_sha256 else os.fstat(part.fileno()).st_size
        missing_bytes = max(0, weights.size_bytes - part_bytes)
        self._room.make_room(missing_bytes + config.size_bytes, f"Fetching {weights.place}")
        new_config = temporary_beside(self.folder / "config.json")
        try:
            with store_errors("write", new_config):
                out = FileIO(new_config, "x+")
            with out:
                config_sha256 = copy_file(config, out, _silent, self._waits_s, stop)
            weights_sha256 = known_sha256 or copy_file(weights, part, progress, self._waits_s, stop)
            record = FetchRecord(checkpoint, config.size_bytes, config.mtime_ns, weights_sha256, config_sha256)
            return self._publish(record, part, new_config)
        finally:
            new_config.unlink(missing_ok=True)

    def _publish(self, record: FetchRecord, part: FileIO, new_config: Path) -> FetchedFiles:
        """Name the files by their content, all at once for every other process, and hold them.

        A file that is there already with this content stays, since others may hold it. The record comes first: after
        a crash in between the finished part is found again and nothing is transferred twice.
        """
        weights, config = self._paths(record)
        weights_are_here = _is_sound(weights, record.weights_sha256)  # before the lock, since it may take seconds
        with self._room.changing():
            self.index.write(record)
            _put(Path(str(part.name)), weights, keep=weights_are_here or _is_sound(weights, record.weights_sha256))
            _put(new_config, config, keep=_is_sound(config, record.config_sha256))
            fsync(self.folder)
            fcntl.flock(part.fileno(), fcntl.LOCK_UN)
            held = lease((weights, config))
        assert held is not None
        return FetchedFiles(weights, config, held)

    def _paths(self, record: FetchRecord) -> tuple[Path, Path]:
        return (
            self.folder / f"{record.weights_sha256}.safetensors",
            self.folder / f"{record.config_sha256}.json",
        )

    def _kept(self) -> Iterator[Kept]:
        for path, record in self.index.records():
            weights, config = self._paths(record)
            yield Kept(modified_ns(path), weights, (path, config))


def fetch_index(cache_folder: Path) -> FetchIndex:
    """The records of the fetch cache in the room at `cache_folder`."""
    return FetchIndex(cache_folder / "fetched" / "index")


def _file_now(source: Source, path: str) -> SourceFile:
    entry = source.stat(path)
    return SourceFile(source, path, entry.size_bytes, entry.mtime_ns)


def _is_sound(path: Path, sha256: str) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False


def _put(new: Path, target: Path, *, keep: bool) -> None:
    if keep and target.exists():
        new.unlink()
    else:
        new.replace(target)


def _is_at(file: FileIO, path: Path) -> bool:
    """Whether this open file is still the one of this name: who had it before may have renamed or removed it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _open_or_create(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, file_mode())


def _silent(here: int, total: int) -> None:
    """A configuration is too small to speak of."""

"""Brings a checkpoint's files from its source into a content-addressed cache on this machine."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.checkpoints.source import Source
from ml_pipeline.errors import CheckpointError
from ml_pipeline.files import fsync, make_folder, store_errors, temporary_beside

_CHUNK_BYTES = 4 * 2**20
_LONGEST_CONFIG_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class FetchedFiles:
    """A checkpoint's files on this machine."""

    weights: Path
    config: Path


class FetchCache:
    """Files by the hash of their content: a checkpoint that is overwritten or deleted in its source stays here."""

    def __init__(self, folder: Path, largest_bytes: int) -> None:
        self.folder = folder
        self.largest_bytes = largest_bytes

    def fetch(
        self,
        source: Source,
        checkpoint: Checkpoint,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> FetchedFiles:
        """Copy the weights and their configuration, verified against the size that discovery saw.

        `progress` is called with bytes done and in all.

        Raises:
            CheckpointError: a file is missing, too large or changed meanwhile.
            StoreFullError, StoreError: it cannot be kept here.
        """
        now = source.stat(checkpoint.file)
        if (now.size_bytes, now.mtime_ns) != (checkpoint.size_bytes, checkpoint.mtime_ns):
            raise CheckpointError(
                f"{checkpoint.key}: {checkpoint.file} changed since it was discovered "
                f"({checkpoint.size_bytes} bytes then, {now.size_bytes} now). Score it again once training has left it."
            )
        if now.size_bytes > self.largest_bytes:
            raise CheckpointError(
                f"{checkpoint.key}: {checkpoint.file} is {now.size_bytes} bytes, more than limits.adapter_bytes "
                f"({self.largest_bytes}). Raise the limit in pipeline.yaml if this is right."
            )
        config_size = source.stat(checkpoint.config_file).size_bytes
        if config_size > _LONGEST_CONFIG_BYTES:
            raise CheckpointError(
                f"{checkpoint.key}: {checkpoint.config_file} is {config_size} bytes; a configuration has at most "
                f"{_LONGEST_CONFIG_BYTES}. It is not what mlx-lm writes."
            )
        weights = self._copy(source, checkpoint.file, now.size_bytes, ".safetensors", progress)
        config = self._copy(source, checkpoint.config_file, config_size, ".json", lambda done, total: None)
        return FetchedFiles(weights, config)

    def _copy(
        self, source: Source, path: str, size_bytes: int, suffix: str, progress: Callable[[int, int], None]
    ) -> Path:
        digest, done = hashlib.sha256(), 0
        with store_errors(f"copy {path} of source {source.name} to", self.folder):
            make_folder(self.folder)
            if shutil.disk_usage(self.folder).free < size_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            temporary = temporary_beside(self.folder / f"fetched{suffix}")
            try:
                with temporary.open("wb") as out:
                    for chunk in _chunks(source, path):
                        done += len(chunk)
                        if done > size_bytes:
                            break
                        digest.update(chunk)
                        out.write(chunk)
                        progress(done, size_bytes)
                if done != size_bytes:
                    raise CheckpointError(
                        f"source {source.name}: {path} has another size than before ({size_bytes} bytes expected). "
                        "It is still being written; score it again later."
                    )
                fsync(temporary)
                return temporary.replace(self.folder / f"{digest.hexdigest()}{suffix}")
            finally:
                temporary.unlink(missing_ok=True)


def _chunks(source: Source, path: str) -> Iterator[bytes]:
    try:
        with source.open(path) as incoming:
            while chunk := incoming.read(_CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise CheckpointError(f"source {source.name}: cannot read {path}: {error.strerror or error}") from error

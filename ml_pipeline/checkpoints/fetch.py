"""Brings a checkpoint's files from its source into a content-addressed cache on this machine."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.checkpoints.source import Source
from ml_pipeline.errors import CheckpointError, StoreFullError

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

        `progress` is called with bytes done and in all. Raises CheckpointError when a file is missing, too large or
        changed meanwhile, StoreFullError when the disk is full.
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
        digest = hashlib.sha256()
        done = 0
        temporary = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(self.folder).free < size_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            with (
                source.open(path) as incoming,
                tempfile.NamedTemporaryFile(dir=self.folder, prefix="tmp-", delete=False) as out,
            ):
                temporary = Path(out.name)
                while chunk := incoming.read(_CHUNK_BYTES):
                    done += len(chunk)
                    if done > size_bytes:
                        break
                    digest.update(chunk)
                    out.write(chunk)
                    progress(done, size_bytes)
                out.flush()
                os.fsync(out.fileno())
            if done != size_bytes:
                raise CheckpointError(
                    f"source {source.name}: {path} has another size than before ({size_bytes} bytes expected). "
                    "It is still being written; score it again later."
                )
            final = self.folder / f"{digest.hexdigest()}{suffix}"
            temporary.replace(final)
            return final
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreFullError(
                    f"no room in {self.folder} for {path} ({size_bytes} bytes). Free some space or move data_dir, "
                    "then score again: what is done is kept."
                ) from error
            raise CheckpointError(f"cannot copy {path} of source {source.name} to {self.folder}: {error}") from error
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)

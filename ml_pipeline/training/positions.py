"""Remembers on this machine how far each log has been read.

Safe to delete: a run whose positions are missing, damaged, or belong to other rows than those now stored is read from
its start, which gives the same rows again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ml_pipeline.checkpoints.log_reader import LogPosition
from ml_pipeline.files import store_errors, write_atomically


@dataclass(frozen=True, slots=True)
class _Saved:
    rows_sha256: str
    logs: dict[str, LogPosition]


_SAVED = TypeAdapter(_Saved)


class LogPositions:
    """Positions of every log by training run, one file a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, partition_key: str, rows_sha256: str | None) -> Mapping[str, LogPosition]:
        """The positions up to which the run's stored rows, of that hash, were made; none when they were made otherwise.

        Raises:
            StoreError: a file cannot be read.
        """
        path = self._path(partition_key)
        with store_errors("read", path):
            try:
                saved = _SAVED.validate_json(path.read_bytes())
            except (FileNotFoundError, ValidationError):
                return {}
        return saved.logs if saved.rows_sha256 == rows_sha256 else {}

    def save(self, partition_key: str, rows_sha256: str, logs: Mapping[str, LogPosition]) -> None:
        """Keep the positions up to which the stored file of that hash was made.

        Raises:
            StoreError, StoreFullError: they cannot be written.
        """
        write_atomically(self._path(partition_key), _SAVED.dump_json(_Saved(rows_sha256, dict(logs))))

    def _path(self, partition_key: str) -> Path:
        return self.folder / f"{partition_key}.json"

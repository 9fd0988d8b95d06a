"""What may be deleted for room: the raw answers of earlier evaluations, never a score and nothing that is current."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ml_pipeline.files import is_temporary, store_errors
from ml_pipeline.stores.parquet import SUPERSEDED, ParquetStore
from ml_pipeline.stores.tables import RESPONSES


@dataclass(frozen=True, slots=True)
class OldAnswers:
    """A file of superseded answers, and its size."""

    path: Path
    size_bytes: int


def old_answers(parquet: ParquetStore, before: datetime) -> list[OldAnswers]:
    """The files of superseded answers that were written before a time, by name.

    Raises:
        StoreError: the folder cannot be read.
    """
    folder = parquet.folder / SUPERSEDED / RESPONSES.name
    found = []
    with store_errors("list", folder):
        for path in sorted(folder.glob("*/*.parquet")):
            if path.is_file() and not path.is_symlink() and not is_temporary(path):
                info = path.stat()
                if info.st_mtime < before.timestamp():
                    found.append(OldAnswers(path, info.st_size))
    return found


def delete(files: Sequence[OldAnswers]) -> None:
    """Delete them, and folders that are empty then.

    Raises:
        StoreError: one cannot be deleted; those before it are gone.
    """
    for file in files:
        with store_errors("delete", file.path):
            file.path.unlink(missing_ok=True)
            if not any(file.path.parent.iterdir()):
                file.path.parent.rmdir()

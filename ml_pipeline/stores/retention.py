"""What may be deleted for room: the raw answers of earlier evaluations, never a score and nothing that is current."""

from __future__ import annotations

from datetime import datetime

from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.store_folder import StoredFile
from ml_pipeline.stores.tables import RESPONSES, TABLES


def old_answers(parquet: ParquetStore, before: datetime) -> list[StoredFile]:
    """The files of superseded answers that were written before a time, by name.

    Raises:
        StoreError: the folder cannot be read.
    """
    return [file for file in parquet.earlier.of(RESPONSES) if file.modified_s < before.timestamp()]


def old_scores(parquet: ParquetStore) -> list[StoredFile]:
    """The files of superseded rows that are no answers, which stay; raises StoreError as `old_answers`."""
    return [file for table in TABLES.values() if table is not RESPONSES for file in parquet.earlier.of(table)]

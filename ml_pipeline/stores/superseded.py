"""Earlier versions of partitions: rows of evaluations that were made again in another way.

<folder>/_superseded/<table>/<partition key>/<scored at>-<hash>.parquet
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa

from ml_pipeline.errors import StoreError
from ml_pipeline.stores.compacted import CompactedFiles
from ml_pipeline.stores.parquet_file import SUFFIX, encode, footer_of, own_name, read_metadata, read_rows
from ml_pipeline.stores.rows import check_partition_key
from ml_pipeline.stores.store_folder import StoredFile, StoreFolder
from ml_pipeline.stores.table import Table

SUPERSEDED = "_superseded"


class SupersededFiles:
    """The earlier versions in a store's folder; `ml-pipeline clean` deletes answers among them, and never scores."""

    def __init__(self, folder: StoreFolder, compacted: CompactedFiles) -> None:
        self._folder = folder
        self._compacted = compacted

    def of(self, table: Table, partition_key: str = "") -> list[StoredFile]:
        """The kept files of one partition, oldest first; without a key those of all, by partition.

        Raises:
            StoreError: the key cannot be a file's name, or the folder cannot be read.
        """
        if partition_key:
            check_partition_key(partition_key)
        return self._folder.below(f"{SUPERSEDED}/{table.name}/{partition_key}".rstrip("/"))

    def read(self, table: Table, file: StoredFile) -> pa.Table:
        """The rows of one of them, in the table's present columns.

        Raises:
            StoreError: the file is damaged, or was deleted.
        """
        try:
            return read_rows(table, self._folder, file.name)
        except FileNotFoundError:
            raise StoreError(f"{file.place} is not there any more. List the versions again.") from None

    def keep(self, table: Table, partition_key: str, ids: Sequence[str]) -> str | None:
        """Keep the present rows if they are of an evaluation that `ids` lacks, or cannot be read; return where.

        The caller shares the table's lock.

        Raises:
            StoreError, StoreFullError: they cannot be kept, or the present file is of another partition.
        """
        name = own_name(table, partition_key)
        if not self._folder.exists(name):
            return self._keep_compacted(table, partition_key, ids)
        try:
            old = read_metadata(self._folder, name)
        except StoreError:
            old = {}
        if old.get("partition_key", partition_key) != partition_key:
            raise StoreError(
                f"{self._folder.place(name)} belongs to the partition {old['partition_key']!r}: this file system does "
                f"not tell upper from lower case, so {partition_key!r} cannot be stored beside it. Rename one of the "
                "two runs or sources."
            )
        if "evaluation_ids" in old and set(json.loads(old["evaluation_ids"])) <= set(ids):
            return None
        kept = _name(table, partition_key, old.get("scored_at"), self._folder.sha256(name))
        self._folder.keep(name, kept)
        return self._folder.place(kept)

    def _keep_compacted(self, table: Table, partition_key: str, ids: Sequence[str]) -> str | None:
        found = self._compacted.find(table, partition_key)
        if found is None or set(found[1].evaluation_ids) <= set(ids):
            return None
        file, old = found
        kept = _name(table, partition_key, old.scored_at, old.sha256)
        rows = self._compacted.read(table, file.name, {partition_key: old})[partition_key]
        self._folder.write(
            kept, encode(rows, {**footer_of(table, partition_key, old.evaluation_ids, None), **old.times})
        )
        return self._folder.place(kept)


def _name(table: Table, partition_key: str, scored_at: str | None, sha256: str) -> str:
    at = datetime.fromisoformat(scored_at).astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ") if scored_at else "damaged"
    return f"{SUPERSEDED}/{table.name}/{partition_key}/{at}-{sha256[:12]}{SUFFIX}"

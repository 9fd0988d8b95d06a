"""The source of truth: one Parquet file for each table and partition, and every superseded version of it.

<folder>/<table>/<partition key>.parquet                               the current rows
<folder>/_superseded/<table>/<partition key>/<scored at>-<hash>.parquet   rows of other evaluations, kept
<folder>/<asset>.parquet                                               a whole table of any columns
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ml_pipeline.errors import StoreError
from ml_pipeline.files import is_temporary, keep_as, remove_leftovers, replacing, store_errors, write_atomically
from ml_pipeline.stores.parquet_file import encode, read_batches, read_metadata, read_rows, reading, write_batches
from ml_pipeline.stores.rows import Rows, check_partition_key, conform
from ml_pipeline.stores.table import Table
from ml_pipeline.stores.tables import SCHEMA_VERSION

SUPERSEDED = "_superseded"
_SUFFIX = ".parquet"
_READERS = min(8, (os.cpu_count() or 1) + 2)


@dataclass(frozen=True, slots=True)
class WriteReceipt:
    """What was written: the file, its rows and bytes, the SHA-256 of its bytes, and where the old version went."""

    table: str
    partition_key: str
    path: Path
    rows: int
    size_bytes: int
    sha256: str
    evaluation_ids: tuple[str, ...]
    superseded: Path | None


class ParquetStore:
    """Reads and writes the Parquet files below one folder, which is made by the first write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, table: Table, partition_key: str) -> Path:
        """The file of one table and partition, whether or not it exists.

        Raises:
            StoreError: the key cannot be a file's name.
        """
        check_partition_key(partition_key)
        return self.folder / table.name / f"{partition_key}{_SUFFIX}"

    def write(self, table: Table, partition_key: str, rows: Rows) -> WriteReceipt:
        """Replace the partition's rows, all suites of them, in one atomic step.

        An existing file that holds an evaluation (or log) which `rows` does not is kept under `_superseded` first, so
        that a crash at any moment loses nothing.

        Raises:
            StoreError: the rows do not fit the table (every problem is named), or the file cannot be written.
            StoreFullError: the disk is full. In both cases what was there before stays.
        """
        path = self.path(table, partition_key)
        arrow = conform(table, partition_key, rows)
        ids = tuple(sorted(arrow[table.version].unique().to_pylist()))
        data = encode(arrow, _footer(table, partition_key, ids, pc.max(arrow[table.made_at]).as_py()))
        superseded = self._supersede(table, partition_key, path, ids)
        write_atomically(path, data)
        return WriteReceipt(
            table.name,
            partition_key,
            path,
            arrow.num_rows,
            len(data),
            hashlib.sha256(data).hexdigest(),
            ids,
            superseded,
        )

    def write_batches(
        self, table: Table, partition_key: str, batches: Iterable[Rows], evaluation_id: str, made_at: datetime
    ) -> WriteReceipt:
        """As `write`, for more rows than fit in memory, which all are of one version and were made at one time.

        That no key is there twice is checked within each batch only.

        Raises:
            StoreError, StoreFullError: as in `write`; and whatever making the batches raises. The old rows stay.
        """
        path, ids = self.path(table, partition_key), (evaluation_id,)
        conformed = (conform(table, partition_key, rows) for rows in batches)
        with replacing(path) as temporary:
            with temporary.open("wb") as sink:
                footer = _footer(table, partition_key, ids, made_at)
                count = write_batches(sink, table.schema, conformed, footer)
            with temporary.open("rb") as written:
                digest = hashlib.file_digest(written, "sha256").hexdigest()
            size = temporary.stat().st_size
            superseded = self._supersede(table, partition_key, path, ids)
        return WriteReceipt(table.name, partition_key, path, count, size, digest, ids, superseded)

    def read_batches(self, table: Table, partition_key: str) -> Iterator[pa.Table]:
        """The current rows of one partition, some thousands at a time; raises as `read`."""
        return read_batches(table, self._existing(table, partition_key))

    def read(self, table: Table, partition_key: str) -> pa.Table:
        """The current rows of one partition.

        Raises:
            StoreError: there is no such partition, or its file is damaged or newer than this program.
        """
        return read_rows(table, self._existing(table, partition_key))

    def read_all(self, table: Table, keys: Iterable[str] | None = None) -> pa.Table:
        """The current rows of `keys` (default: of every partition), in the order of the keys.

        A key without a file contributes no rows.

        Raises:
            StoreError: a file is damaged or newer than this program.
        """
        paths = [self.path(table, key) for key in (self.partitions(table) if keys is None else keys)]
        with ThreadPoolExecutor(_READERS) as pool:
            parts = list(pool.map(lambda path: read_rows(table, path), [path for path in paths if path.exists()]))
        return pa.concat_tables(parts).combine_chunks() if parts else table.schema.empty_table()

    def partitions(self, table: Table) -> list[str]:
        """The keys that have a file, sorted.

        Raises:
            StoreError: the folder cannot be read.
        """
        folder = self.folder / table.name
        if not folder.exists():
            return []
        with store_errors("list", folder):
            names = [p.name for p in folder.iterdir() if p.suffix == _SUFFIX and not is_temporary(p)]
        return sorted(name.removesuffix(_SUFFIX) for name in names if not name.startswith("."))

    def superseded(self, table: Table, partition_key: str) -> list[Path]:
        """The kept files of earlier evaluations of one partition, oldest first.

        Raises:
            StoreError: the key cannot be a file's name.
        """
        check_partition_key(partition_key)
        folder = self.folder / SUPERSEDED / table.name / partition_key
        return sorted(p for p in folder.glob(f"*{_SUFFIX}") if not is_temporary(p))

    def write_whole(self, name: str, rows: pa.Table) -> Path:
        """Replace the file of an unpartitioned asset, of any columns.

        Raises:
            StoreError, StoreFullError: the file cannot be written; the old one stays.
        """
        path = self._whole(name)
        write_atomically(path, encode(rows, {"table": name, "written_at": datetime.now(UTC).isoformat()}))
        return path

    def read_whole(self, name: str) -> pa.Table:
        """The rows of an unpartitioned asset.

        Raises:
            StoreError: it was never written, or the file is damaged.
        """
        path = self._whole(name)
        if not path.exists():
            raise StoreError(f"{name} was never stored: {path} does not exist. Materialise the asset first.")
        with reading(path) as file:
            return file.read()

    def remove_leftovers(self) -> int:
        """Remove temporary files that killed writers left; return how many.

        Raises:
            StoreError: a folder cannot be changed.
        """
        return remove_leftovers(self.folder) if self.folder.exists() else 0

    def _existing(self, table: Table, partition_key: str) -> Path:
        path = self.path(table, partition_key)
        if not path.exists():
            raise StoreError(
                f"{table.name} has no partition {partition_key!r}: {path} does not exist. "
                "Materialise that partition first, or restore the file from a backup."
            )
        return path

    def _whole(self, name: str) -> Path:
        check_partition_key(name)
        return self.folder / f"{name}{_SUFFIX}"

    def _supersede(self, table: Table, partition_key: str, path: Path, ids: Sequence[str]) -> Path | None:
        """Keep the present file if it holds an evaluation that `ids` lacks, or cannot be read at all."""
        if not path.exists():
            return None
        try:
            old = read_metadata(path)
        except StoreError:
            old = {}
        if old.get("partition_key", partition_key) != partition_key:
            raise StoreError(
                f"{path} belongs to the partition {old['partition_key']!r}: this file system does not tell upper from "
                f"lower case, so {partition_key!r} cannot be stored beside it. Rename one of the two runs or sources."
            )
        if "evaluation_ids" in old and set(json.loads(old["evaluation_ids"])) <= set(ids):
            return None
        with store_errors("read", path), path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
        at = datetime.fromisoformat(old["scored_at"]).strftime("%Y%m%dT%H%M%S.%fZ") if old else "damaged"
        kept = self.folder / SUPERSEDED / table.name / partition_key / f"{at}-{digest}{_SUFFIX}"
        keep_as(path, kept)
        return kept


def _footer(table: Table, partition_key: str, ids: Sequence[str], newest: datetime | None) -> dict[str, str]:
    """What a file says of itself."""
    return {
        "schema_version": str(SCHEMA_VERSION),
        "table": table.name,
        "partition_key": partition_key,
        "evaluation_ids": json.dumps(ids),
        "scored_at": newest.isoformat() if newest else "",
        "written_at": datetime.now(UTC).isoformat(),
    }

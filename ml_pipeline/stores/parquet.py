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
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ml_pipeline.errors import StoreError
from ml_pipeline.files import is_temporary, keep_as, remove_leftovers, store_errors, write_atomically
from ml_pipeline.stores.rows import Rows, check_partition_key, conform
from ml_pipeline.stores.table import Table
from ml_pipeline.stores.tables import SCHEMA_VERSION

SUPERSEDED = "_superseded"
_SUFFIX = ".parquet"
_PREFIX = "ml_pipeline."
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
        newest = pc.max(arrow[table.made_at]).as_py()
        metadata = {
            "schema_version": str(SCHEMA_VERSION),
            "table": table.name,
            "partition_key": partition_key,
            "evaluation_ids": json.dumps(ids),
            "scored_at": newest.isoformat() if newest else "",
            "written_at": datetime.now(UTC).isoformat(),
        }
        data = _encode(arrow, metadata)
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

    def read(self, table: Table, partition_key: str) -> pa.Table:
        """The current rows of one partition.

        Raises:
            StoreError: there is no such partition, or its file is damaged or newer than this program.
        """
        path = self.path(table, partition_key)
        if not path.exists():
            raise StoreError(
                f"{table.name} has no partition {partition_key!r}: {path} does not exist. "
                "Materialise that partition first, or restore the file from a backup."
            )
        return _read(table, path)

    def read_all(self, table: Table, keys: Iterable[str] | None = None) -> pa.Table:
        """The current rows of `keys` (default: of every partition), in the order of the keys.

        A key without a file contributes no rows.

        Raises:
            StoreError: a file is damaged or newer than this program.
        """
        paths = [self.path(table, key) for key in (self.partitions(table) if keys is None else keys)]
        with ThreadPoolExecutor(_READERS) as pool:
            parts = list(pool.map(lambda path: _read(table, path), [path for path in paths if path.exists()]))
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
        write_atomically(path, _encode(rows, {"table": name, "written_at": datetime.now(UTC).isoformat()}))
        return path

    def read_whole(self, name: str) -> pa.Table:
        """The rows of an unpartitioned asset.

        Raises:
            StoreError: it was never written, or the file is damaged.
        """
        path = self._whole(name)
        if not path.exists():
            raise StoreError(f"{name} was never stored: {path} does not exist. Materialise the asset first.")
        with _reading(path) as file:
            return file.read()

    def remove_leftovers(self) -> int:
        """Remove temporary files that killed writers left; return how many.

        Raises:
            StoreError: a folder cannot be changed.
        """
        return remove_leftovers(self.folder) if self.folder.exists() else 0

    def _whole(self, name: str) -> Path:
        check_partition_key(name)
        return self.folder / f"{name}{_SUFFIX}"

    def _supersede(self, table: Table, partition_key: str, path: Path, ids: Sequence[str]) -> Path | None:
        """Keep the present file if it holds an evaluation that `ids` lacks, or cannot be read at all."""
        if not path.exists():
            return None
        try:
            old = _metadata(path)
        except StoreError:
            old = {}
        if old.get("partition_key", partition_key) != partition_key:
            raise StoreError(
                f"{path} belongs to the partition {old['partition_key']!r}: this file system does not tell upper from "
                f"lower case, so {partition_key!r} cannot be stored beside it. Rename one of the two runs or sources."
            )
        if "evaluation_ids" in old and set(json.loads(old["evaluation_ids"])) <= set(ids):
            return None
        with store_errors("read", path):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        at = datetime.fromisoformat(old["scored_at"]).strftime("%Y%m%dT%H%M%S.%fZ") if old else "damaged"
        kept = self.folder / SUPERSEDED / table.name / partition_key / f"{at}-{digest}{_SUFFIX}"
        keep_as(path, kept)
        return kept


def _encode(rows: pa.Table, metadata: dict[str, str]) -> bytes:
    """The bytes of a Parquet file, with `metadata` in its footer and a checksum on every page."""
    named = {f"{_PREFIX}{name}": value for name, value in metadata.items()}
    sink = pa.BufferOutputStream()
    pq.write_table(
        rows.replace_schema_metadata({**(rows.schema.metadata or {}), **named}),
        sink,
        compression="zstd",
        write_page_checksum=True,
    )
    return bytes(sink.getvalue())


def _read(table: Table, path: Path) -> pa.Table:
    """The rows of a file of `table`; columns that came later are filled with what earlier rows have."""
    with _reading(path) as file:
        version = _own_metadata(file).get("schema_version", "")
        if version.isdecimal() and int(version) > SCHEMA_VERSION:
            raise StoreError(
                f"{path} was written by a newer ml_pipeline (tables {version}, this one knows {SCHEMA_VERSION}). "
                "Upgrade this installation."
            )
        rows = file.read()
    columns, problems = [], []
    for column in table.columns:
        if column.name in rows.column_names:
            columns.append(rows.column(column.name))
            if columns[-1].type != column.type:
                problems.append(f"column {column.name!r} is {columns[-1].type}, not {column.type}")
        elif column.nullable or column.earlier is not None:
            columns.append(pa.repeat(pa.scalar(column.earlier, column.type), rows.num_rows))
        else:
            problems.append(f"column {column.name!r} is missing")
    if problems:
        raise StoreError.from_problems(
            f"{path} is not of table {table.name}",
            problems,
            "Move it away and materialise its partition again, or restore the file from a backup.",
        )
    return pa.Table.from_arrays(columns, schema=table.schema)


def _metadata(path: Path) -> dict[str, str]:
    with _reading(path) as file:
        return _own_metadata(file)


def _own_metadata(file: pq.ParquetFile) -> dict[str, str]:
    stored: dict[bytes, bytes] = file.metadata.metadata or {}
    named = {name.decode(): value.decode(errors="replace") for name, value in stored.items()}
    return {name.removeprefix(_PREFIX): value for name, value in named.items() if name.startswith(_PREFIX)}


@contextmanager
def _reading(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file and turn every failure to read it into a StoreError with the remedy."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        raise StoreError(
            f"cannot read {path}: {error}. The file is damaged or not Parquet. Restore it from a backup, or move it "
            "away and materialise its partition again; then run `ml-pipeline rebuild`."
        ) from error

"""The source of truth: one Parquet file for each table and partition, and every superseded version of it.

<folder>/<table>/<partition key>.parquet                               the current rows
<folder>/_compacted/<table>/<number>-<random>.parquet                  current rows of many partitions: compaction.py
<folder>/_superseded/<table>/<partition key>/<scored at>-<hash>.parquet   rows of other evaluations, kept
<folder>/<asset>.parquet                                               a whole table of any columns
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ml_pipeline.errors import StoreError
from ml_pipeline.stores.compacted import CompactedFiles, Entry
from ml_pipeline.stores.parquet_file import (
    SUFFIX,
    encode,
    footer_of,
    lock_of,
    own_name,
    read_batches,
    read_rows,
    reading,
    whole_table,
    write_batches,
)
from ml_pipeline.stores.rows import Rows, check_partition_key, conform
from ml_pipeline.stores.store_folder import StoredFile
from ml_pipeline.stores.store_folders import folder_at
from ml_pipeline.stores.superseded import SupersededFiles
from ml_pipeline.stores.table import Table

_READERS = min(8, (os.cpu_count() or 1) + 2)
_FEW = 20
"""So many files are looked for one by one; for more, listing the folder is faster."""


@dataclass(frozen=True, slots=True)
class WriteReceipt:
    """What was written: where, its rows and bytes, the SHA-256 of its bytes, and where the old version went.

    `place` and `superseded` are paths, or addresses where the store is in object storage.
    """

    table: str
    partition_key: str
    place: str
    rows: int
    size_bytes: int
    sha256: str
    evaluation_ids: tuple[str, ...]
    superseded: str | None


class ParquetStore:
    """Reads and writes the Parquet files below one folder, which is made by the first write.

    `place` is the folder's path, or its address (`s3://bucket/folder`).
    """

    def __init__(self, place: Path | str) -> None:
        self.files = folder_at(place)
        self.compacted = CompactedFiles(self.files)
        self.earlier = SupersededFiles(self.files, self.compacted)

    def path(self, table: Table, partition_key: str) -> Path:
        """The file of one table and partition in a store on a disk, whether or not it exists.

        It does not while the partition's rows are in a compacted file; `has` tells whether they are stored.

        Raises:
            StoreError: the key cannot be a file's name.
        """
        return Path(self.files.place(own_name(table, partition_key)))

    def write(self, table: Table, partition_key: str, rows: Rows) -> WriteReceipt:
        """Replace the partition's rows, all suites of them, in one atomic step.

        Present rows of an evaluation (or log) which `rows` does not have are kept under `_superseded` first, so that
        a crash at any moment loses nothing.

        Raises:
            StoreError: the rows do not fit the table (every problem is named), or the file cannot be written.
            StoreFullError: the disk is full. In both cases what was there before stays.
        """
        name = own_name(table, partition_key)
        arrow = conform(table, partition_key, rows)
        ids = tuple(sorted(arrow[table.version].unique().to_pylist()))
        data = encode(arrow, footer_of(table, partition_key, ids, pc.max(arrow[table.made_at]).as_py()))
        with self.files.locked(lock_of(table), shared=True):
            superseded = self.earlier.keep(table, partition_key, ids)
            self.files.write(name, data)
        digest = hashlib.sha256(data).hexdigest()
        place = self.files.place(name)
        return WriteReceipt(table.name, partition_key, place, arrow.num_rows, len(data), digest, ids, superseded)

    def write_batches(
        self, table: Table, partition_key: str, batches: Iterable[Rows], evaluation_id: str, made_at: datetime
    ) -> WriteReceipt:
        """As `write`, for more rows than fit in memory, which all are of one version and were made at one time.

        That no key is there twice is checked within each batch only.

        Raises:
            StoreError, StoreFullError: as in `write`; and whatever making the batches raises. The old rows stay.
        """
        name, ids = own_name(table, partition_key), (evaluation_id,)
        conformed = (conform(table, partition_key, rows) for rows in batches)
        with ExitStack() as publishing:
            temporary = publishing.enter_context(self.files.replacing(name))
            with temporary.open("wb") as sink:
                footer = footer_of(table, partition_key, ids, made_at)
                count = write_batches(sink, table.schema, conformed, footer)
            with temporary.open("rb") as written:
                digest = hashlib.file_digest(written, "sha256").hexdigest()
            size = temporary.stat().st_size
            with self.files.locked(lock_of(table), shared=True):
                superseded = self.earlier.keep(table, partition_key, ids)
                publishing.close()
        return WriteReceipt(table.name, partition_key, self.files.place(name), count, size, digest, ids, superseded)

    def read(self, table: Table, partition_key: str) -> pa.Table:
        """The current rows of one partition.

        Raises:
            StoreError: there is no such partition, or its file is damaged or newer than this program.
        """
        rows, found = self._read_own(table, partition_key), None
        while rows is None and (found := self.compacted.find(table, partition_key)):
            rows = self._read_compacted(table, found[0].name, {partition_key: found[1]}).get(partition_key)
            if rows is None:
                rows = self._read_own(table, partition_key)
        if rows is None:
            raise StoreError(
                f"{table.name} has no partition {partition_key!r}: {self.files.place(own_name(table, partition_key))} "
                "does not exist. Materialise that partition first, or restore the file from a backup."
            )
        return rows

    def read_batches(self, table: Table, partition_key: str) -> Iterator[pa.Table]:
        """The current rows of one partition, some thousands at a time; raises as `read`."""
        try:
            yield from read_batches(table, self.files, own_name(table, partition_key))
        except FileNotFoundError:
            yield self.read(table, partition_key)

    def read_all(self, table: Table, keys: Iterable[str] | None = None) -> pa.Table:
        """The current rows of `keys` (default: of every partition), in the order of the keys.

        A key that is not stored contributes no rows.

        Raises:
            StoreError: a file is damaged or newer than this program.
        """
        wanted = self.partitions(table) if keys is None else list(keys)
        found = self._read_some(table, wanted)
        parts = [found[key] for key in wanted if key in found]
        return pa.concat_tables(parts).combine_chunks() if parts else table.schema.empty_table()

    def partitions(self, table: Table) -> list[str]:
        """The keys that are stored, sorted.

        Raises:
            StoreError: the folder cannot be read, or a compacted file is damaged.
        """
        # A partition is in a compacted file before its own goes, and in one from then on: looked for in this order,
        # it is found in one place or the other.
        own = self.own_keys(table)
        return sorted(own.union(self.compacted.found(table)))

    def has(self, table: Table, partition_key: str) -> bool:
        """Whether a partition is stored; raises StoreError as `partitions`."""
        own = self.files.exists(own_name(table, partition_key))
        return own or self.compacted.find(table, partition_key) is not None

    def sha256(self, table: Table, partition_key: str) -> str | None:
        """The SHA-256 in the receipt of a partition's last write; None where it is not stored, or was damaged since.

        Raises:
            StoreError: as `partitions`.
        """
        try:
            return self.files.sha256(own_name(table, partition_key))
        except FileNotFoundError:
            found = self.compacted.find(table, partition_key)
            return found[1].sha256 if found else None

    def own_keys(self, table: Table) -> set[str]:
        """The keys that have a file of their own.

        Raises:
            StoreError: the folder cannot be read.
        """
        return {name.removesuffix(SUFFIX) for name in self.files.names(table.name) if name.endswith(SUFFIX)}

    def superseded(self, table: Table, partition_key: str) -> list[StoredFile]:
        """The kept files of earlier evaluations of one partition, oldest first; raises StoreError."""
        return self.earlier.of(table, partition_key)

    def write_whole(self, name: str, rows: pa.Table) -> str:
        """Replace the file of an unpartitioned asset, of any columns; return where it lies.

        Raises:
            StoreError, StoreFullError: the file cannot be written; the old one stays.
        """
        file = _whole(name)
        self.files.write(file, encode(rows, {"table": name, "written_at": datetime.now(UTC).isoformat()}))
        return self.files.place(file)

    def read_whole(self, name: str) -> pa.Table:
        """The rows of an unpartitioned asset.

        Raises:
            StoreError: it was never written, or the file is damaged.
        """
        file = _whole(name)
        try:
            with reading(self.files, file) as opened:
                return whole_table(self.files, file, opened)
        except FileNotFoundError:
            place = self.files.place(file)
            raise StoreError(f"{name} was never stored: {place} does not exist. Materialise the asset first.") from None

    def remove_leftovers(self) -> int:
        """Remove temporary files that killed writers left; return how many.

        Raises:
            StoreError: a folder cannot be changed.
        """
        return self.files.remove_leftovers()

    def _read_some(self, table: Table, keys: Iterable[str]) -> dict[str, pa.Table]:
        """The rows of those of the keys that are stored."""
        found: dict[str, pa.Table] = {}
        missing = list(dict.fromkeys(keys))
        with ThreadPoolExecutor(_READERS) as pool:
            while missing:
                own = self.own_keys(table) if len(missing) > _FEW else None
                looked_for = [key for key in missing if own is None or key in own]
                for key, rows in zip(
                    looked_for, pool.map(lambda key: self._read_own(table, key), looked_for), strict=True
                ):
                    if rows is not None:
                        found[key] = rows
                left = [key for key in missing if key not in found]
                by_file: dict[str, dict[str, Entry]] = {}
                for key, (file, entry) in (self.compacted.found(table, left) if left else {}).items():
                    by_file.setdefault(file.name, {})[key] = entry
                for parts in pool.map(lambda item: self._read_compacted(table, *item), by_file.items()):
                    found |= parts
                # Those of a file that was compacted again meanwhile are looked for again.
                missing = [key for entries in by_file.values() for key in entries if key not in found]
        return found

    def _read_own(self, table: Table, partition_key: str) -> pa.Table | None:
        try:
            return read_rows(table, self.files, own_name(table, partition_key))
        except FileNotFoundError:
            return None

    def _read_compacted(self, table: Table, name: str, entries: Mapping[str, Entry]) -> dict[str, pa.Table]:
        try:
            return self.compacted.read(table, name, entries)
        except FileNotFoundError:
            return {}


def _whole(name: str) -> str:
    check_partition_key(name)
    return f"{name}{SUFFIX}"

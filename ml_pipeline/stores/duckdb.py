"""The database that people query: the current rows of the Parquet files, mirrored in short transactions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from ml_pipeline.errors import StoreError
from ml_pipeline.stores.duckdb_files import connection, quoted, transaction
from ml_pipeline.stores.duckdb_rebuild import RebuildReport, rebuild
from ml_pipeline.stores.duckdb_rows import insert, replace_whole
from ml_pipeline.stores.duckdb_snapshot import Snapshot, make_snapshot
from ml_pipeline.stores.migrations import HISTORY, MIGRATIONS, check_version, drift, migrate, version_of
from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.rows import check_partition_key, conform
from ml_pipeline.stores.table import Table
from ml_pipeline.stores.tables import TABLES
from ml_pipeline.stores.views import VIEWS

_TABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


class DuckDBStore:
    """One DuckDB file. Every method opens it, does its work within `lock_timeout_s` of waiting, and closes it."""

    def __init__(self, path: Path, lock_timeout_s: float = 60.0) -> None:
        self.path = path
        self.lock_timeout_s = lock_timeout_s

    def migrate(self) -> list[int]:
        """Bring the database to the present schema, making it if need be; return the migrations that were made.

        Raises:
            StoreError: the database is newer than this program, damaged, or cannot be written.
            StoreLockedError: another process holds it.
        """
        with connection(self.path, self.lock_timeout_s) as connected:
            return migrate(connected, str(self.path))

    def write_partitions(self, partitions: Mapping[str, Mapping[str, pa.Table]]) -> None:
        """Replace each partition's rows in its tables (by name) in one transaction: all of them or none.

        Raises:
            StoreError: a table is unknown, rows do not fit, or the file cannot be written; the old rows stay.
            StoreLockedError: another process holds the file.
            StoreFullError: the disk is full.
        """
        problems = [
            f"partition {key}: table {name!r} is unknown"
            for key, tables in partitions.items()
            for name in tables
            if name not in TABLES
        ]
        if problems:
            raise StoreError.from_problems(
                str(self.path), problems, "Define it in ml_pipeline/stores/tables.py, and add a migration."
            )
        replaced: dict[str, dict[str, pa.Table]] = {}
        for key, tables in partitions.items():
            for name, rows in tables.items():
                replaced.setdefault(name, {})[key] = conform(TABLES[name], key, rows)
        self._replace({name: (list(rows), pa.concat_tables(rows.values())) for name, rows in replaced.items()})

    def write_partition(self, partition_key: str, tables: Mapping[str, pa.Table]) -> None:
        """As `write_partitions`, for one."""
        self.write_partitions({partition_key: tables})

    def write_batches(self, partition_key: str, table: Table, batches: Iterator[pa.Table]) -> None:
        """As `write_partition`, for rows of one table that may not fit in memory and are known to fit the table."""
        self._replace({table.name: ([partition_key], _reader(table, batches))})

    def _replace(self, tables: Mapping[str, tuple[Sequence[str], pa.Table | pa.RecordBatchReader]]) -> None:
        """Replace the rows of partitions, by table."""

        def replace(connected: duckdb.DuckDBPyConnection) -> None:
            problems = drift(connected, [TABLES[name] for name in tables])
            if problems:
                raise StoreError.from_problems(
                    str(self.path),
                    problems,
                    "Run `ml-pipeline rebuild` to make the database again, or add a migration.",
                )
            with transaction(connected):
                for name, (keys, rows) in tables.items():
                    marks = ", ".join("?" * len(keys))
                    connected.execute(f"DELETE FROM {quoted(name)} WHERE partition_key IN ({marks})", list(keys))
                    insert(connected, name, rows)

        self._write(replace)

    def write_whole(self, name: str, rows: pa.Table) -> None:
        """Replace a whole table of any columns in one transaction, for an unpartitioned asset.

        Raises:
            StoreError: the name is taken by a partitioned table or a view, or the file cannot be written.
            StoreLockedError, StoreFullError: as in `write_partition`.
        """
        self._check_free(name)

        def replace(connected: duckdb.DuckDBPyConnection) -> None:
            with transaction(connected):
                replace_whole(connected, name, rows)

        self._write(replace)

    def read(self, name: str, partition_keys: Sequence[str] | None = None) -> pa.Table:
        """The rows of a table: of the given partitions, or all.

        Raises:
            StoreError: there is no such table.
            StoreLockedError: another process is writing, and goes on for longer than the wait.
        """
        for key in partition_keys or ():
            check_partition_key(key)
        with self._reading() as connected:
            return _rows(connected, name, partition_keys)

    def read_together(self, names: Sequence[str], partition_keys: Sequence[str] | None = None) -> dict[str, pa.Table]:
        """Rows of several tables, by name, as they were at one moment; else as `read`."""
        for key in partition_keys or ():
            check_partition_key(key)
        with self._reading() as connected:
            return {name: _rows(connected, name, partition_keys) for name in names}

    def query(self, sql: str, params: Sequence[Any] = ()) -> pa.Table:
        """Answer one SQL query, read-only.

        Raises:
            StoreError: there is no database yet, it is newer than this program, or the SQL is wrong.
            StoreLockedError: another process is writing, and goes on for longer than the wait.
        """
        with self._reading() as connected:
            return _answer(connected, sql, params)

    @contextmanager
    def _reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A read-only connection to a database of this program's schema."""
        while True:
            with connection(self.path, self.lock_timeout_s, read_only=True) as connected:
                version = version_of(connected)
                check_version(version, str(self.path))
                if version == MIGRATIONS[-1].version:
                    yield connected
                    return
            self.migrate()

    def rebuild(self, parquet: ParquetStore) -> RebuildReport:
        """Make the whole database again from the Parquet files; raises as `duckdb_rebuild.rebuild`."""
        return rebuild(self.path, self.lock_timeout_s, parquet)

    def snapshot(self) -> Snapshot:
        """Bring the copy for analysts up to date; raises as `duckdb_snapshot.make_snapshot`."""
        return make_snapshot(self.path, self.lock_timeout_s)

    def _write(self, action: Callable[[duckdb.DuckDBPyConnection], None]) -> None:
        with connection(self.path, self.lock_timeout_s) as connected:
            migrate(connected, str(self.path))
            action(connected)

    def _check_free(self, name: str) -> None:
        taken = {*TABLES, *(view.name for view in VIEWS), HISTORY}
        if not _TABLE_NAME.fullmatch(name) or name in taken:
            raise StoreError(
                f"{name!r} cannot be the name of a free table: it must be letters, digits and '_', at most 63, and not "
                f"one of {', '.join(sorted(taken))}. Rename the asset."
            )


def _answer(connected: duckdb.DuckDBPyConnection, sql: str, params: Sequence[Any] = ()) -> pa.Table:
    answer = connected.sql(sql, params=list(params))
    return pa.table({}) if answer is None else answer.to_arrow_table()


def _rows(connected: duckdb.DuckDBPyConnection, name: str, partition_keys: Sequence[str] | None) -> pa.Table:
    known = TABLES.get(name)
    order = f" ORDER BY {', '.join(map(quoted, known.key))}" if known else ""
    if partition_keys is None:
        rows = _answer(connected, f"FROM {quoted(name)}{order}")
    else:
        wanted = "WHERE list_contains(?, partition_key)"
        rows = _answer(connected, f"FROM {quoted(name)} {wanted}{order}", [list(partition_keys)])
    return rows.select(known.schema.names).cast(known.schema) if known else rows


def _reader(table: Table, batches: Iterator[pa.Table]) -> pa.RecordBatchReader:
    return pa.RecordBatchReader.from_batches(table.schema, (part for rows in batches for part in rows.to_batches()))

"""The database that people query: the current rows of the Parquet files, mirrored in short transactions."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from ml_pipeline.errors import StoreError
from ml_pipeline.files import fsync, make_folder, store_errors
from ml_pipeline.stores.duckdb_files import connection, queued, quoted, transaction
from ml_pipeline.stores.migrations import HISTORY, MIGRATIONS, check_version, drift, migrate, version_of
from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.rows import check_partition_key, conform
from ml_pipeline.stores.table import Table
from ml_pipeline.stores.tables import TABLES
from ml_pipeline.stores.views import VIEWS

_TABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_INCOMING = "ml_pipeline_incoming"
_REBUILD_CHUNK = 200


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What a rebuild put into the database: rows by table, and the other tables that it carried over."""

    rows: Mapping[str, int]
    partitions: int
    carried_over: tuple[str, ...]
    seconds: float


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

    def write_partition(self, partition_key: str, tables: Mapping[str, pa.Table]) -> None:
        """Replace the partition's rows in all of `tables` (by name) in one transaction: all of them or none.

        Raises:
            StoreError: a table is unknown, rows do not fit, or the file cannot be written; the old rows stay.
            StoreLockedError: another process holds the file.
            StoreFullError: the disk is full.
        """
        unknown = [name for name in tables if name not in TABLES]
        if unknown:
            raise StoreError.from_problems(
                f"partition {partition_key}",
                [f"table {name!r} is unknown" for name in unknown],
                "Define it in ml_pipeline/stores/tables.py, and add a migration.",
            )
        self._replace(partition_key, {n: conform(TABLES[n], partition_key, rows) for n, rows in tables.items()})

    def write_batches(self, partition_key: str, table: Table, batches: Iterator[pa.Table]) -> None:
        """As `write_partition`, for rows of one table that may not fit in memory and are known to fit the table."""
        self._replace(partition_key, {table.name: _reader(table, batches)})

    def _replace(self, partition_key: str, tables: Mapping[str, pa.Table | pa.RecordBatchReader]) -> None:
        def replace(connected: duckdb.DuckDBPyConnection) -> None:
            problems = drift(connected, [TABLES[name] for name in tables])
            if problems:
                raise StoreError.from_problems(
                    str(self.path),
                    problems,
                    "Run `ml-pipeline rebuild` to make the database again, or add a migration.",
                )
            with transaction(connected):
                for name, rows in tables.items():
                    connected.execute(f"DELETE FROM {quoted(name)} WHERE partition_key = ?", [partition_key])
                    _insert(connected, name, rows)

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
                _replace_whole(connected, name, rows)

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
        """Make the whole database again from the Parquet files, beside the old one, and put it in its place.

        The old database is held meanwhile, so that other writers wait and none writes into a file about to go.
        Tables that are not the pipeline's own are carried over if the old database can be read; views of users and
        indexes are not.

        Raises:
            StoreError: a Parquet file is damaged, or the new database cannot be written. The old one stays.
            StoreLockedError: another process holds the old database.
        """
        started = time.monotonic()
        parquet.remove_leftovers()
        new = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}.tmp")
        with store_errors("make the folder of", self.path):
            make_folder(self.path.parent)
        with queued(self.path, self.lock_timeout_s), ExitStack() as stack:
            stack.callback(self._remove_temporaries)
            old = None
            if self.path.exists():
                # Held open, so that programs other than this package cannot write into a file about to go.
                old = stack.enter_context(connection(self.path, self.lock_timeout_s, queue=False))
            rows, carried = _fill(new, parquet, old)
            if old is not None:
                # Folds the old write-ahead log into the old file: left behind, it would be replayed on the new.
                old.execute("CHECKPOINT")
            with store_errors("replace", self.path):
                new.replace(self.path)
                fsync(self.path.parent)
        partitions = len({key for table in TABLES.values() for key in parquet.partitions(table)})
        return RebuildReport(rows, partitions, carried, time.monotonic() - started)

    def _write(self, action: Callable[[duckdb.DuckDBPyConnection], None]) -> None:
        with connection(self.path, self.lock_timeout_s) as connected:
            migrate(connected, str(self.path))
            action(connected)

    def _remove_temporaries(self) -> None:
        """Remove what this rebuild, or one that was killed, left half made."""
        for path in self.path.parent.glob(f".{self.path.name}.*.tmp*"):
            with suppress(OSError):
                path.unlink()

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


def _insert(connected: duckdb.DuckDBPyConnection, name: str, rows: pa.Table | pa.RecordBatchReader) -> None:
    connected.register(_INCOMING, rows)
    connected.execute(f"INSERT INTO {quoted(name)} BY NAME FROM {_INCOMING}")
    connected.unregister(_INCOMING)


def _replace_whole(connected: duckdb.DuckDBPyConnection, name: str, rows: pa.Table) -> None:
    connected.register(_INCOMING, rows)
    connected.execute(f"CREATE OR REPLACE TABLE {quoted(name)} AS FROM {_INCOMING}")
    connected.unregister(_INCOMING)


def _fill(
    path: Path, parquet: ParquetStore, old: duckdb.DuckDBPyConnection | None
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Make a database at `path` from Parquet and from the tables of `old` that are not the pipeline's own."""
    counts: dict[str, int] = {}
    with connection(path, 0, queue=False) as connected:
        migrate(connected, str(path))
        for table in TABLES.values():
            counts[table.name] = 0
            for rows in _chunks(parquet, table):
                _insert(connected, table.name, rows)
                counts[table.name] += rows.num_rows
        carried = _foreign_tables(old) if old is not None else ()
        for name in carried:
            assert old is not None
            _replace_whole(connected, name, old.sql(f"FROM {quoted(name)}").to_arrow_table())
    return counts, carried


def _chunks(parquet: ParquetStore, table: Table) -> Iterator[pa.Table]:
    """All rows of a table, piece by piece: answers in full of thousands of checkpoints need not fit in memory."""
    keys = parquet.partitions(table)
    if table.streamed:
        for key in keys:
            yield from parquet.read_batches(table, key)
        return
    for start in range(0, len(keys), _REBUILD_CHUNK):
        yield parquet.read_all(table, keys[start : start + _REBUILD_CHUNK])


def _foreign_tables(connected: duckdb.DuckDBPyConnection) -> tuple[str, ...]:
    rows = connected.execute(
        "SELECT table_name FROM duckdb_tables() WHERE NOT internal AND NOT temporary AND schema_name = 'main'"
    ).fetchall()
    return tuple(name for (name,) in rows if name not in TABLES and name != HISTORY)

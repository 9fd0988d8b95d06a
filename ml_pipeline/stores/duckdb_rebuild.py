"""Making the whole database again from the Parquet files, which hold everything."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from ml_pipeline.files import fsync, make_folder, store_errors, temporary_beside
from ml_pipeline.stores.duckdb_files import connection, queued, quoted
from ml_pipeline.stores.duckdb_rows import insert, replace_whole
from ml_pipeline.stores.migrations import HISTORY, migrate
from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.table import Table, described
from ml_pipeline.stores.tables import TABLES

_PARTITIONS_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What a rebuild put into the database: rows by table, and the other tables that it carried over."""

    rows: Mapping[str, int]
    partitions: int
    carried_over: tuple[str, ...]
    seconds: float


def rebuild(database: Path, lock_timeout_s: float, parquet: ParquetStore) -> RebuildReport:
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
    new = temporary_beside(database)
    with store_errors("make the folder of", database):
        make_folder(database.parent)
    with queued(database, lock_timeout_s), ExitStack() as stack:
        stack.callback(_remove_temporaries, database)
        old = None
        if database.exists():
            # Held open, so that programs other than this package cannot write into a file about to go.
            old = stack.enter_context(connection(database, lock_timeout_s, queue=False))
        rows, carried = _fill(new, parquet, old)
        if old is not None:
            # Folds the old write-ahead log into the old file: left behind, it would be replayed on the new.
            old.execute("CHECKPOINT")
        with store_errors("replace", database):
            new.replace(database)
            fsync(database.parent)
    partitions = len({key for table in TABLES.values() for key in parquet.partitions(table)})
    return RebuildReport(rows, partitions, carried, time.monotonic() - started)


def _remove_temporaries(database: Path) -> None:
    """Remove what this rebuild, or one that was killed, left half made."""
    for path in database.parent.glob(f".{database.name}.*.tmp*"):
        with suppress(OSError):
            path.unlink()


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
                insert(connected, table.name, rows)
                counts[table.name] += rows.num_rows
        carried = _foreign_tables(old) if old is not None else ()
        for name in carried:
            assert old is not None
            meanings = old.execute(
                "SELECT column_name, comment FROM duckdb_columns() "
                "WHERE table_name = ? AND schema_name = 'main' AND comment IS NOT NULL",
                [name],
            ).fetchall()
            replace_whole(connected, name, described(old.sql(f"FROM {quoted(name)}").to_arrow_table(), dict(meanings)))
    return counts, carried


def _chunks(parquet: ParquetStore, table: Table) -> Iterator[pa.Table]:
    """All rows of a table, piece by piece: answers in full of thousands of checkpoints need not fit in memory."""
    keys = parquet.partitions(table)
    if table.streamed:
        for key in keys:
            yield from parquet.read_batches(table, key)
        return
    for start in range(0, len(keys), _PARTITIONS_AT_ONCE):
        yield parquet.read_all(table, keys[start : start + _PARTITIONS_AT_ONCE])


def _foreign_tables(connected: duckdb.DuckDBPyConnection) -> tuple[str, ...]:
    rows = connected.execute(
        "SELECT table_name FROM duckdb_tables() WHERE NOT internal AND NOT temporary AND schema_name = 'main'"
    ).fetchall()
    return tuple(name for (name,) in rows if name not in TABLES and name != HISTORY)

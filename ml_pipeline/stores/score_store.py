"""What the scoring op and the IO managers write through: Parquet first, then its mirror in DuckDB."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import pyarrow as pa

from ml_pipeline.errors import StoreError
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline.stores.parquet import ParquetStore, WriteReceipt
from ml_pipeline.stores.rows import Rows, conform
from ml_pipeline.stores.table import Table
from ml_pipeline.stores.tables import TABLES


class ScoreStore:
    """The Parquet files and the database over them."""

    def __init__(self, parquet: ParquetStore, duckdb: DuckDBStore) -> None:
        self.parquet = parquet
        self.duckdb = duckdb

    def write_partitions(self, partitions: Mapping[str, Mapping[str, Rows]]) -> list[WriteReceipt]:
        """Replace each partition's rows of its tables (by table name; all suites of the partition at once).

        Every row of every table is checked before anything is written. A crash between the two stores leaves DuckDB
        behind Parquet for these partitions; writing them again, or `ml-pipeline rebuild`, mends that.

        Raises:
            StoreError: rows do not fit (every problem of every table is named), or a file cannot be written.
            StoreLockedError: another process holds the database; Parquet has the rows by then.
            StoreFullError: the disk is full.
        """
        problems = []
        checked: dict[str, dict[str, pa.Table]] = {}
        for key, tables in partitions.items():
            for name, rows in tables.items():
                try:
                    checked.setdefault(key, {})[name] = conform(table_named(name), key, rows)
                except StoreError as error:
                    problems.append(str(error))
        if problems:
            raise StoreError("\n".join(problems))
        receipts = [
            self.parquet.write(TABLES[name], key, rows)
            for key, tables in checked.items()
            for name, rows in tables.items()
        ]
        self.duckdb.write_partitions(checked)
        return receipts

    def write_partition(self, partition_key: str, tables: Mapping[str, Rows]) -> list[WriteReceipt]:
        """As `write_partitions`, for one."""
        return self.write_partitions({partition_key: tables})

    def write_batches(
        self, table: Table, partition_key: str, batches: Iterable[Rows], evaluation_id: str, made_at: datetime
    ) -> WriteReceipt:
        """As `write_partition`, for one streamed table; raises as that and `ParquetStore.write_batches` do."""
        receipt = self.parquet.write_batches(table, partition_key, batches, evaluation_id, made_at)
        self.duckdb.write_batches(partition_key, table, self.parquet.read_batches(table, partition_key))
        return receipt


def table_named(name: str) -> Table:
    """The table of that name.

    Raises:
        StoreError: tables.py has none.
    """
    try:
        return TABLES[name]
    except KeyError:
        raise StoreError(
            f"table {name!r} is unknown: a partitioned asset needs a Table of its name in "
            f"ml_pipeline/stores/tables.py, which has {', '.join(TABLES)}."
        ) from None

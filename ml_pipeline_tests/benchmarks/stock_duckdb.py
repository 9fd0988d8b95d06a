"""The stock IO manager of dagster-duckdb-pandas, over a database with the same rows as ours."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd

MISSING = (
    "dagster-duckdb-pandas is not installed; it asks for pandas before 3, but runs with this one: "
    "pip install --no-deps dagster-duckdb-pandas"
)


class StockDuckDB:
    """A database that the stock IO manager writes: no keys, one connection an output."""

    def __init__(self, path: Path) -> None:
        package: Any = importlib.import_module("dagster_duckdb_pandas")
        self.path = path
        manager = package.DuckDBPandasIOManager(database=str(path))
        self._manager = manager.create_io_manager(dg.build_init_resource_context())

    def fill(self, ours: Path, tables: list[str]) -> None:
        """Copy the rows of our database."""
        with duckdb.connect(str(self.path)) as connected:
            connected.execute(f"ATTACH '{ours}' AS ours (READ_ONLY); CREATE SCHEMA public")
            for name in tables:
                connected.execute(f"CREATE TABLE public.{name} AS FROM ours.{name}")

    def write(self, table: str, partition_key: str, rows: pd.DataFrame) -> None:
        """Replace one partition, as an asset's output does."""
        context = dg.build_output_context(
            asset_key=table,
            partition_key=partition_key,
            asset_partitions_def=dg.StaticPartitionsDefinition([partition_key]),
            definition_metadata={"partition_expr": "partition_key"},
            resource_config={"database": str(self.path), "connection_config": {}},
        )
        self._manager.handle_output(context, rows)

    def query(self, sql: str) -> int:
        """Answer a query over its tables and return the number of rows."""
        with duckdb.connect(str(self.path), read_only=True) as connected:
            connected.execute("USE public")
            return len(connected.execute(sql).fetchall())

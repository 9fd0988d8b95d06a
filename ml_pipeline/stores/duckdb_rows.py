"""Putting Arrow rows into the tables of a DuckDB connection."""

from __future__ import annotations

import duckdb
import pyarrow as pa

from ml_pipeline.stores.duckdb_ddl import comments
from ml_pipeline.stores.duckdb_files import quoted

_INCOMING = "ml_pipeline_incoming"


def insert(connected: duckdb.DuckDBPyConnection, name: str, rows: pa.Table | pa.RecordBatchReader) -> None:
    """Add rows to a table, by the names of their columns."""
    connected.register(_INCOMING, rows)
    connected.execute(f"INSERT INTO {quoted(name)} BY NAME FROM {_INCOMING}")
    connected.unregister(_INCOMING)


def replace_whole(connected: duckdb.DuckDBPyConnection, name: str, rows: pa.Table) -> None:
    """Make a table of any columns anew; a column whose metadata has a `description` gets it as its comment."""
    connected.register(_INCOMING, rows)
    connected.execute(f"CREATE OR REPLACE TABLE {quoted(name)} AS FROM {_INCOMING}")
    connected.unregister(_INCOMING)
    meanings = {field.name: (field.metadata or {}).get(b"description", b"").decode() for field in rows.schema}
    for statement in comments("TABLE", name, "", {column: meaning for column, meaning in meanings.items() if meaning}):
        connected.execute(statement)

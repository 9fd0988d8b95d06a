"""The SQL statements that make and change tables and views, and say what every column means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import pyarrow as pa

from ml_pipeline.errors import StoreError
from ml_pipeline.stores.duckdb_files import literal, quoted
from ml_pipeline.stores.table import Table
from ml_pipeline.stores.view import View


def create_table(table: Table) -> tuple[str, ...]:
    """The statement that makes one table as tables.py defines it."""
    name = quoted(table.name)
    columns = [f"{quoted(c.name)} {sql_type(c.type)}{'' if c.nullable else ' NOT NULL'}" for c in table.columns]
    key = f"PRIMARY KEY ({', '.join(map(quoted, table.key))})"
    return (f"CREATE TABLE {name} ({', '.join([*columns, key])})",)


def add_columns(table: Table, *names: str) -> tuple[str, ...]:
    """Statements that add the last columns of a table, which may be empty, where they are missing yet: a database that
    is made today has them from the start."""
    return tuple(
        f"ALTER TABLE {quoted(table.name)} ADD COLUMN IF NOT EXISTS {quoted(c.name)} {sql_type(c.type)}"
        for c in table.columns
        if c.name in names
    )


def allow_empty(table: Table, *names: str) -> tuple[str, ...]:
    """Statements that let columns be empty."""
    return tuple(f"ALTER TABLE {quoted(table.name)} ALTER COLUMN {quoted(name)} DROP NOT NULL" for name in names)


def remake_table(table: Table, added: tuple[str, ...]) -> tuple[str, ...]:
    """Statements that make a table anew as tables.py defines it and keep its rows; `added` columns are filled in.

    DuckDB cannot change a primary key in place.
    """
    name, old = quoted(table.name), quoted(f"{table.name} before")
    columns = [column for column in table.columns if column.name in added]
    return (
        *(f"ALTER TABLE {name} ADD COLUMN IF NOT EXISTS {quoted(c.name)} {sql_type(c.type)}" for c in columns),
        *(
            f"UPDATE {name} SET {quoted(c.name)} = {c.earlier} WHERE {quoted(c.name)} IS NULL"
            for c in columns
            if c.earlier is not None
        ),
        f"ALTER TABLE {name} RENAME TO {old}",
        *create_table(table),
        f"INSERT INTO {name} BY NAME FROM {old}",
        f"DROP TABLE {old}",
    )


def views_and_comments(tables: Iterable[Table], views: Iterable[View]) -> Iterator[str]:
    """Statements that make the views, or make them anew, and say what every table, view and column means."""
    for table in tables:
        yield from comments("TABLE", table.name, table.description, {c.name: c.description for c in table.columns})
    for view in views:
        yield f"CREATE OR REPLACE VIEW {quoted(view.name)} AS {view.query}"
        yield from comments("VIEW", view.name, view.description, view.columns)


def comments(kind: str, name: str, description: str, columns: Mapping[str, str]) -> Iterator[str]:
    """Statements that say what a TABLE or VIEW and its columns mean; without a description, its columns alone."""
    if description:
        yield f"COMMENT ON {kind} {quoted(name)} IS {literal(description)}"
    for column, meaning in columns.items():
        yield f"COMMENT ON COLUMN {quoted(name)}.{quoted(column)} IS {literal(meaning)}"


def sql_type(arrow: pa.DataType) -> str:
    """DuckDB's name for a type that tables.py uses.

    Raises:
        StoreError: tables.py uses a type that is not in the list here.
    """
    names = {
        pa.string(): "VARCHAR",
        pa.int64(): "BIGINT",
        pa.float64(): "DOUBLE",
        pa.bool_(): "BOOLEAN",
        pa.timestamp("us", tz="UTC"): "TIMESTAMP WITH TIME ZONE",
    }
    if arrow not in names:
        raise StoreError(f"no DuckDB type is set for Arrow's {arrow}: add it to duckdb_ddl.sql_type.")
    return names[arrow]

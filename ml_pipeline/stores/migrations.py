"""The database's own history: numbered changes, each recorded in `schema_migrations` when it was made.

To change a table: change tables.py, raise its SCHEMA_VERSION, and add a migration here that brings an existing
database to the same columns. Or tell people to run `ml-pipeline rebuild`, which makes the database again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import duckdb
import pyarrow as pa

from ml_pipeline.errors import StoreError
from ml_pipeline.stores.duckdb_files import quoted, transaction
from ml_pipeline.stores.import_table import IMPORTS
from ml_pipeline.stores.response_tables import RESPONSE_TABLES
from ml_pipeline.stores.table import Table
from ml_pipeline.stores.tables import (
    CHECKPOINT_TABLES,
    DEGENERATION,
    HEURISTIC_SCORES,
    IDENTITY,
    JUDGE_VOTES,
    JUDGEMENTS,
    PROBE_RESULTS,
    RESPONSES,
    TRAINING_LOSS,
)
from ml_pipeline.stores.views import CHECKPOINT_VIEWS, RESPONSE_VIEWS, View

HISTORY = "schema_migrations"


@dataclass(frozen=True)
class Migration:
    """One change: its number, its name, and the statements that make it."""

    version: int
    name: str
    statements: Callable[[], tuple[str, ...]]


def tables_and_views() -> tuple[str, ...]:
    """Statements that make the tables of checkpoints, and the views over them, in an empty database."""
    first = [table for table in CHECKPOINT_TABLES if table is not DEGENERATION]
    made = [statement for table in first for statement in create_table(table)]
    return (*made, *(statement for view in CHECKPOINT_VIEWS for statement in create_view(view)))


def create_table(table: Table) -> tuple[str, ...]:
    """Statements that make one table as tables.py defines it, descriptions as comments."""
    name = quoted(table.name)
    columns = [f"{quoted(c.name)} {sql_type(c.type)}{'' if c.nullable else ' NOT NULL'}" for c in table.columns]
    key = f"PRIMARY KEY ({', '.join(map(quoted, table.key))})"
    return (
        f"CREATE TABLE {name} ({', '.join([*columns, key])})",
        f"COMMENT ON TABLE {name} IS {_text(table.description)}",
        *(_comment(table, c.name, c.description) for c in table.columns),
    )


def add_columns(table: Table, *names: str) -> tuple[str, ...]:
    """Statements that add the last columns of a table, which may be empty, where they are missing yet: a database that
    is made today has them from the start."""
    return tuple(
        statement
        for c in table.columns
        if c.name in names
        for statement in (
            f"ALTER TABLE {quoted(table.name)} ADD COLUMN IF NOT EXISTS {quoted(c.name)} {sql_type(c.type)}",
            _comment(table, c.name, c.description),
        )
    )


def readings_and_degeneration() -> tuple[str, ...]:
    """Statements that add what filters read, the normalised LEK, and the table of degeneration."""
    return (
        *add_columns(PROBE_RESULTS, "strict_extracted", "strict_passed", "flexible_extracted", "flexible_passed"),
        *add_columns(HEURISTIC_SCORES, "lek_normalised"),
        *create_table(DEGENERATION),
    )


def judges_votes() -> tuple[str, ...]:
    """Statements that let a judgement be the median of several votes, and keep each of those."""
    return (*add_columns(JUDGEMENTS, "rubric_sha256", "votes", "votes_asked"), *create_table(JUDGE_VOTES))


def scored_choices() -> tuple[str, ...]:
    """Statements that keep what multiple choice by log-likelihood gives."""
    return (*add_columns(RESPONSES, "choice_log_probabilities"), *add_columns(PROBE_RESULTS, "passed_normalised"))


def imports() -> tuple[str, ...]:
    """Statements that let rows be imported whose original recorded less than this program does."""
    return (
        *allow_empty(PROBE_RESULTS, "category", "expected", "response", "finish_reason"),
        *allow_empty(JUDGEMENTS, "category", "rubric", "judge_model", "transcript"),
        *(_comment(table, c.name, c.description) for table in (*CHECKPOINT_TABLES, JUDGE_VOTES) for c in IDENTITY),
        *create_table(IMPORTS),
    )


def allow_empty(table: Table, *names: str) -> tuple[str, ...]:
    """Statements that let columns be empty."""
    return tuple(
        statement
        for c in table.columns
        if c.name in names
        for statement in (
            f"ALTER TABLE {quoted(table.name)} ALTER COLUMN {quoted(c.name)} DROP NOT NULL",
            _comment(table, c.name, c.description),
        )
    )


def create_view(view: View) -> tuple[str, ...]:
    """Statements that make one view, or make it anew."""
    return (
        f"CREATE OR REPLACE VIEW {quoted(view.name)} AS {view.query}",
        f"COMMENT ON VIEW {quoted(view.name)} IS {_text(view.description)}",
    )


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


def several_samples() -> tuple[str, ...]:
    """Statements that give answers their sample and template, and make the views over them anew."""
    made = [one for table in (RESPONSES, PROBE_RESULTS) for one in remake_table(table, ("sample", "template"))]
    return (*made, *(statement for view in CHECKPOINT_VIEWS for statement in create_view(view)))


def files_of_responses() -> tuple[str, ...]:
    """Statements that add the tables of files of responses, and the views over them."""
    made = [statement for table in RESPONSE_TABLES for statement in create_table(table)]
    return (*made, *(statement for view in RESPONSE_VIEWS for statement in create_view(view)))


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
        raise StoreError(f"no DuckDB type is set for Arrow's {arrow}: add it to migrations.sql_type.")
    return names[arrow]


MIGRATIONS: tuple[Migration, ...] = (
    Migration(1, "tables and views", tables_and_views),
    Migration(2, "training loss", lambda: create_table(TRAINING_LOSS)),
    Migration(3, "strict and flexible readings, normalised LEK, degeneration", readings_and_degeneration),
    Migration(4, "several samples of a probe, and templates", several_samples),
    Migration(5, "judges' votes", judges_votes),
    Migration(6, "multiple choice by log-likelihood", scored_choices),
    Migration(7, "files of responses", files_of_responses),
    Migration(8, "imports", imports),
)


def version_of(connected: duckdb.DuckDBPyConnection) -> int:
    """Number of the last migration that the database has seen; 0 for an empty one."""
    # fetchall, not fetchone: DuckDB 2 takes no other work while a result has rows left to ask for.
    if not connected.execute("FROM duckdb_tables() WHERE table_name = ?", [HISTORY]).fetchall():
        return 0
    rows = connected.execute(f"SELECT coalesce(max(version), 0) FROM {HISTORY}").fetchall()
    return cast(int, rows[0][0])


def check_version(version: int, where: str) -> None:
    """Refuse a database that a newer program made.

    Raises:
        StoreError: `version` is above the last one known here.
    """
    known = MIGRATIONS[-1].version
    if version > known:
        raise StoreError(
            f"{where} was made by a newer ml_pipeline (schema {version}, this one knows {known}). "
            "Upgrade this installation, or set another file under stores.duckdb in pipeline.yaml."
        )


def migrate(connected: duckdb.DuckDBPyConnection, where: str) -> list[int]:
    """Make every change that the database lacks, each in a transaction of its own; return their numbers.

    Raises:
        StoreError: the database is newer than this program.
        duckdb.Error: a statement failed; its migration was rolled back.
    """
    present = version_of(connected)
    check_version(present, where)
    made = []
    for migration in MIGRATIONS:
        if migration.version <= present:
            continue
        with transaction(connected):
            connected.execute(
                f"CREATE TABLE IF NOT EXISTS {HISTORY} "
                "(version INTEGER PRIMARY KEY, name VARCHAR NOT NULL, applied_at TIMESTAMPTZ NOT NULL)"
            )
            for statement in migration.statements():
                connected.execute(statement)
            connected.execute(
                f"INSERT INTO {HISTORY} VALUES (?, ?, current_timestamp)", [migration.version, migration.name]
            )
        made.append(migration.version)
    return made


def drift(connected: duckdb.DuckDBPyConnection, tables: Iterable[Table]) -> list[str]:
    """How the database's tables differ from tables.py: changes that nobody wrote a migration for."""
    wanted = {(t.name, c.name): (sql_type(c.type), c.nullable) for t in tables for c in t.columns}
    names = sorted({table for table, _ in wanted})
    rows = connected.execute(
        "SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns() "
        "WHERE NOT internal AND list_contains(?, table_name)",
        [names],
    ).fetchall()
    found = {(table, column): (kind, nullable) for table, column, kind, nullable in rows}
    return [
        f"{'.'.join(name)}: the database has {_shape(found.get(name))}, tables.py {_shape(wanted.get(name))}"
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    ]


def _shape(column: tuple[str, bool] | None) -> str:
    return "no such column" if column is None else f"{column[0]}{'' if column[1] else ' NOT NULL'}"


def _comment(table: Table, column: str, description: str) -> str:
    return f"COMMENT ON COLUMN {quoted(table.name)}.{quoted(column)} IS {_text(description)}"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"

"""The database's own history: numbered changes, each recorded in `schema_migrations` when it was made.

To change a table: change tables.py, raise its SCHEMA_VERSION, and add a migration here that brings an existing
database to the same columns. Or tell people to run `ml-pipeline rebuild`, which makes the database again. To change a
view or a comment: change it, and add a migration without statements, since the last one makes all of them anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import duckdb

from ml_pipeline.errors import StoreError
from ml_pipeline.stores.duckdb_ddl import (
    add_columns,
    allow_empty,
    comments,
    create_table,
    remake_table,
    sql_type,
    views_and_comments,
)
from ml_pipeline.stores.duckdb_files import transaction
from ml_pipeline.stores.import_table import IMPORTS
from ml_pipeline.stores.response_tables import RESPONSE_TABLES
from ml_pipeline.stores.table import Table
from ml_pipeline.stores.tables import (
    CHECKPOINT_TABLES,
    DEGENERATION,
    HEURISTIC_SCORES,
    JUDGE_VOTES,
    JUDGEMENTS,
    PROBE_RESULTS,
    RESPONSES,
    TABLES,
    TRAINING_LOSS,
)
from ml_pipeline.stores.views import VIEWS

HISTORY = "schema_migrations"
_HISTORY_COLUMNS = {
    "version": "Number of the migration, from 1.",
    "name": "What it brought.",
    "applied_at": "When it was made.",
}


@dataclass(frozen=True)
class Migration:
    """One change: its number, its name, and the statements that make it."""

    version: int
    name: str
    statements: Callable[[], tuple[str, ...]]


def first_tables() -> tuple[str, ...]:
    """Statements that make the tables of checkpoints in an empty database."""
    first = [table for table in CHECKPOINT_TABLES if table is not DEGENERATION]
    return tuple(statement for table in first for statement in create_table(table))


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
        *create_table(IMPORTS),
    )


def several_samples() -> tuple[str, ...]:
    """Statements that give answers their sample and template."""
    return tuple(one for table in (RESPONSES, PROBE_RESULTS) for one in remake_table(table, ("sample", "template")))


def files_of_responses() -> tuple[str, ...]:
    """Statements that add the tables of files of responses."""
    return tuple(statement for table in RESPONSE_TABLES for statement in create_table(table))


MIGRATIONS: tuple[Migration, ...] = (
    Migration(1, "tables and views", first_tables),
    Migration(2, "training loss", lambda: create_table(TRAINING_LOSS)),
    Migration(3, "strict and flexible readings, normalised LEK, degeneration", readings_and_degeneration),
    Migration(4, "several samples of a probe, and templates", several_samples),
    Migration(5, "judges' votes", judges_votes),
    Migration(6, "multiple choice by log-likelihood", scored_choices),
    Migration(7, "files of responses", files_of_responses),
    Migration(8, "imports", imports),
    Migration(9, "views of what is there and what changed, comments on every column", tuple),
    Migration(10, "views compare on the probes that both have a score for", tuple),
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
            if migration is MIGRATIONS[-1]:
                _make_views_and_comments(connected)
            connected.execute(
                f"INSERT INTO {HISTORY} VALUES (?, ?, current_timestamp)", [migration.version, migration.name]
            )
        made.append(migration.version)
    return made


def _make_views_and_comments(connected: duckdb.DuckDBPyConnection) -> None:
    for statement in (
        *views_and_comments(TABLES.values(), VIEWS),
        *comments("TABLE", HISTORY, "The migrations that made this database.", _HISTORY_COLUMNS),
    ):
        connected.execute(statement)


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

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from ml_pipeline.errors import StoreError
from ml_pipeline.stores import migrations
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline.stores.import_table import IMPORTS
from ml_pipeline.stores.migrations import MIGRATIONS, Migration
from ml_pipeline.stores.response_tables import RESPONSE_TABLES
from ml_pipeline.stores.rows import conform
from ml_pipeline.stores.table import Table
from ml_pipeline.stores.tables import CHECKPOINT_TABLES, DETAIL_TABLES, TABLES
from ml_pipeline.stores.views import CHECKPOINT_VIEWS, RESPONSE_VIEWS, VIEWS
from ml_pipeline_tests.stores.samples import Row, identity, judgement_rows, key, partition
from ml_pipeline_tests.stores.test_duckdb import arrow


@pytest.fixture
def store(tmp_path: Path) -> DuckDBStore:
    return DuckDBStore(tmp_path / "scores.duckdb")


def test_migrations_are_numbered_from_one_without_gaps() -> None:
    assert [m.version for m in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))


def test_the_first_use_makes_everything_and_records_it_once(store: DuckDBStore) -> None:
    assert store.migrate() == [migration.version for migration in MIGRATIONS]
    assert store.migrate() == []
    assert store.query("SELECT version, name FROM schema_migrations").to_pylist() == [
        {"version": 1, "name": "tables and views"},
        {"version": 2, "name": "training loss"},
        {"version": 3, "name": "strict and flexible readings, normalised LEK, degeneration"},
        {"version": 4, "name": "several samples of a probe, and templates"},
        {"version": 5, "name": "judges' votes"},
        {"version": 6, "name": "multiple choice by log-likelihood"},
        {"version": 7, "name": "files of responses"},
        {"version": 8, "name": "imports"},
    ]
    tables = store.query("SELECT table_name FROM duckdb_tables() ORDER BY 1")["table_name"].to_pylist()
    assert tables == sorted([*TABLES, "schema_migrations"])
    views = store.query("SELECT view_name, comment FROM duckdb_views() WHERE NOT internal").to_pylist()
    assert {v["view_name"]: v["comment"] for v in views} == {v.name: v.description for v in VIEWS}


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda t: t.name)
def test_columns_keys_and_descriptions_are_those_of_tables_py(store: DuckDBStore, table: Table) -> None:
    store.migrate()
    found = store.query(
        "SELECT column_name, comment, is_nullable FROM duckdb_columns() WHERE table_name = ? ORDER BY column_index",
        [table.name],
    ).to_pylist()
    assert [tuple(row.values()) for row in found] == [(c.name, c.description, c.nullable) for c in table.columns]
    keys = store.query(
        "SELECT constraint_column_names AS k FROM duckdb_constraints() "
        "WHERE table_name = ? AND constraint_type = 'PRIMARY KEY'",
        [table.name],
    )
    assert keys["k"].to_pylist() == [list(table.key)]


def test_an_older_database_is_brought_up_by_reading_or_writing(
    store: DuckDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write_partition(key(), arrow(partition(identity(), a=True)))
    number = len(MIGRATIONS) + 1
    further = Migration(number, "count", lambda: ("CREATE VIEW counted AS SELECT count(*) AS n FROM responses",))
    monkeypatch.setattr(migrations, "MIGRATIONS", (*MIGRATIONS, further))
    monkeypatch.setattr("ml_pipeline.stores.duckdb.MIGRATIONS", (*MIGRATIONS, further))
    assert store.query("FROM counted").to_pylist() == [{"n": 2}]
    assert store.query("SELECT version FROM schema_migrations ORDER BY 1")["version"].to_pylist()[-1] == number
    monkeypatch.undo()
    for use in (lambda: store.query("SELECT 1"), store.migrate):
        with pytest.raises(
            StoreError, match=rf"newer ml_pipeline \(schema {number}, this one knows {number - 1}\).*Upgrade"
        ):
            use()


CAME_WITH: dict[int, dict[str, list[str] | None]] = {
    3: {
        "degeneration": None,
        "heuristic_scores": ["lek_normalised"],
        "probe_results": ["strict_extracted", "strict_passed", "flexible_extracted", "flexible_passed"],
    },
    4: {"responses": ["sample", "template"], "probe_results": ["sample", "template"]},
    5: {"judge_votes": None, "judgements": ["rubric_sha256", "votes", "votes_asked"]},
    6: {"responses": ["choice_log_probabilities"], "probe_results": ["passed_normalised"]},
    7: {"response_files": None, "response_scores": None, "response_judgements": None},
    8: {"imports": None},
}
"""What each migration after the first two added: columns by table, None for the whole table."""


NEEDED_BEFORE_8 = {
    "probe_results": ("category", "expected", "response", "finish_reason"),
    "judgements": ("category", "rubric", "judge_model", "transcript"),
}
"""Columns that may be empty only since rows can be imported."""


def tables_as_of(version: int) -> dict[str, Table]:
    """The tables, but training_loss, as they were in this version of the schema."""
    tables = {table.name: table for table in (*CHECKPOINT_TABLES, *DETAIL_TABLES, *RESPONSE_TABLES, IMPORTS)}
    for number, changes in CAME_WITH.items():
        for name, added in changes.items() if number > version else ():
            if added is None:
                del tables[name]
                continue
            old = tables[name]
            columns = tuple(column for column in old.columns if column.name not in added)
            tables[name] = replace(old, columns=columns, key=tuple(part for part in old.key if part not in added))
    if version < 8:
        for name, needed in NEEDED_BEFORE_8.items():
            columns = tuple(replace(c, nullable=c.nullable and c.name not in needed) for c in tables[name].columns)
            tables[name] = replace(tables[name], columns=columns)
    return tables


def write_as_of(store: DuckDBStore, version: int, rows: dict[str, list[Row]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the database of an older version, with a partition in it."""
    tables = tables_as_of(version)
    kept = {
        name: conform(table, key(), [{c.name: row[c.name] for c in table.columns} for row in rows.get(name, [])])
        for name, table in tables.items()
    }
    with monkeypatch.context() as before:
        made = tuple(one for table in tables.values() for one in migrations.create_table(table))
        if version >= 4:  # the migration to 4 makes the views anew
            made += tuple(one for view in CHECKPOINT_VIEWS for one in migrations.create_view(view))
        if version >= 7:  # so does that to 7 with those over files of responses
            made += tuple(one for view in RESPONSE_VIEWS for one in migrations.create_view(view))
        first = Migration(1, "as it was", lambda: made)
        done = (replace(known, statements=tuple) for known in MIGRATIONS[2:version])
        older = (first, MIGRATIONS[1], *done)
        before.setattr(migrations, "MIGRATIONS", older)
        before.setattr("ml_pipeline.stores.duckdb.MIGRATIONS", older)
        before.setattr("ml_pipeline.stores.duckdb.TABLES", tables)
        store.write_partition(key(), kept)


@pytest.mark.parametrize("version", [2, 3, 4, 5, 6, 7])
def test_a_database_of_an_older_version_gets_what_came_later_and_keeps_its_rows(
    store: DuckDBStore, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    rows = partition(identity(), a=True, b=None) | {"judgements": judgement_rows(identity(), "a", clarity=7.0)}
    write_as_of(store, version, rows, monkeypatch)
    assert store.migrate() == list(range(version + 1, len(MIGRATIONS) + 1))
    for name, table in TABLES.items():
        found = store.read(name)
        assert found.column_names == list(table.schema.names)
        assert found.num_rows == (len(rows.get(name, [])) if name in tables_as_of(version) else 0)
    asked = store.query("SELECT probe_id, passed, sample, template FROM probe_results ORDER BY probe_id").to_pylist()
    assert asked == [
        {"probe_id": "a", "passed": True, "sample": 1, "template": None},
        {"probe_id": "b", "passed": None, "sample": 1, "template": None},
    ]
    assert store.read("judgements")["score"].to_pylist() == [7.0]
    assert store.query("SELECT count(*) AS n FROM duckdb_views() WHERE NOT internal")["n"].to_pylist() == [len(VIEWS)]
    again = [row | {"sample": sample} for row in partition(identity(), a=True)["probe_results"] for sample in (1, 2)]
    store.write_partition(key(), arrow(partition(identity(), a=True) | {"probe_results": again}))
    assert store.query("SELECT sample FROM probe_results ORDER BY 1")["sample"].to_pylist() == [1, 2]


def test_a_migration_that_fails_changes_nothing(store: DuckDBStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.migrate()
    bad = Migration(99, "bad", lambda: ("CREATE TABLE half (a INT)", "CREATE TABLE half (a INT)"))
    monkeypatch.setattr(migrations, "MIGRATIONS", (*MIGRATIONS, bad))
    with pytest.raises(StoreError, match="half"):
        store.migrate()
    monkeypatch.undo()
    assert store.query("FROM duckdb_tables() WHERE table_name = 'half'").num_rows == 0
    assert store.query("FROM schema_migrations").num_rows == len(MIGRATIONS)


def test_a_table_changed_without_a_migration_is_noticed(store: DuckDBStore) -> None:
    store.migrate()
    with duckdb.connect(str(store.path)) as connected:
        connected.execute("ALTER TABLE responses ALTER seconds TYPE VARCHAR; ALTER TABLE responses DROP error")
    with pytest.raises(StoreError) as caught:
        store.write_partition(key(), arrow(partition(identity(), a=True)))
    text = str(caught.value)
    assert "responses.error: the database has no such column, tables.py VARCHAR" in text
    assert "responses.seconds: the database has VARCHAR NOT NULL, tables.py DOUBLE NOT NULL" in text
    assert "ml-pipeline rebuild" in text

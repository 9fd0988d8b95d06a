from __future__ import annotations

from operator import itemgetter
from pathlib import Path

import duckdb
import pytest

from ml_pipeline.errors import StoreError
from ml_pipeline.stores import migrations
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline.stores.migrations import MIGRATIONS, Migration
from ml_pipeline.stores.rows import conform
from ml_pipeline.stores.table import Table
from ml_pipeline.stores.tables import TABLES
from ml_pipeline.stores.view import View
from ml_pipeline.stores.views import VIEWS
from ml_pipeline_tests.stores.samples import Row, identity, judgement_rows, key, partition
from ml_pipeline_tests.stores.test_duckdb import arrow
from ml_pipeline_tests.stores.write_schema import SCHEMAS


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
        {"version": 9, "name": "views of what is there and what changed, comments on every column"},
        {"version": 10, "name": "views compare on the probes that both have a score for"},
    ]
    tables = store.query("SELECT table_name FROM duckdb_tables() ORDER BY 1")["table_name"].to_pylist()
    assert tables == sorted([*TABLES, "schema_migrations"])
    views = store.query("SELECT view_name, comment FROM duckdb_views() WHERE NOT internal").to_pylist()
    assert {v["view_name"]: v["comment"] for v in views} == {v.name: v.description for v in VIEWS}


def test_no_table_view_or_column_is_without_its_meaning(store: DuckDBStore) -> None:
    store.migrate()
    for what in ("table_name FROM duckdb_tables()", "view_name FROM duckdb_views()"):
        assert store.query(f"SELECT {what} WHERE NOT internal AND comment IS NULL").num_rows == 0
    columns = store.query(
        "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal"
    ).to_pylist()
    assert [(c["table_name"], c["column_name"]) for c in columns if not c["comment"]] == []
    assert {c["table_name"] for c in columns} == {*TABLES, *(view.name for view in VIEWS), "schema_migrations"}


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_view_has_the_columns_whose_meaning_is_told_and_no_other(store: DuckDBStore, view: View) -> None:
    store.migrate()
    assert store.query(f"DESCRIBE {view.name}")["column_name"].to_pylist() == list(view.columns)


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


# What each version of the program made of an empty database is written down once, and never changed.


def make_as_of(version: int, path: Path) -> None:
    """Make an empty database of that version of the schema."""
    with duckdb.connect(str(path)) as connected:
        connected.execute((SCHEMAS / f"{version}.sql").read_text(encoding="utf-8"))


_SHAPE = {
    "duckdb_tables()": "table_name",
    "duckdb_views()": "view_name, sql",
    "duckdb_columns()": "table_name, column_name, data_type, is_nullable",
    "duckdb_constraints()": "table_name, constraint_type, constraint_column_names",
}


def shape(path: Path, *, comments: bool = True) -> dict[str, list[tuple[object, ...]]]:
    """Everything that a schema says, in no order."""
    with duckdb.connect(str(path), read_only=True) as connected:
        return {
            what: sorted(
                connected.execute(
                    f"SELECT {columns}{', comment' if comments and 'constraints' not in what else ''} FROM {what} "
                    "WHERE database_name = current_database() AND schema_name = 'main'"
                    + (" AND NOT internal" if "constraints" not in what else "")
                ).fetchall()
            )
            for what, columns in _SHAPE.items()
        }


def test_every_version_is_written_down_as_it_is() -> None:
    assert {path.name for path in SCHEMAS.iterdir()} == {f"{migration.version}.sql" for migration in MIGRATIONS}


def test_the_present_schema_is_the_one_that_was_written_down(store: DuckDBStore, tmp_path: Path) -> None:
    store.migrate()
    make_as_of(MIGRATIONS[-1].version, tmp_path / "written.duckdb")
    assert shape(store.path, comments=False) == shape(tmp_path / "written.duckdb", comments=False)


@pytest.mark.parametrize("version", [migration.version for migration in MIGRATIONS[:-1]])
def test_a_database_of_an_older_version_becomes_one_of_today_and_keeps_its_rows(
    store: DuckDBStore, tmp_path: Path, version: int
) -> None:
    make_as_of(version, store.path)
    rows = partition(identity(), a=True, b=None) | {"judgements": judgement_rows(identity(), "a", clarity=7.0)}
    had = insert_as_far_as_it_goes(store.path, rows)
    assert store.migrate() == list(range(version + 1, len(MIGRATIONS) + 1))
    today = DuckDBStore(tmp_path / "today.duckdb")
    today.migrate()
    assert shape(store.path) == shape(today.path)
    for name, table in TABLES.items():
        expected = [
            {c.name: row[c.name] if c.name in had[name] else c.earlier for c in table.columns}
            for row in (rows.get(name, []) if name in had else [])
        ]
        in_order = sorted(expected, key=itemgetter(*table.key))
        assert store.read(name).to_pylist() == in_order, name
    again = [row | {"sample": sample} for row in partition(identity(), a=True)["probe_results"] for sample in (1, 2)]
    store.write_partition(key(), arrow(partition(identity(), a=True) | {"probe_results": again}))
    assert store.query("SELECT sample FROM probe_results ORDER BY 1")["sample"].to_pylist() == [1, 2]


def insert_as_far_as_it_goes(path: Path, rows: dict[str, list[Row]]) -> dict[str, set[str]]:
    """Insert the rows with as many columns as the database has; return those, by table."""
    had: dict[str, set[str]] = {}
    with duckdb.connect(str(path)) as connected:
        found = connected.execute("SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal").fetchall()
        for table, column in found:
            had.setdefault(table, set()).add(column)
        for name in had.keys() & rows.keys():
            incoming = conform(TABLES[name], key(), rows[name])
            incoming = incoming.select([column for column in incoming.column_names if column in had[name]])
            connected.execute(f"INSERT INTO {name} BY NAME FROM incoming")
    return had


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

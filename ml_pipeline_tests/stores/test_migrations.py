from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from ml_pipeline.errors import StoreError
from ml_pipeline.stores import migrations
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline.stores.migrations import MIGRATIONS, Migration
from ml_pipeline.stores.rows import conform
from ml_pipeline.stores.tables import CHECKPOINT_TABLES, TABLES, Table
from ml_pipeline.stores.views import VIEWS
from ml_pipeline_tests.stores.samples import identity, key, partition, without
from ml_pipeline_tests.stores.test_duckdb import arrow


@pytest.fixture
def store(tmp_path: Path) -> DuckDBStore:
    return DuckDBStore(tmp_path / "scores.duckdb")


def test_migrations_are_numbered_from_one_without_gaps() -> None:
    assert [m.version for m in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))


def test_the_first_use_makes_everything_and_records_it_once(store: DuckDBStore) -> None:
    assert store.migrate() == [1, 2, 3]
    assert store.migrate() == []
    assert store.query("SELECT version, name FROM schema_migrations").to_pylist() == [
        {"version": 1, "name": "tables and views"},
        {"version": 2, "name": "training loss"},
        {"version": 3, "name": "strict and flexible readings, normalised LEK, degeneration"},
        {"version": 4, "name": "several samples of a probe, and templates"},
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
    fourth = Migration(4, "count", lambda: ("CREATE VIEW counted AS SELECT count(*) AS n FROM responses",))
    monkeypatch.setattr(migrations, "MIGRATIONS", (*MIGRATIONS, fourth))
    monkeypatch.setattr("ml_pipeline.stores.duckdb.MIGRATIONS", (*MIGRATIONS, fourth))
    assert store.query("FROM counted").to_pylist() == [{"n": 2}]
    assert store.query("SELECT version FROM schema_migrations ORDER BY 1")["version"].to_pylist() == [1, 2, 3, 4]
    monkeypatch.undo()
    for use in (lambda: store.query("SELECT 1"), store.migrate):
        with pytest.raises(StoreError, match=r"newer ml_pipeline \(schema 4, this one knows 3\).*Upgrade"):
            use()


def as_of(store: DuckDBStore, version: int) -> None:
    """Take out of the database what the migrations after `version` put in."""
    changes = {
        3: [
            "DROP TABLE degeneration",
            "ALTER TABLE heuristic_scores DROP lek_normalised",
            *(
                f"ALTER TABLE probe_results DROP {a}_{b}"
                for a in ("strict", "flexible")
                for b in ("extracted", "passed")
            ),
        ],
        2: ["DROP TABLE training_loss"],
    }
    with duckdb.connect(str(store.path)) as connected:
        for number in range(len(MIGRATIONS), version, -1):
            for statement in [*changes[number], f"DELETE FROM schema_migrations WHERE version = {number}"]:
                connected.execute(statement)


@pytest.mark.parametrize("version", [1, 2])
def test_a_database_of_an_older_version_gets_what_came_later_and_keeps_its_rows(
    store: DuckDBStore, version: int
) -> None:
    store.write_partition(key(), arrow(partition(identity(), a=True)))
    as_of(store, version)
    for name in ("training_loss", "degeneration"):
        assert store.read(name).num_rows == 0
    rows = store.read("probe_results").to_pylist()
    assert [(row["passed"], row["flexible_passed"]) for row in rows] == [(True, None)]
    store.write_partition(key(), arrow(partition(identity(), a=True)))
    assert store.read("probe_results")["flexible_passed"].to_pylist() == [True]
    assert {row["lek_normalised"] for row in store.read("heuristic_scores").to_pylist()} <= {None, 0.5}


def test_a_database_from_before_samples_keeps_its_answers_as_the_first_ones(
    store: DuckDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {
        name: replace(
            table,
            columns=tuple(column for column in table.columns if column.name not in ("sample", "template")),
            key=tuple(column for column in table.key if column != "sample"),
        )
        for name, table in TABLES.items()
    }
    rows = partition(identity(), a=True, b=None)
    for name in ("responses", "probe_results"):
        rows[name] = without(without(rows[name], "sample"), "template")
    with monkeypatch.context() as before:
        checkpoint_tables = tuple(old[table.name] for table in CHECKPOINT_TABLES)
        before.setattr(migrations, "MIGRATIONS", MIGRATIONS[:2])
        before.setattr(migrations, "CHECKPOINT_TABLES", checkpoint_tables)
        before.setattr(migrations, "VIEWS", ())
        before.setattr("ml_pipeline.stores.duckdb.MIGRATIONS", MIGRATIONS[:2])
        before.setattr("ml_pipeline.stores.duckdb.TABLES", old)
        store.write_partition(key(), {name: conform(old[name], key(), rows[name]) for name in rows})
    assert store.migrate() == [3]
    found = store.query("SELECT probe_id, passed, sample, template FROM probe_results ORDER BY probe_id").to_pylist()
    assert found == [
        {"probe_id": "a", "passed": True, "sample": 1, "template": None},
        {"probe_id": "b", "passed": None, "sample": 1, "template": None},
    ]
    again = [row | {"sample": sample} for row in partition(identity(), a=True)["probe_results"] for sample in (1, 2)]
    store.write_partition(key(), arrow(partition(identity(), a=True) | {"probe_results": again}))
    assert store.query("SELECT sample FROM probe_results ORDER BY 1")["sample"].to_pylist() == [1, 2]


def test_a_migration_that_fails_changes_nothing(store: DuckDBStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.migrate()
    bad = Migration(4, "bad", lambda: ("CREATE TABLE half (a INT)", "CREATE TABLE half (a INT)"))
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

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from ml_pipeline.errors import StoreError
from ml_pipeline.stores import migrations
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline.stores.migrations import MIGRATIONS, Migration
from ml_pipeline.stores.tables import CHECKPOINT_TABLES, TABLES, Table
from ml_pipeline.stores.views import VIEWS
from ml_pipeline_tests.stores.samples import identity, judgement_rows, key, partition
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
        {"version": 3, "name": "judges' votes"},
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


def test_a_database_from_before_training_losses_gets_their_table_and_keeps_its_rows(
    store: DuckDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(migrations, "MIGRATIONS", MIGRATIONS[:1])
        before.setattr("ml_pipeline.stores.duckdb.MIGRATIONS", MIGRATIONS[:1])
        store.write_partition(key(), arrow(partition(identity(), a=True)))
        names = store.query("SELECT table_name FROM duckdb_tables()")["table_name"].to_pylist()
        assert sorted(names) == sorted([*(t.name for t in CHECKPOINT_TABLES), "schema_migrations"])
    assert store.read("training_loss").num_rows == 0
    assert store.read("responses").num_rows == 2


def test_a_database_from_before_panels_keeps_its_judgements(store: DuckDBStore) -> None:
    store.migrate()
    with duckdb.connect(str(store.path)) as connected:
        connected.execute(
            "DROP TABLE judge_votes; DELETE FROM schema_migrations WHERE version = 3;"
            "ALTER TABLE judgements DROP rubric_sha256; ALTER TABLE judgements DROP votes;"
            "ALTER TABLE judgements DROP votes_asked"
        )
        old = arrow({"judgements": judgement_rows(identity(), "sum", clarity=7.0)})["judgements"]
        connected.register("present", old.drop_columns(["rubric_sha256", "votes", "votes_asked"]))
        connected.execute("INSERT INTO judgements BY NAME FROM present")
    (row,) = store.read("judgements").to_pylist()
    assert (row["score"], row["votes"], row["rubric_sha256"]) == (7.0, None, None)
    store.write_partition(key(), {"judgements": old, "judge_votes": TABLES["judge_votes"].schema.empty_table()})
    assert store.read("judgements")["votes"].to_pylist() == [1]


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

"""Columns in the UI: where they come from exists and lies above them in the graph, and each has a meaning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from ml_pipeline.assets.lineage import COPIED_FROM, DERIVED, lineage
from ml_pipeline.assets.metadata import described_columns
from ml_pipeline.assets.published import leaderboard, score_table
from ml_pipeline.assets.specs import CHECKPOINT_SPECS
from ml_pipeline.reports.column_meanings import LEADERBOARD_MEANINGS, SCORE_TABLE_MEANINGS
from ml_pipeline.reports.leaderboard import LEADERBOARD_COLUMNS
from ml_pipeline.reports.score_table import SCORE_TABLE_COLUMNS
from ml_pipeline.stores.io_managers import DuckDBIOManager
from ml_pipeline.stores.tables import TABLES

COLUMNS: dict[str, Sequence[str]] = {
    **{name: [column.name for column in table.columns] for name, table in TABLES.items()},
    "leaderboard": LEADERBOARD_COLUMNS,
    "score_table": SCORE_TABLE_COLUMNS,
}


def above(asset: str) -> set[str]:
    """The assets that lie above one in the graph."""
    deps = {spec.key.to_user_string(): spec.deps for spec in CHECKPOINT_SPECS}
    deps |= {name: definition.get_asset_spec().deps for name, definition in PUBLISHED.items()}
    found, todo = set(), [asset]
    while todo:
        for dep in deps.get(todo.pop(), ()):
            found.add(dep.asset_key.to_user_string())
            todo.append(dep.asset_key.to_user_string())
    return found


PUBLISHED = {"leaderboard": leaderboard, "score_table": score_table}


@pytest.mark.parametrize("table", COPIED_FROM)
def test_every_source_is_a_column_of_a_table_above(table: str) -> None:
    made = lineage(table, COLUMNS[table])
    assert made is not None
    assert set(DERIVED[table]) <= set(COLUMNS[table]) == set(COLUMNS[table]) | set(made.deps_by_column)
    for deps in made.deps_by_column.values():
        for dep in deps:
            upstream = dep.asset_key.to_user_string()
            assert dep.column_name in COLUMNS[upstream]
            assert upstream in above(table)


def test_lineage_says_what_is_copied_and_what_is_worked_out() -> None:
    made = lineage("checkpoint_scores", COLUMNS["checkpoint_scores"])
    assert made is not None
    assert made.deps_by_column["suite"] == [dg.TableColumnDep("probe_results", "suite")]
    assert made.deps_by_column["accuracy"] == [dg.TableColumnDep("probe_results", "passed")]
    assert lineage("training_loss", COLUMNS["training_loss"]) is None


def test_every_column_of_the_tables_for_people_has_a_meaning() -> None:
    assert set(SCORE_TABLE_COLUMNS) <= set(SCORE_TABLE_MEANINGS)
    assert set(LEADERBOARD_COLUMNS) <= set(LEADERBOARD_MEANINGS)
    assert all(column.description for column in described_columns(LEADERBOARD_COLUMNS, LEADERBOARD_MEANINGS).columns)


@pytest.fixture
def manager(tmp_path: Path) -> DuckDBIOManager:
    return DuckDBIOManager(path=str(tmp_path / "scores.duckdb"), folder=str(tmp_path / "parquet"))


def test_what_is_stored_has_the_meanings_of_the_definition_and_the_types_of_the_rows(manager: DuckDBIOManager) -> None:
    meanings = {"rank": "Place of <run>."}

    @dg.asset(io_manager_key="duckdb", metadata={"dagster/column_schema": described_columns(["rank"], meanings)})
    def places() -> pd.DataFrame:
        return pd.DataFrame({"rank": [1], "other": ["x"]})

    result = dg.materialize([places], resources={"duckdb": manager})
    (made,) = result.asset_materializations_for_node("places")
    schema = made.metadata["dagster/column_schema"].value
    assert isinstance(schema, dg.TableSchema)
    assert next((column.name, column.type, column.description) for column in schema.columns) == (
        "rank",
        "int64",
        "Place of \\<run>.",
    )
    assert schema.columns[1].description is None

"""What publishing makes of the stored scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb

from ml_pipeline.assets.published import database_snapshot, leaderboard
from ml_pipeline.resources import PipelineResource
from ml_pipeline.stores.io_managers import DuckDBIOManager
from ml_pipeline_tests.stores.samples import base_identity, identity, partition


def publish(root: Path, **stores: Any) -> dg.ExecuteInProcessResult:
    """Publish two scored checkpoints of a project in `root`."""
    settings = {
        "sources": {"lab": {"type": "local", "path": "runs"}},
        "base_models": {"gemma-1b": {}},
        "stores": {"duckdb": "scores.duckdb", **stores},
    }
    (root / "pipeline.yaml").write_text(json.dumps(settings))
    manager = DuckDBIOManager(path=str(root / "scores.duckdb"), folder=str(root / "parquet"))
    for who in (base_identity(), identity(100)):
        manager.store().write_partition(who["partition_key"], partition(who, a=True, b=False))
    return dg.materialize(
        [leaderboard, database_snapshot],
        resources={
            "duckdb_io_manager": manager,
            "pipeline": PipelineResource(config_path=str(root / "pipeline.yaml")),
        },
    )


def test_the_copy_for_analysts_has_the_leaderboard_and_the_meaning_of_every_column(tmp_path: Path) -> None:
    result = publish(tmp_path)
    (event,) = result.asset_materializations_for_node("database_snapshot")
    path = tmp_path / "snapshot" / "scores.duckdb"
    assert event.metadata["path"].value == str(path)
    assert event.metadata["size_bytes"].value == path.stat().st_size
    with duckdb.connect(str(path), read_only=True) as connected:
        rows = connected.execute("SELECT source, iteration, rank FROM leaderboard ORDER BY iteration").fetchall()
        assert rows == [("base", 0, None), ("lab", 100, 1)]
        untold = connected.execute(
            "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal AND comment IS NULL"
        ).fetchall()
    assert untold == []


def test_no_copy_is_made_where_it_is_not_wanted(tmp_path: Path) -> None:
    result = publish(tmp_path, duckdb_snapshot=False)
    assert result.success
    assert result.asset_materializations_for_node("database_snapshot") == []
    assert not (tmp_path / "snapshot").exists()

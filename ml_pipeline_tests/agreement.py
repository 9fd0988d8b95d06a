"""Checks that Parquet, DuckDB, the Influx buffer or server, and the report say the same, to the last row.

Used by the end-to-end tests, and by itself after a demo: `python -m ml_pipeline_tests.agreement`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from html import unescape
from typing import Any

import pyarrow as pa

from ml_pipeline.resources import suites_of
from ml_pipeline.settings import Settings
from ml_pipeline.settings_file import find_config, load_settings
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline.stores.influx_buffer import InfluxBuffer
from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.points import score_points
from ml_pipeline.stores.tables import TABLES
from ml_pipeline.stores.training_points import training_points
from ml_pipeline_tests.influxd import Influxd, as_stored


def assert_stores_agree(settings: Settings, influxd: Influxd | None = None) -> Mapping[str, int]:
    """Compare all four; return the number of rows by table, of points, and of checkpoints in the report.

    With a server the points must be on it, each of them once, and none may wait.
    """
    parquet, duckdb = ParquetStore(settings.parquet_path), DuckDBStore(settings.duckdb_path)
    counts: dict[str, int] = {}
    tables: dict[str, pa.Table] = {}
    for table in TABLES.values():
        truth, mirror = parquet.read_all(table), duckdb.read(table.name)
        assert _rows(truth) == _rows(mirror), f"{table.name}: Parquet and DuckDB differ"
        tables[table.name], counts[table.name] = truth, truth.num_rows
    assert counts["responses"] > 0
    losses = tables["training_loss"].to_pylist()
    time_base = settings.stores.influx.time_base
    points = score_points(tables, suites_of(settings), time_base) + training_points(losses, time_base)
    waiting = sorted(InfluxBuffer(settings.influx_buffer_path).lines())
    expected = [] if influxd else sorted(point.line() for point in points)
    assert waiting == expected, "the Influx buffer differs"
    assert influxd is None or influxd.points() == as_stored(points), "the Influx server differs"
    counts["points"] = len(points)
    report = settings.report_path.read_text(encoding="utf-8")
    text = " ".join(unescape(re.sub(r"<[^>]+>", " ", report)).split())
    scored = [
        row
        for row in tables["checkpoint_scores"].to_pylist()
        if row["category"] == "overall" and row["source"] != "base"
    ]
    for row in scored:
        accuracy, low, high = (f"{row[name]:.0%}" for name in ("accuracy", "accuracy_low", "accuracy_high"))
        shown = f"{row['label']} {accuracy} [{low[:-1]}\N{EN DASH}{high[:-1]}]"
        assert shown in text, f"the report lacks {shown}"
    counts["checkpoints_in_report"] = len(scored)
    whole = parquet.read_whole("score_table").to_pylist()
    accuracies = {
        (row["partition_key"], row["suite"]): row["value"]
        for row in whole
        if row["metric"] == "accuracy" and row["category"] == "overall"
    }
    for row in tables["checkpoint_scores"].to_pylist():
        if row["category"] == "overall":
            assert accuracies[row["partition_key"], row["suite"]] == row["accuracy"]
    return counts


def _rows(table: pa.Table) -> list[tuple[Any, ...]]:
    names = sorted(table.column_names)
    return sorted(tuple(repr(row[name]) for name in names) for row in table.to_pylist())


if __name__ == "__main__":
    print("All stores agree:", dict(assert_stores_agree(load_settings(find_config(os.environ)))))

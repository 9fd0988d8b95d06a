"""What the UI shows of a checkpoint's accuracy, out of a real database of several checkpoints."""

from __future__ import annotations

import base64
import struct
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pyarrow.compute as pc
import pytest

from ml_pipeline.assets.standing import position_in_run, standing_metadata
from ml_pipeline.checkpoints.checkpoint import Checkpoint as Found
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline_tests.evaluation.rows import CHECKPOINT
from ml_pipeline_tests.reports.sample_scores import Checkpoint, tables_of

PROBES = [f"p{index:02}" for index in range(20)]


def scored(iteration: int, right: int, *, source: str = "mac", run: str = "lek/a") -> Checkpoint:
    """A checkpoint that passes the first `right` probes."""
    passed = {probe: index < right for index, probe in enumerate(PROBES)}
    return Checkpoint(run=run, iteration=iteration, passed=passed, source=source)


@pytest.fixture
def store(tmp_path: Path) -> DuckDBStore:
    made = DuckDBStore(tmp_path / "scores.duckdb", 1)
    every = [
        scored(0, 10, source="base", run="tiny"),
        scored(100, 16),
        scored(200, 8),
        scored(300, 12),
        scored(200, 20, run="other"),
    ]
    tables = tables_of(every)
    for checkpoint in every:
        key = checkpoint.partition_key
        rows = {name: table.filter(pc.equal(table["partition_key"], key)) for name, table in tables.items()}
        made.write_partition(key, rows)
    return made


def found(iteration: int, *, source: str = "mac", run: str = "lek/a") -> Found:
    return replace(CHECKPOINT, source=source, run=run, iteration=iteration, base_model="tiny")


def shown(store: DuckDBStore, checkpoint: Found) -> dict[str, object]:
    warnings: list[str] = []
    metadata = standing_metadata(store, checkpoint, warnings.append)
    assert warnings == []
    return {name: value.value for name, value in metadata.items()}


def test_a_checkpoint_is_shown_against_its_base_and_the_one_before(store: DuckDBStore) -> None:
    metadata = shown(store, found(200))
    assert str(metadata["capability"]).startswith("40% [")
    assert str(metadata["capability"]).endswith("] of 20 answers right")
    # 2 of 20 lost against the base, 8 against iteration 100: McNemar's exact two-sided p is 0.5 and 2 / 2**8.
    assert str(metadata["capability_against_base"]).startswith("no clear difference: −10 points [")  # noqa: RUF001
    # Both allow for three checkpoints (and two steps): 1.5 and 2 * 2 / 2**8.
    assert _plain(metadata["capability_against_base"]).endswith("], p = 1.00 on 20 probes, against the base")
    assert metadata["capability_delta_base"] == pytest.approx(-0.1)
    assert _plain(metadata["capability_against_previous"]).startswith("worse: −40 points [")  # noqa: RUF001
    assert _plain(metadata["capability_against_previous"]).endswith("], p = 0.016 on 20 probes, against iteration 100")
    assert metadata["capability_delta_previous"] == pytest.approx(-0.4)
    lost = str(metadata["capability_lost_against_base"]).splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in lost[2:]] == ["p08", "p09"]


def test_where_the_token_limit_decides_it_is_said_as_in_the_report(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path / "scores.duckdb", 1)
    talkative = replace(scored(0, 0, source="base", run="tiny"), finish_reasons=dict.fromkeys(PROBES, "length"))
    for checkpoint in (talkative, scored(100, 16)):
        store.write_partition(checkpoint.partition_key, tables_of([checkpoint]))
    told = str(shown(store, found(100))["capability_against_base"])
    assert told.startswith("the token limit decides: it cuts 100% of the base's answers and 0% of these; no probe ")


def _plain(value: object) -> str:
    return str(value).replace("\u00a0", " ")


def test_the_curve_of_the_run_is_a_small_picture(store: DuckDBStore) -> None:
    markdown = str(shown(store, found(300))["capability_curve"])
    prefix = "![accuracy](data:image/png;base64,"
    assert markdown.startswith(prefix)
    assert len(markdown) < 40_000
    png = base64.b64decode(markdown[len(prefix) : -1])
    assert png.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", png[16:24])
    assert width == 414
    assert 150 < height < 300


def test_a_base_is_compared_with_nothing_and_a_first_checkpoint_with_the_base_alone(store: DuckDBStore) -> None:
    base = shown(store, found(0, source="base", run="tiny"))
    assert set(base) == {"capability"}
    first = shown(store, found(100))
    assert "capability_against_base" in first
    assert "capability_against_previous" not in first


def test_a_database_that_cannot_be_read_costs_the_comparison_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "scores.duckdb").write_text("no database")
    warnings: list[str] = []
    assert standing_metadata(DuckDBStore(tmp_path / "scores.duckdb", 1), found(200), warnings.append) == {}
    assert warnings[0].startswith("mac.lek+a@200: no comparison is shown: ")


def test_values_that_are_figures_can_be_plotted_over_partitions(store: DuckDBStore) -> None:
    metadata = standing_metadata(store, found(200), print)
    assert isinstance(metadata["capability_delta_base"], dg.FloatMetadataValue)


def test_a_checkpoint_knows_its_place_in_its_run(store: DuckDBStore, tmp_path: Path) -> None:
    places = [position_in_run(store, found(iteration)) for iteration in (50, 100, 200, 300, 400)]
    assert places == [1, 1, 2, 3, 4]
    assert position_in_run(DuckDBStore(tmp_path / "none.duckdb", 1), found(100)) == 1

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest

from ml_pipeline.errors import StoreError
from ml_pipeline.stores.io_managers import DuckDBIOManager, InfluxIOManager, ParquetIOManager
from ml_pipeline.stores.metadata import receipt_metadata
from ml_pipeline.stores.points import ScorePoint, score_points
from ml_pipeline.stores.rows import conform
from ml_pipeline.stores.tables import PROBE_RESULTS, TABLES
from ml_pipeline_tests.servers import free_port
from ml_pipeline_tests.stores.samples import Row, capability_suite, evaluation_row, identity, key, partition, probe_rows

CHECKPOINTS = dg.DynamicPartitionsDefinition(name="checkpoints")
KEYS = [key(i) for i in (100, 200, 300)]


def who(context: dg.AssetExecutionContext) -> Row:
    return identity(int(context.partition_key.split("@")[1]))


@dg.asset(partitions_def=CHECKPOINTS)
def probe_results(context: dg.AssetExecutionContext) -> pa.Table:
    return pa.Table.from_pylist(probe_rows(who(context), a=True, b=False))


@dg.asset(partitions_def=CHECKPOINTS, name="probe_results")
def probe_results_of_pandas(context: dg.AssetExecutionContext) -> pd.DataFrame:
    return pd.DataFrame(probe_rows(who(context), a=True, b=None))


@dg.asset
def score_table(probe_results: pa.Table) -> pa.Table:
    return probe_results.select(["iteration", "probe_id", "passed"])


@dg.asset
def leaderboard(score_table: pd.DataFrame) -> pd.DataFrame:
    return score_table.groupby("iteration", as_index=False).agg(correct=("passed", "sum"))


@dg.asset
def reader(leaderboard: pa.Table, score_table: pa.Table) -> None:
    assert isinstance(leaderboard, pa.Table)


ASSETS: list[Any] = [probe_results, score_table, leaderboard, reader]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        made.add_dynamic_partitions("checkpoints", KEYS)
        yield made


@pytest.fixture(params=["parquet", "duckdb"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> ParquetIOManager | DuckDBIOManager:
    folder = str(tmp_path / "parquet")
    if request.param == "parquet":
        return ParquetIOManager(folder=folder)
    return DuckDBIOManager(path=str(tmp_path / "scores.duckdb"), folder=folder)


def run(
    instance: dg.DagsterInstance,
    manager: dg.ConfigurableIOManager,
    names: Sequence[str],
    partition_key: str | None = None,
    assets: Sequence[Any] = ASSETS,
) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        assets,
        selection=[*names],
        instance=instance,
        partition_key=partition_key,
        resources={"io_manager": manager},
    )


def metadata(result: dg.ExecuteInProcessResult, name: str) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node(name)
    return {label: value.value for label, value in event.metadata.items()}


def test_one_partition_all_partitions_and_none(
    instance: dg.DagsterInstance, manager: ParquetIOManager | DuckDBIOManager, tmp_path: Path
) -> None:
    for name in KEYS[:2]:
        result = run(instance, manager, ["probe_results"], name)
        found = metadata(result, "probe_results")
        path = tmp_path / "parquet" / "probe_results" / f"{name}.parquet"
        assert (found["dagster/row_count"], found["path"], found["dagster/uri"]) == (2, str(path), path.as_uri())
        columns = found["dagster/column_schema"].columns
        meanings = [(c.name, c.description.replace("<", "\\<")) for c in PROBE_RESULTS.columns]
        assert [(c.name, c.description) for c in columns] == meanings
        nullable = [c.name for c in columns if c.constraints.nullable]
        known = ["category", "template", "passed", "unscored_reason", "expected", "extracted", "response"]
        assert nullable[:8] == [*known, "finish_reason"]
        readings = ["strict_extracted", "strict_passed", "flexible_extracted", "flexible_passed"]
        assert nullable[8:] == [*readings, "passed_normalised"]
    # The third partition was never stored: the others are not hidden by it.
    result = run(instance, manager, ["score_table", "leaderboard", "reader"])
    assert metadata(result, "score_table")["dagster/row_count"] == 4
    board = result.asset_value("leaderboard")
    assert board.to_dict("records") == [{"iteration": 100, "correct": 1}, {"iteration": 200, "correct": 1}]
    assert [c.name for c in metadata(result, "leaderboard")["dagster/column_schema"].columns] == [
        "iteration",
        "correct",
    ]


def test_writing_a_partition_again_replaces_it(
    instance: dg.DagsterInstance, manager: ParquetIOManager | DuckDBIOManager
) -> None:
    run(instance, manager, ["probe_results"], KEYS[0])
    run(instance, manager, ["probe_results"], KEYS[0], [probe_results_of_pandas])
    expected = probe_rows(identity(100), a=True, b=None)

    @dg.asset(partitions_def=CHECKPOINTS)
    def both(probe_results: pa.Table) -> None:
        assert probe_results.to_pylist() == expected

    @dg.asset(partitions_def=CHECKPOINTS)
    def frame(probe_results: pd.DataFrame) -> None:
        assert list(probe_results["probe_id"]) == ["a", "b"]
        assert pd.isna(probe_results["passed"].iloc[1])

    assets = [probe_results_of_pandas, both, frame]
    assert run(instance, manager, ["both", "frame"], KEYS[0], assets).success
    with pytest.raises(StoreError, match=r"probe_results has no partition 'lab\.g1-lek@200'"):
        run(instance, manager, ["both"], KEYS[1], assets)


def test_a_range_of_partitions_is_loaded_together(
    instance: dg.DagsterInstance, manager: ParquetIOManager | DuckDBIOManager
) -> None:
    for name in KEYS:
        run(instance, manager, ["probe_results"], name)
    seen: list[int] = []

    @dg.asset(partitions_def=CHECKPOINTS, backfill_policy=dg.BackfillPolicy.single_run())
    def over_range(probe_results: pa.Table) -> None:
        seen.append(probe_results.num_rows)

    dg.materialize(
        [probe_results, over_range],
        selection=[over_range],
        instance=instance,
        resources={"io_manager": manager},
        tags={"dagster/asset_partition_range_start": KEYS[1], "dagster/asset_partition_range_end": KEYS[2]},
    )
    assert seen == [4]


def test_what_cannot_be_stored_is_refused(
    instance: dg.DagsterInstance, manager: ParquetIOManager | DuckDBIOManager
) -> None:
    @dg.asset
    def words() -> list[str]:
        return ["no", "table"]

    @dg.asset(partitions_def=CHECKPOINTS)
    def unheard_of() -> pa.Table:
        return pa.table({"a": [1]})

    @dg.asset(partitions_def=CHECKPOINTS, name="probe_results", backfill_policy=dg.BackfillPolicy.single_run())
    def several() -> pa.Table:
        return pa.table({"a": [1]})

    with pytest.raises(StoreError, match="words returned a list"):
        run(instance, manager, ["words"], None, [words])
    with pytest.raises(StoreError, match="table 'unheard_of' is unknown"):
        run(instance, manager, ["unheard_of"], KEYS[0], [unheard_of])
    with pytest.raises(StoreError, match="one output holds 3 partitions"):
        dg.materialize(
            [several],
            instance=instance,
            resources={"io_manager": manager},
            tags={"dagster/asset_partition_range_start": KEYS[0], "dagster/asset_partition_range_end": KEYS[2]},
        )


def test_an_op_writes_partition_after_partition_and_a_failure_keeps_the_others(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    manager = DuckDBIOManager(path=str(tmp_path / "scores.duckdb"), folder=str(tmp_path / "parquet"))
    names = ("evaluations", "probe_results", "checkpoint_scores")

    @dg.multi_asset(
        specs=[dg.AssetSpec(name, partitions_def=CHECKPOINTS, skippable=True) for name in names],
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def score(
        context: dg.AssetExecutionContext, scores: dg.ResourceParam[DuckDBIOManager]
    ) -> Iterator[dg.AssetMaterialization]:
        for name in context.partition_keys:
            if name == KEYS[1]:
                continue
            tables = partition(identity(int(name.split("@")[1])), a=True)
            for receipt in scores.store().write_partition(name, {n: tables[n] for n in names}):
                yield dg.AssetMaterialization(receipt.table, partition=name, metadata=receipt_metadata(receipt))
        raise dg.Failure(f"{KEYS[1]} could not be scored")

    result = dg.materialize(
        [score],
        instance=instance,
        resources={"scores": manager, "io_manager": manager},
        tags={"dagster/asset_partition_range_start": KEYS[0], "dagster/asset_partition_range_end": KEYS[2]},
        raise_on_error=False,
    )
    assert not result.success
    for name in names:
        assert instance.get_materialized_partitions(dg.AssetKey(name)) == {KEYS[0], KEYS[2]}
    board = manager.store().duckdb.query("SELECT partition_key FROM latest_leaderboard ORDER BY 1")
    assert board["partition_key"].to_pylist() == [KEYS[0], KEYS[2]]


@dg.asset(partitions_def=CHECKPOINTS)
def score_points_asset(context: dg.AssetExecutionContext) -> list[ScorePoint]:
    me = who(context)
    rows = {"evaluations": [evaluation_row(me)], "probe_results": probe_rows(me, sum=True, loop=False)}
    tables = {name: conform(TABLES[name], context.partition_key, some) for name, some in rows.items()}
    return score_points(tables, [capability_suite()])


@dg.asset(partitions_def=CHECKPOINTS)
def wants_points(score_points_asset: Any) -> None:
    """Depends on what cannot be loaded."""


def test_points_wait_in_the_buffer_until_there_is_a_server(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    manager = InfluxIOManager(buffer_folder=str(tmp_path / "buffer"))
    assets = [score_points_asset, wants_points]
    for _ in range(2):
        result = run(instance, manager, ["score_points_asset"], KEYS[0], assets)
        found = metadata(result, "score_points_asset")
        assert (found["points"], found["points_sent"], found["points_waiting"], found["points_rejected"]) == (
            2,
            0,
            2,
            0,
        )
        assert "stores.influx.url" in found["waiting_because"]
    assert manager.buffer().pending().points == 2
    with pytest.raises(StoreError, match="cannot be loaded"):
        run(instance, manager, ["wants_points"], KEYS[0], assets)


def test_a_server_that_is_away_fails_no_run(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    manager = InfluxIOManager(buffer_folder=str(tmp_path / "buffer"), url=f"http://127.0.0.1:{free_port()}")
    found = metadata(
        run(instance, manager, ["score_points_asset"], KEYS[0], [score_points_asset]), "score_points_asset"
    )
    assert found["points_waiting"] == 2
    assert "refused" in found["waiting_because"]

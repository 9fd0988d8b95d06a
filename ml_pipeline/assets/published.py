"""The unpartitioned assets that follow from all scores: the tidy table, the leaderboard, the HTML report and
the copy of the database for analysts."""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
import pandas as pd
import pyarrow as pa

from ml_pipeline.assets.curve_plot import curve_plot
from ml_pipeline.assets.lineage import lineage_metadata
from ml_pipeline.assets.metadata import described_columns, markdown_table, report_link
from ml_pipeline.assets.specs import OWNER
from ml_pipeline.reports.column_meanings import LEADERBOARD_MEANINGS, SCORE_TABLE_MEANINGS
from ml_pipeline.reports.failures import current_failures
from ml_pipeline.reports.html_report import write_report
from ml_pipeline.reports.leaderboard import LEADERBOARD_COLUMNS
from ml_pipeline.reports.leaderboard import leaderboard as rank_checkpoints
from ml_pipeline.reports.runs import run_curves
from ml_pipeline.reports.score_table import SCORE_TABLE_COLUMNS
from ml_pipeline.reports.score_table import score_table as tidy_scores
from ml_pipeline.reports.scores import load_scores
from ml_pipeline.resources import PipelineResource
from ml_pipeline.stores.io_managers import DuckDBIOManager
from ml_pipeline.stores.table import described

_SCORES = ("checkpoint_scores", "heuristic_scores", "judgements")  # what these were made of lies above them
_SCORES_AND_SIGNS = (*_SCORES, "degeneration", "training_loss")
_GROUP, _AFTER = "publish", "analyse"  # what follows within a group would bend all arrows of the graph
_PREVIEW_ROWS = 20
_PLOTS = 6
_SCORE_COLUMNS = ("source", "run", "iteration", "suite", "metric", "value", "low", "high", "count", "unscored")
_RANK_COLUMNS = (
    *("source", "run", "iteration", "suite", "rank", "accuracy", "accuracy_low", "accuracy_high"),
    *("total", "unscored", "delta", "p_value", "verdict"),
)
"""What the previews in the UI show; the tables have more columns."""


@dg.asset(
    deps=_SCORES_AND_SIGNS,
    group_name=_GROUP,
    kinds={"pandas", "parquet"},
    owners=[OWNER],
    io_manager_key="parquet_io_manager",
    metadata={"dagster/column_schema": described_columns(SCORE_TABLE_COLUMNS, SCORE_TABLE_MEANINGS)},
    description="Every score of every checkpoint with its interval, one row a figure: for notebooks.",
)
def score_table(
    context: dg.AssetExecutionContext, duckdb_io_manager: dg.ResourceParam[DuckDBIOManager]
) -> pd.DataFrame:
    """The tidy score table."""
    table = tidy_scores(load_scores(duckdb_io_manager.store().duckdb))
    overall = table[table["category"] == "overall"]
    preview = overall[list(_SCORE_COLUMNS)]
    context.add_output_metadata(
        {"overall": dg.MetadataValue.md(_preview(preview)), **lineage_metadata("score_table", table.columns)}
    )
    return table


@dg.asset(
    deps=_SCORES,
    group_name=_GROUP,
    kinds={"pandas", "duckdb"},
    owners=[OWNER],
    io_manager_key="duckdb_io_manager",
    metadata={"dagster/column_schema": described_columns(LEADERBOARD_COLUMNS, LEADERBOARD_MEANINGS)},
    description="Every checkpoint ranked within its run, with its gain over the base model and whether that is noise.",
)
def leaderboard(context: dg.AssetExecutionContext, duckdb_io_manager: dg.ResourceParam[DuckDBIOManager]) -> pa.Table:
    """The ranking of each run's checkpoints."""
    table = rank_checkpoints(load_scores(duckdb_io_manager.store().duckdb))
    ranked = table.loc[table["rank"].notna(), list(_RANK_COLUMNS)]
    context.add_output_metadata(
        {"ranking": dg.MetadataValue.md(_preview(ranked)), **lineage_metadata("leaderboard", table.columns)}
    )
    return described(pa.Table.from_pandas(table, preserve_index=False), LEADERBOARD_MEANINGS)


@dg.asset(
    deps=_SCORES_AND_SIGNS,
    group_name=_GROUP,
    kinds={"html"},
    owners=[OWNER],
    description="One HTML file that says which checkpoint to keep and where a run went wrong.",
)
def score_report(
    pipeline: PipelineResource, duckdb_io_manager: dg.ResourceParam[DuckDBIOManager]
) -> dg.MaterializeResult[None]:
    """The report, and a plot of each run for the UI."""
    scores = load_scores(duckdb_io_manager.store().duckdb)
    curves = run_curves(scores)
    path = write_report(scores, pipeline.settings().report_path, generated_at=datetime.now(UTC), curves=curves)
    plots = {f"{curve.name} {curve.suite}": curve_plot(curve) for curve in curves[:_PLOTS]}
    return dg.MaterializeResult(
        metadata={
            "report": report_link(pipeline.settings()),
            "size_bytes": path.stat().st_size,
            "failed": dg.MetadataValue.md(
                markdown_table([{"checkpoint": one.name, "why": one.words} for one in current_failures(scores)])
            ),
            **plots,
        }
    )


@dg.asset(
    deps=[leaderboard],
    group_name=_AFTER,
    kinds={"duckdb"},
    owners=[OWNER],
    output_required=False,
    description="The copy of the database that analysts may hold open: nobody waits for it.",
)
def database_snapshot(
    context: dg.AssetExecutionContext,
    pipeline: PipelineResource,
    duckdb_io_manager: dg.ResourceParam[DuckDBIOManager],
) -> Iterator[dg.MaterializeResult[None]]:
    """The copy, made after the leaderboard, which is in it too; nothing where `stores.duckdb_snapshot` is off."""
    if not pipeline.settings().stores.duckdb_snapshot:
        context.log.info("stores.duckdb_snapshot is off: no copy is made.")
        return
    made = duckdb_io_manager.store().duckdb.snapshot()
    yield dg.MaterializeResult(
        metadata={
            "path": dg.MetadataValue.path(made.path),
            "size_bytes": made.size_bytes,
            "seconds": made.seconds,
            "writers_waited_s": made.held_s,
            "is_new": made.is_new,
        }
    )


def _preview(table: pd.DataFrame) -> str:
    return markdown_table(
        [dict(zip(table.columns, row, strict=True)) for row in table.head(_PREVIEW_ROWS).itertuples(index=False)]
    )

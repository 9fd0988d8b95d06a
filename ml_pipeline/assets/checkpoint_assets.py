"""The assets of one checkpoint, made by one op for many checkpoints.

One op and not one per asset, for three reasons: one load of the base model serves every checkpoint and every stage of
a run; each checkpoint is recorded as soon as it is finished, so that a killed run loses nothing; and one that fails
neither stops the others nor keeps the stages after it from running for them. In the UI the assets are as separate as
ever: each can be materialised, backfilled and inspected by itself.
"""

from collections.abc import Iterator

import dagster as dg

from ml_pipeline.assets.check_specs import CHECKPOINT_CHECKS
from ml_pipeline.assets.scoring_run import ScoringRun
from ml_pipeline.assets.specs import CHECKPOINT_SPECS, MODEL_POOL
from ml_pipeline.automation.native_crashes import crash_notes
from ml_pipeline.automation.partitions import CHECKPOINT_PARTITIONS
from ml_pipeline.automation.run_locks import run_lock
from ml_pipeline.resources import BackendResource, PipelineResource
from ml_pipeline.stores.io_managers import DuckDBIOManager, InfluxIOManager


def build_checkpoint_assets(checkpoints_per_run: int) -> dg.AssetsDefinition:
    """The op and its assets; a backfill puts at most `checkpoints_per_run` checkpoints into one run."""

    @dg.multi_asset(
        name="score_checkpoints",
        specs=CHECKPOINT_SPECS,
        check_specs=CHECKPOINT_CHECKS,
        partitions_def=CHECKPOINT_PARTITIONS,
        backfill_policy=dg.BackfillPolicy.multi_run(checkpoints_per_run),
        can_subset=True,
        pool=MODEL_POOL,
        description="Scores checkpoints with one load of their base model, each recorded as it is finished.",
    )
    def score_checkpoints(
        context: dg.AssetExecutionContext,
        pipeline: PipelineResource,
        backend: BackendResource,
        duckdb_io_manager: dg.ResourceParam[DuckDBIOManager],
        influx_io_manager: dg.ResourceParam[InfluxIOManager],
    ) -> Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation]:
        locks = pipeline.settings().run_locks_path
        with run_lock(locks, context.run.run_id), crash_notes(locks, context.run.run_id) as notes:
            run = ScoringRun(context, pipeline, backend, duckdb_io_manager.store(), influx_io_manager, notes)
            yield from run.score(context.partition_keys)
        if run.failed:
            raise dg.Failure(
                description=f"{len(run.failed)} of {len(context.partition_keys)} checkpoints failed; "
                "what the others gave is stored.\n"
                + "\n".join(f"{key}: {reason}" for key, reason in run.failed.items()),
                metadata={key: dg.MetadataValue.text(reason) for key, reason in run.failed.items()},
                allow_retries=False,
            )

    return score_checkpoints

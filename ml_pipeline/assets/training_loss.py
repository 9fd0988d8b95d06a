"""The losses of training runs, read from their logs as they grow.

One op for any number of runs, so that one tick of the sensor is one run of Dagster; each training run is recorded as
it is read, and one that cannot be read keeps none of the others back.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import dagster as dg
from pydantic import Field

from ml_pipeline.assets.metadata import markdown_table
from ml_pipeline.assets.specs import LOG_POOL, TRAINING_LOSS_SPEC
from ml_pipeline.automation.partitions import TRAINING_RUN_PARTITIONS
from ml_pipeline.automation.run_locks import run_lock
from ml_pipeline.checkpoints.catalogue import Catalogue
from ml_pipeline.errors import MlPipelineError
from ml_pipeline.printable import without_controls
from ml_pipeline.resources import PipelineResource
from ml_pipeline.stores.io_managers import DuckDBIOManager, InfluxIOManager
from ml_pipeline.stores.metadata import flush_metadata, receipt_metadata
from ml_pipeline.stores.points import ScorePoint, batch_name
from ml_pipeline.stores.tables import TRAINING_LOSS
from ml_pipeline.training.follow import FollowedRun, LogFollower
from ml_pipeline.training.summary import loss_summary

_RUNS_A_BACKFILL = 1000


class TrainingLogConfig(dg.Config):
    """What the sensor asks for."""

    runs: list[str] = Field(
        default=[], description="Training runs (partitions) to look at, when the run has no partition."
    )


@dg.multi_asset(
    name="training_loss",
    specs=[TRAINING_LOSS_SPEC],
    partitions_def=TRAINING_RUN_PARTITIONS,
    backfill_policy=dg.BackfillPolicy.multi_run(_RUNS_A_BACKFILL),
    can_subset=True,
    pool=LOG_POOL,
    # A machine that is away for a moment: what was read before it went is not read again.
    retry_policy=dg.RetryPolicy(max_retries=2, delay=5),
    description="Reads what was added to training logs; a partition that is materialised by hand is read as a whole.",
)
def training_loss(
    context: dg.AssetExecutionContext,
    config: TrainingLogConfig,
    pipeline: PipelineResource,
    duckdb_io_manager: dg.ResourceParam[DuckDBIOManager],
    influx_io_manager: dg.ResourceParam[InfluxIOManager],
) -> Iterator[dg.AssetMaterialization]:
    """The rows and points of each training run that has something new."""
    by_hand = context.has_partition_key or context.has_partition_key_range
    keys = list(context.partition_keys) if by_hand else config.runs
    settings = pipeline.settings()
    follower = LogFollower(settings, duckdb_io_manager.store(), Catalogue(settings).source)
    sender = _Sender(influx_io_manager)
    failed: dict[str, str] = {}
    with run_lock(settings.run_locks_path, context.run.run_id):
        for key in keys:
            try:
                followed = follower.follow(key, partial(sender.send, key), from_start=by_hand)
            except MlPipelineError as error:
                failed[key] = str(error)
                context.log.error(f"{key}: {error}")
                continue
            if followed is not None:
                for problem in followed.problems:
                    context.log.warning(without_controls(problem))
                yield dg.AssetMaterialization(
                    TRAINING_LOSS_SPEC.key, partition=key, metadata={**_metadata(followed), **sender.metadata}
                )
    if failed:
        raise dg.Failure(
            description=f"{len(failed)} of {len(keys)} training runs could not be read; what the others gave is "
            "stored.\n" + "\n".join(f"{key}: {reason}" for key, reason in failed.items()),
            metadata={key: dg.MetadataValue.text(reason) for key, reason in failed.items()},
        )


class _Sender:
    """Puts points into the buffer and sends what waits, until the server turns out to be away.

    `metadata` says what came of it last.
    """

    def __init__(self, influx: InfluxIOManager) -> None:
        self.metadata: dict[str, dg.MetadataValue[Any]] = {}
        self._influx = influx
        self._away = ""

    def send(self, partition_key: str, points: Sequence[ScorePoint], emptied: Sequence[str]) -> None:
        for batch in emptied:
            self._influx.buffer().add(partition_key, batch_name(TRAINING_LOSS.name, batch), [])
        self.metadata = {"points": dg.MetadataValue.int(len(points))}
        if self._away:
            # Hundreds of runs must not wait for the same time-out one after another.
            self._influx.keep(partition_key, points)
            self.metadata["waiting_because"] = dg.MetadataValue.text(self._away)
            return
        report = self._influx.write_partition(partition_key, points)
        self._away = report.stopped_because
        self.metadata |= flush_metadata(report)


def _metadata(followed: FollowedRun) -> dict[str, dg.MetadataValue[Any]]:
    summary = loss_summary(followed.rows)
    return {
        **receipt_metadata(followed.receipt),
        "new_rows": dg.MetadataValue.int(followed.new_rows),
        **{name: dg.MetadataValue.float(value) for name, value in summary.figures.items()},
        "curve": dg.MetadataValue.text(summary.curve),
        "last_losses": dg.MetadataValue.md(markdown_table(summary.last)),
        "problems": dg.MetadataValue.text("\n".join(followed.problems) or "none"),
    }

"""When the score table, the leaderboard and the report are made again."""

import time

import dagster as dg

from ml_pipeline.assets.specs import MODEL_POOL
from ml_pipeline.automation.jobs import publish_scores_job
from ml_pipeline.automation.run_locks import run_that_holds

_SCORES, _LOSSES = dg.AssetKey("checkpoint_scores"), dg.AssetKey("training_loss")
_REPORT = dg.AssetKey("score_report")
_WHILE_SCORING_S = 600.0
"""Publishing takes a core from scoring for some seconds, so a long run shows what it has only this often."""


def last_made(instance: dg.DagsterInstance, asset: dg.AssetKey) -> float:
    """When an asset was last materialised, for any partition: seconds since 1970, 0 for never."""
    event = instance.get_latest_materialization_event(asset)
    return event.timestamp if event else 0.0


def is_published(instance: dg.DagsterInstance, *, losses_too: bool = False) -> bool:
    """Whether the report is newer than every score, and `losses_too` than every loss, which come by the minute."""
    assets = (_SCORES, _LOSSES) if losses_too else (_SCORES,)
    return last_made(instance, _REPORT) >= max(last_made(instance, asset) for asset in assets)


def build_publish_sensor(interval_s: int) -> dg.SensorDefinition:
    """The sensor that publishes new scores: soon after a run, and now and then during a long one."""

    @dg.sensor(
        name="publish_sensor",
        job=publish_scores_job,
        minimum_interval_seconds=interval_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="New scores: the table, the leaderboard and the report are made again.",
    )
    def publish_sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        instance = context.instance
        if is_published(instance):
            return dg.SkipReason("No score is newer than the report.")
        if run_that_holds(MODEL_POOL, instance) and time.time() - last_made(instance, _REPORT) < _WHILE_SCORING_S:
            return dg.SkipReason("Scoring goes on; its scores are published when it ends, or in ten minutes.")
        # The key keeps a report that cannot be made from being tried again before there is a newer score.
        return dg.RunRequest(run_key=f"scores of {last_made(instance, _SCORES)}")

    return publish_sensor

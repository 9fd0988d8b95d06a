"""Finds new checkpoints and has them scored, without a click."""

import hashlib

import dagster as dg

from ml_pipeline.assets.specs import TRAINING_RUNS
from ml_pipeline.automation.jobs import score_checkpoints_job
from ml_pipeline.automation.partitions import CHECKPOINT_PARTITIONS, plan_runs, range_tags
from ml_pipeline.checkpoints.catalogue import Catalogue
from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.errors import MlPipelineError
from ml_pipeline.resources import PipelineResource

_MOST_KEYS_A_TICK = 25_000


def build_discovery_sensor(interval_s: int) -> dg.SensorDefinition:
    """The sensor that finds new checkpoints, adds their partitions and requests runs of several at once."""

    @dg.sensor(
        name="discovery_sensor",
        job=score_checkpoints_job,
        minimum_interval_seconds=interval_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Looks through every source; a new checkpoint becomes a partition and is scored.",
    )
    def discovery_sensor(
        context: dg.SensorEvaluationContext, pipeline: PipelineResource
    ) -> dg.SensorResult | dg.SkipReason:
        try:
            settings = pipeline.settings()
            found = Catalogue(settings).look()
        except MlPipelineError as error:
            return dg.SkipReason(str(error))
        for problem in found.problems:
            context.log.warning(problem)
        known = set(context.instance.get_dynamic_partitions(str(CHECKPOINT_PARTITIONS.name)))
        new = [checkpoint for checkpoint in found.checkpoints if checkpoint.key not in known][:_MOST_KEYS_A_TICK]
        if not new:
            return dg.SkipReason(
                f"Nothing new: {len(found.checkpoints)} checkpoints known, {len(found.growing)} still being written, "
                f"{len(found.problems)} problems."
            )
        by_key = {checkpoint.key: checkpoint for checkpoint in new}
        runs = plan_runs(
            list(by_key),
            {key: checkpoint.base_model for key, checkpoint in by_key.items()},
            settings.limits.checkpoints_per_run,
        )
        return dg.SensorResult(
            dynamic_partitions_requests=[CHECKPOINT_PARTITIONS.build_add_request(list(by_key))],
            run_requests=[
                dg.RunRequest(run_key=run_key([by_key[key] for key in keys]), tags=range_tags(keys)) for keys in runs
            ],
            asset_events=[
                dg.AssetObservation(
                    TRAINING_RUNS,
                    metadata={
                        "new_checkpoints": len(new),
                        "known_checkpoints": len(found.checkpoints),
                        "still_being_written": len(found.growing),
                        "problems": dg.MetadataValue.md("\n\n".join(found.problems) or "none"),
                    },
                )
            ],
        )

    return discovery_sensor


def run_key(checkpoints: list[Checkpoint]) -> str:
    """The name of a run by what it scores, so that no restart or reset of the sensor scores the same files twice."""
    content = "\n".join(f"{c.key} {c.mtime_ns} {c.size_bytes}" for c in checkpoints)
    return f"{checkpoints[0].key} +{len(checkpoints) - 1} {hashlib.sha256(content.encode()).hexdigest()[:12]}"

"""Finds new files of responses, and changed ones, and has them scored and judged."""

import time

import dagster as dg
from pydantic import TypeAdapter, ValidationError

from ml_pipeline.automation.jobs import judge_responses_job, response_job_names, score_responses_job
from ml_pipeline.automation.partitions import RESPONSE_FILE_PARTITIONS
from ml_pipeline.errors import MlPipelineError
from ml_pipeline.printable import without_controls
from ml_pipeline.resources import PipelineResource
from ml_pipeline.responses.files import ResponseFile, find_response_files

_MOST_FILES_A_TICK = 200
_CURSOR = TypeAdapter(dict[str, str])


def build_response_file_sensor(interval_s: int) -> dg.SensorDefinition:
    """The sensor that requests a run for every new version of a file of responses, and one more to judge it."""

    @dg.sensor(
        name="response_file_sensor",
        jobs=[score_responses_job, judge_responses_job],
        minimum_interval_seconds=interval_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Looks for files of responses in data_dir's folder `responses`; new and changed ones are scored.",
    )
    def response_file_sensor(
        context: dg.SensorEvaluationContext, pipeline: PipelineResource
    ) -> dg.SensorResult | dg.SkipReason:
        try:
            settings = pipeline.settings()
            found = find_response_files(
                settings.responses_path, now_ns=time.time_ns(), settle_s=settings.discovery.settle_s
            )
        except MlPipelineError as error:
            return dg.SkipReason(str(error))
        for problem in found.problems:
            context.log.warning(without_controls(problem))
        seen = _parsed(context.cursor)
        changed = [file for file in found.files if seen.get(file.key) != _version(file)][:_MOST_FILES_A_TICK]
        if not changed:
            return dg.SkipReason(
                f"Nothing new: {len(found.files)} files of responses known, {found.growing} still being written, "
                f"{len(found.problems)} problems."
            )
        known_versions = {file.key: seen[file.key] for file in found.files if file.key in seen}
        known = set(context.instance.get_dynamic_partitions(str(RESPONSE_FILE_PARTITIONS.name)))
        new = [file.key for file in changed if file.key not in known]
        return dg.SensorResult(
            dynamic_partitions_requests=[RESPONSE_FILE_PARTITIONS.build_add_request(new)] if new else [],
            # Dagster knows a run by its key, so that no reset of the sensor scores the same version twice.
            run_requests=[
                dg.RunRequest(run_key=f"{name} {file.key} {_version(file)}", job_name=name, partition_key=file.key)
                for file in changed
                for name in response_job_names(settings)
            ],
            cursor=_CURSOR.dump_json({**known_versions, **{f.key: _version(f) for f in changed}}).decode(),
        )

    return response_file_sensor


def _version(file: ResponseFile) -> str:
    return f"{file.size_bytes}-{file.mtime_ns}"


def _parsed(cursor: str | None) -> dict[str, str]:
    """The version of each file that was asked for last; a cursor that cannot be read is a new beginning."""
    try:
        return _CURSOR.validate_json(cursor or "{}")
    except ValidationError:
        return {}

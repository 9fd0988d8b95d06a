"""Finds training logs that have grown, and has what was added read."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from ml_pipeline.assets.specs import TRAINING_LOSS_SPEC
from ml_pipeline.automation.jobs import read_training_logs_job
from ml_pipeline.automation.log_cursor import LogCursor
from ml_pipeline.automation.partitions import TRAINING_RUN_PARTITIONS
from ml_pipeline.checkpoints.catalogue import SOURCES_AT_ONCE, Catalogue
from ml_pipeline.checkpoints.log_files import LogFile, LogSearch, find_logs, looks_like_log
from ml_pipeline.checkpoints.naming import run_partition_key
from ml_pipeline.checkpoints.source import Source
from ml_pipeline.errors import CheckpointError, MlPipelineError
from ml_pipeline.printable import without_controls
from ml_pipeline.resources import PipelineResource
from ml_pipeline.settings import Settings

_MOST_LOGS_A_TICK = 1000
_LONGEST_READING = timedelta(hours=1)
_GOING_ON = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


def build_training_log_sensor(interval_s: int) -> dg.SensorDefinition:
    """The sensor that requests one run a tick for all training runs whose log has changed."""

    @dg.sensor(
        name="training_log_sensor",
        job=read_training_logs_job,
        minimum_interval_seconds=interval_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Looks for training logs beside the adapters; what was added to them is read.",
    )
    def training_log_sensor(
        context: dg.SensorEvaluationContext, pipeline: PipelineResource
    ) -> dg.SensorResult | dg.SkipReason:
        if _is_reading(context.instance):
            return dg.SkipReason("Logs are being read just now; what is added meanwhile is read by the next run.")
        cursor = LogCursor.parsed(context.cursor)
        try:
            settings = pipeline.settings()
            changed, problems = changed_logs(settings, Catalogue(settings), cursor)
        except MlPipelineError as error:
            return dg.SkipReason(str(error))
        for problem in problems:
            context.log.warning(without_controls(problem))
        if not changed:
            return dg.SensorResult(
                skip_reason=f"No training log has changed; {len(problems)} problems.", cursor=cursor.dumped()
            )
        keys = runs_of(changed)
        known = set(context.instance.get_dynamic_partitions(str(TRAINING_RUN_PARTITIONS.name)))
        new = [key for key in keys if key not in known]
        return dg.SensorResult(
            dynamic_partitions_requests=[TRAINING_RUN_PARTITIONS.build_add_request(new)] if new else [],
            run_requests=[dg.RunRequest(run_key=run_key(changed), run_config=read_runs_config(keys))],
            cursor=cursor.dumped(),
        )

    return training_log_sensor


def changed_logs(settings: Settings, catalogue: Catalogue, cursor: LogCursor) -> tuple[list[LogFile], list[str]]:
    """The logs that are not as `cursor` has them, which is brought up to date; and what could not be read.

    What passes the most of one tick is left for the next.
    """
    changed: list[LogFile] = []
    problems: list[str] = []
    for name, found in _find_everywhere(settings, catalogue).items():
        source = catalogue.source(name)
        problems += found.problems
        if not found.problems:
            cursor.keep_only(name, found.logs)
        for log in found.logs:
            if len(changed) == _MOST_LOGS_A_TICK:
                break
            if cursor.is_unchanged(log):
                continue
            try:
                run_partition_key(log.source, log.run)
                is_log = _is_log(source, log, cursor)
            except CheckpointError as error:
                problems.append(str(error))
                continue
            cursor.note(log, is_log=is_log)
            if is_log:
                changed.append(log)
    return changed, problems


def _find_everywhere(settings: Settings, catalogue: Catalogue) -> dict[str, LogSearch]:
    """The logs of each source by its name; all sources are asked at the same time, so that a slow one delays none."""
    names = list(settings.sources)
    with ThreadPoolExecutor(max_workers=min(SOURCES_AT_ONCE, len(names))) as pool:
        searches = pool.map(lambda name: find_logs(catalogue.source(name), settings.sources[name].filter), names)
        return dict(zip(names, searches, strict=True))


def runs_of(changed: Sequence[LogFile]) -> list[str]:
    """The partitions of the training runs that these logs are of."""
    return list(dict.fromkeys(run_partition_key(log.source, log.run) for log in changed))


def read_runs_config(keys: Sequence[str]) -> dict[str, Any]:
    """The configuration of a run of `read_training_logs_job` that looks at these training runs."""
    return {"ops": {TRAINING_LOSS_SPEC.key.to_python_identifier(): {"config": {"runs": list(keys)}}}}


def run_key(changed: Sequence[LogFile]) -> str:
    """The name of a run by what it reads, so that no reset of the sensor reads the same twice."""
    content = "\n".join(f"{log.source} {log.path!r} {log.size_bytes} {log.mtime_ns}" for log in changed)
    return f"{len(changed)} logs {hashlib.sha256(content.encode()).hexdigest()[:16]}"


def _is_reading(instance: dg.DagsterInstance) -> bool:
    """Whether a run of before goes on; one whose process died without a word is not waited for without end."""
    going_on = dg.RunsFilter(
        job_name=read_training_logs_job.name,
        statuses=_GOING_ON,
        created_after=datetime.now(UTC) - _LONGEST_READING,
    )
    return bool(instance.get_runs(going_on, limit=1))


def _is_log(source: Source, log: LogFile, cursor: LogCursor) -> bool:
    seen = cursor.seen(log)
    return (seen is not None and seen.is_log) or looks_like_log(source, log)

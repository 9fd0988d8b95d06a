"""What is being scored at this moment, and what failed lately, as Dagster has recorded it. Only reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from ml_pipeline.assets.specs import CHECKPOINT_SPECS
from ml_pipeline.automation.jobs import score_checkpoints_job
from ml_pipeline.automation.local_runs import failure_reasons
from ml_pipeline.automation.partitions import CHECKPOINT_PARTITIONS, RANGE_END_TAG, RANGE_START_TAG

_PARTITION_TAG = "dagster/partition"
_GOING_ON = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
_QUEUED = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED]
_IN_PROGRESS, _FAILED = "IN_PROGRESS", "FAILED"
_FAILED_RUNS = 5
_MOST_RUNS = 50


@dataclass(frozen=True, slots=True)
class ActiveRun:
    """A run that scores: the checkpoints that it has finished, the one it works on, and those that come after it.

    `said` is what it wrote into its log last; a run of the command line writes to its terminal instead.
    """

    run_id: str
    started_at: datetime | None
    done: tuple[str, ...]
    current: str | None
    waiting: tuple[str, ...]
    said: str


@dataclass(frozen=True, slots=True)
class Activity:
    """Runs that score now, how many runs wait for their turn, and why checkpoints failed, by key: the newest first."""

    active: tuple[ActiveRun, ...]
    queued_runs: int
    failures: dict[str, str]


def activity(instance: dg.DagsterInstance) -> Activity:
    """What goes on in the project's instance."""
    ordered = instance.get_dynamic_partitions(str(CHECKPOINT_PARTITIONS.name))
    job = str(score_checkpoints_job.name)
    going_on = dg.RunsFilter(statuses=_GOING_ON)
    active = [
        run
        for record in instance.get_run_records(going_on, limit=_MOST_RUNS)
        if (run := _active(instance, record, ordered)) is not None
    ]
    queued = instance.get_runs_count(dg.RunsFilter(job_name=job, statuses=_QUEUED))
    return Activity(tuple(active), queued, _failures(instance))


def _active(instance: dg.DagsterInstance, record: dg.RunRecord, ordered: Sequence[str]) -> ActiveRun | None:
    run = record.dagster_run
    keys = _keys(run.tags, ordered)
    if not keys:
        return None
    every = [spec.key for spec in CHECKPOINT_SPECS]
    chosen = [key for key in every if key in run.asset_selection] if run.asset_selection else every
    if not chosen:
        return None
    statuses = _statuses(instance, chosen[-1], keys)
    open_keys = [key for key in keys if statuses[key] == _IN_PROGRESS]
    return ActiveRun(
        run_id=run.run_id,
        started_at=None if record.start_time is None else datetime.fromtimestamp(record.start_time, UTC),
        done=tuple(key for key in keys if key not in open_keys),
        current=open_keys[0] if open_keys else None,
        waiting=tuple(open_keys[1:]),
        said=_said(instance, run.run_id),
    )


def _statuses(instance: dg.DagsterInstance, asset: dg.AssetKey, keys: Sequence[str]) -> dict[str, str]:
    """How one asset stands by partition. The last one of a checkpoint is enough to tell where the checkpoint is, and
    asking for all of them every few seconds would take time from those who score."""
    found = instance.get_status_by_partition(asset, list(keys), CHECKPOINT_PARTITIONS) or {}
    return {key: str(getattr(found.get(key), "value", "")) for key in keys}


def _keys(tags: Mapping[str, str], ordered: Sequence[str]) -> Sequence[str]:
    """The checkpoints of a run by its tags; none for one that scores no checkpoints."""
    if (one := tags.get(_PARTITION_TAG)) in ordered:
        return [str(one)]
    ends = tags.get(RANGE_START_TAG), tags.get(RANGE_END_TAG)
    if not all(end in ordered for end in ends):
        return []
    first, last = (ordered.index(str(end)) for end in ends)
    return ordered[first : last + 1]


def _said(instance: dg.DagsterInstance, run_id: str) -> str:
    records = instance.get_records_for_run(run_id, limit=20, ascending=False).records
    lines = (record.event_log_entry for record in records if record.event_log_entry.dagster_event is None)
    return next((line.user_message for line in lines if line.user_message), "")


def _failures(instance: dg.DagsterInstance) -> dict[str, str]:
    reasons: dict[str, str] = {}
    failed_runs = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]), limit=_FAILED_RUNS)
    for run in failed_runs:
        reasons = {**failure_reasons(instance, run.run_id), **reasons}
    statuses = _statuses(instance, CHECKPOINT_SPECS[-1].key, list(reasons)) if reasons else {}
    return {key: reason for key, reason in reasons.items() if statuses[key] == _FAILED}

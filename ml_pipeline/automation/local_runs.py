"""Runs the jobs in this process, recorded in the project's own Dagster instance, and tells where checkpoints stand.

The command line works through this, so that what it scores shows in the UI like everything else.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import dagster as dg

from ml_pipeline.assets.specs import CHECKPOINT_SPECS, MODEL_POOL
from ml_pipeline.automation.dagster_home import dagster_home
from ml_pipeline.automation.jobs import (
    judge_responses_job,
    publish_scores_job,
    response_job_names,
    score_checkpoints_job,
)
from ml_pipeline.automation.partitions import CHECKPOINT_PARTITIONS, RESPONSE_FILE_PARTITIONS, plan_runs, range_tags
from ml_pipeline.automation.run_locks import recorded_crash, report_dead_runs, run_lock, run_that_holds
from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.errors import NativeCrashError
from ml_pipeline.evaluation.failures import FailureBook
from ml_pipeline.evaluation.stages import STAGES
from ml_pipeline.history.importing import ImportedCheckpoints
from ml_pipeline.settings import Settings
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.score_store import ScoreStore

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
_PARTITIONS = str(CHECKPOINT_PARTITIONS.name)
_FILES = str(RESPONSE_FILE_PARTITIONS.name)
_POLL_S = 2.0


class State(StrEnum):
    """Where a checkpoint stands."""

    NEW = "new"
    SCORING = "scoring"
    SCORED = "scored"
    IMPORTED = "imported"
    CHANGED = "changed"
    INCOMPLETE = "incomplete"
    FAILED = "failed"


@dataclass
class Outcome:
    """What scoring in this process came to: why each failed checkpoint failed, by key."""

    failures: dict[str, str] = field(default_factory=dict)


@contextmanager
def project_instance(
    settings: Settings, first: Callable[[dg.DagsterInstance], None] | None = None
) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of the project: the one of the dagster.yaml beside pipeline.yaml, or see `dagster_home`.

    Runs without a process are reported as failed; `first` is called before that.
    """
    os.environ["DAGSTER_HOME"] = str(dagster_home(settings))
    os.chdir(settings.root)  # dagster.yaml names its folders relative to itself
    with dg.DagsterInstance.get() as instance:
        if first is not None:
            first(instance)
        report_dead_runs(settings.run_locks_path, instance)
        yield instance


def states(instance: dg.DagsterInstance, keys: Sequence[str]) -> dict[str, State]:
    """Where each checkpoint stands, by the assets that Dagster has recorded for it."""
    by_asset = [
        instance.get_status_by_partition(spec.key, keys, CHECKPOINT_PARTITIONS) or {} for spec in CHECKPOINT_SPECS
    ]
    return {key: _state([str(getattr(statuses.get(key), "value", "")) for statuses in by_asset]) for key in keys}


def mark_changed(states: dict[str, State], checkpoints: Sequence[Checkpoint], settings: Settings) -> dict[str, State]:
    """The states, with those that were overwritten since they were scored as CHANGED."""
    if not settings.duckdb_path.exists():
        return states
    store = DuckDBStore(settings.duckdb_path, settings.stores.duckdb_lock_timeout_s)
    rows = store.query("SELECT DISTINCT partition_key, checkpoint_size_bytes, checkpoint_mtime_ns FROM evaluations")
    scored = {
        row["partition_key"]: (row["checkpoint_size_bytes"], row["checkpoint_mtime_ns"]) for row in rows.to_pylist()
    }
    overwritten = {
        c.key for c in checkpoints if scored.get(c.key, (c.size_bytes, c.mtime_ns)) != (c.size_bytes, c.mtime_ns)
    }
    return {
        key: State.CHANGED if state == State.SCORED and key in overwritten else state for key, state in states.items()
    }


def mark_imported(states: dict[str, State], checkpoints: Sequence[Checkpoint], settings: Settings) -> dict[str, State]:
    """The states, with new checkpoints that another program scored, and whose scores were imported, as IMPORTED."""
    known = ImportedCheckpoints(ParquetStore(settings.parquet_path))
    imported = {checkpoint.key for checkpoint in checkpoints if checkpoint in known}
    return {key: State.IMPORTED if state == State.NEW and key in imported else state for key, state in states.items()}


def add_partitions(instance: dg.DagsterInstance, keys: Sequence[str], name: str = _PARTITIONS) -> None:
    """Make the keys known to Dagster; those it knows already keep their place."""
    known = set(instance.get_dynamic_partitions(name))
    if new := [key for key in keys if key not in known]:
        instance.add_dynamic_partitions(name, new)


def score(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    checkpoints: Sequence[Checkpoint],
    settings: Settings,
    note: Callable[[str], None],
) -> Outcome:
    """Score these checkpoints in this process, one run after another; `note` is told what it waits for.

    Raises:
        KeyboardInterrupt: the user stopped it. What was finished is stored.
    """
    wanted = {checkpoint.key: checkpoint.base_model for checkpoint in checkpoints}
    add_partitions(instance, list(wanted))
    outcome = Outcome()
    job = definitions.resolve_job_def(score_checkpoints_job.name)
    for keys in plan_runs(instance.get_dynamic_partitions(_PARTITIONS), wanted, settings.limits.checkpoints_per_run):
        _wait_for_the_model(instance, settings.run_locks_path, note)
        result = run_job(job, instance, settings.run_locks_path, tags=range_tags(keys))
        if not result.success:
            outcome.failures.update(_unfinished(instance, result.run_id, keys))
    return outcome


def record_left_out(checkpoints: Sequence[Checkpoint], why: Mapping[str, str], settings: Settings) -> None:
    """List checkpoints, by key, that are left out because they ended a process, with the others that failed."""
    database = DuckDBStore(settings.duckdb_path, settings.stores.duckdb_lock_timeout_s)
    failures = FailureBook(ScoreStore(ParquetStore(settings.parquet_path), database), "left out")
    for checkpoint in checkpoints:
        if checkpoint.key in why:
            failures.failed(checkpoint.key, checkpoint, STAGES[0], NativeCrashError(why[checkpoint.key]))


def score_files(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    keys: Sequence[str],
    settings: Settings,
    note: Callable[[str], None],
) -> Outcome:
    """Score files of responses in this process, and have them judged where a judge is named for them.

    Raises:
        KeyboardInterrupt: the user stopped it. What was finished is stored.
    """
    add_partitions(instance, keys, _FILES)
    outcome = Outcome()
    for key in keys:
        for name in response_job_names(settings):
            note(f"{name.removesuffix('_responses_job')} {key}")
            if name == judge_responses_job.name:
                _wait_for_the_model(instance, settings.run_locks_path, note)
            result = run_job(definitions.resolve_job_def(name), instance, settings.run_locks_path, partition_key=key)
            if not result.success:
                reasons = failure_reasons(instance, result.run_id)
                outcome.failures[key] = reasons.get(key, f"see run {result.run_id} in the Dagster UI")
                break
    return outcome


def publish(definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
    """Make the score table, the leaderboard and the report anew."""
    job = definitions.resolve_job_def(publish_scores_job.name)
    job.execute_in_process(instance=instance, run_config=_QUIET)


def failure_reasons(instance: dg.DagsterInstance, run_id: str) -> dict[str, str]:
    """Why checkpoints failed in a run, by key."""
    crash = recorded_crash(instance.get_run_by_id(run_id))
    reasons = {} if crash is None else {crash.work.key: crash.why}
    for record in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        event = record.dagster_event
        data = event.step_failure_data.user_failure_data if event else None
        for key, value in (data.metadata if data else {}).items():
            reasons[key] = str(value.value)
    return reasons


def recent_failures(instance: dg.DagsterInstance, keys: Sequence[str], runs: int = 50) -> Mapping[str, str]:
    """The newest known reason of each failed checkpoint, out of the last failed runs."""
    missing, reasons = set(keys), {}
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]), limit=runs):
        if not missing:
            break
        for key, reason in failure_reasons(instance, run.run_id).items():
            if key in missing:
                missing.remove(key)
                reasons[key] = reason
    return reasons


def run_job(
    job: dg.JobDefinition,
    instance: dg.DagsterInstance,
    locks: Path,
    config: Mapping[str, Any] | None = None,
    **what: Any,
) -> dg.ExecuteInProcessResult:
    """Run a job in this process; raises KeyboardInterrupt when the user stopped it."""
    run_id = str(uuid.uuid4())
    with run_lock(locks, run_id):
        result = job.execute_in_process(
            instance=instance, run_config={**_QUIET, **(config or {})}, raise_on_error=False, run_id=run_id, **what
        )
    if _was_interrupted(instance, result.run_id):
        raise KeyboardInterrupt
    return result


def _wait_for_the_model(instance: dg.DagsterInstance, locks: Path, note: Callable[[str], None]) -> None:
    """Wait until no other run has the model: the daemon's, or that of another terminal."""
    told = None
    while holder := run_that_holds(MODEL_POOL, instance):
        if holder != told:
            note(f"Waiting for run {holder}, which is scoring now ...")
            told = holder
        time.sleep(_POLL_S)
        report_dead_runs(locks, instance)


def _was_interrupted(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether the run ended by Ctrl-C: Dagster swallows the exception and records it."""
    failures = instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    events = [entry.dagster_event for entry in failures if entry.dagster_event is not None]
    sources = [event.step_failure_data.error_source for event in events]
    return any(source is not None and source.name == "INTERRUPT" for source in sources)


def _state(statuses: Sequence[str]) -> State:
    if "IN_PROGRESS" in statuses:
        return State.SCORING
    if "FAILED" in statuses:
        return State.FAILED
    if all(status == "MATERIALIZED" for status in statuses):
        return State.SCORED
    return State.INCOMPLETE if "MATERIALIZED" in statuses else State.NEW


def _unfinished(instance: dg.DagsterInstance, run_id: str, keys: Sequence[str]) -> dict[str, str]:
    reasons = failure_reasons(instance, run_id)
    general = f"the run ended before this checkpoint was finished; see run {run_id} in the Dagster UI"
    return {key: reasons.get(key, general) for key, state in states(instance, keys).items() if state != State.SCORED}

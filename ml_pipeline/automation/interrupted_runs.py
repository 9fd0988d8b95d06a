"""Makes runs that were cut short, because `ml-pipeline dev` was told to stop, go on at its next start.

Dagster's own retries start them again: a run that failed and is marked so is repeated by the daemon as soon as it is
there, and a repeated run leaves alone what the run before it finished. Being stopped is no fault of the run, so it does
not count as one of the retries of `run_retries` in dagster.yaml, and any number of restarts loses nothing.
"""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from ml_pipeline.automation.run_locks import how_it_ended, is_held

# Dagster's names, which its guide to run retries documents, but for the last: where it finds the code server of a run.
_MAX_RETRIES_TAG = "dagster/max_retries"
_WILL_RETRY_TAG = "dagster/will_retry"
_RETRIED_BY_TAG = "dagster/auto_retry_run_id"
_CODE_SERVER_TAG = ".dagster/grpc_info"

_Status = dg.DagsterRunStatus
_UNFINISHED = [_Status.NOT_STARTED, _Status.STARTING, _Status.STARTED, _Status.CANCELING]
_CONNECT_TIMEOUT_S = 2.0


def report_interrupted_runs(note: Path, locks: Path, instance: dg.DagsterInstance) -> dict[str, bool]:
    """Mark the daemon's runs that were cut short, so that they go on when a daemon starts.

    Returns for the id of each whether it will: not where its retries are used up, or off in dagster.yaml.

    To be called when no process of that daemon is left. `note` says when processes were first asked to end
    (`process_tree` writes it), and is removed when all is marked. Without one nobody asked: runs without a process died
    with the machine, or with everything at once. They are reported as failed, and that counts as one of their retries.
    """
    stopped_at = _time_of(note)
    marked = []
    for run in _without_a_process(locks, instance):
        if run.status == _Status.CANCELING:
            instance.report_run_canceled(run, "The process of this run ended while it was being cancelled.")
            continue
        if stopped_at is None:
            instance.report_run_failed(run, how_it_ended(locks, run.run_id))
        else:
            _mark(instance, run)
        marked.append(run.run_id)
    if stopped_at is not None:
        for run in _failed_by_the_stop(stopped_at, instance):
            if run.run_id not in marked and _mark(instance, run):
                marked.append(run.run_id)
        note.unlink(missing_ok=True)
    return {run_id: _goes_on(instance, run_id) for run_id in marked}


def _without_a_process(locks: Path, instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """The daemon's runs that claim to go on though their code server is gone."""
    return [
        run
        for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED))
        if (run.status == _Status.STARTING or _CODE_SERVER_TAG in run.tags)
        and not _answers(run.tags.get(_CODE_SERVER_TAG))
        and not is_held(locks, run.run_id)
    ]


def _failed_by_the_stop(stopped_at: datetime, instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """The daemon's runs that have failed since then, and not by themselves."""
    records = instance.get_run_records(dg.RunsFilter(statuses=[_Status.FAILURE], updated_after=stopped_at))
    return [
        record.dagster_run
        for record in records
        if (record.end_time is not None and record.end_time >= stopped_at.timestamp())
        and _CODE_SERVER_TAG in record.dagster_run.tags
        and not _failed_by_itself(instance, record.dagster_run.run_id)
    ]


def _mark(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Have the run repeated without counting it; False if the daemon repeats it already."""
    _allow_one_more(instance, run.run_id)
    if (retry := run.tags.get(_RETRIED_BY_TAG)) is not None:
        _allow_one_more(instance, retry)
        return False
    # Reported once more where it had failed already: the daemon follows events, and may have passed that one.
    instance.report_run_failed(run, _message(instance))
    if instance.run_retries_enabled:
        instance.add_run_tags(run.run_id, {_WILL_RETRY_TAG: "true"})
    return True


def _failed_by_itself(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether a step of it failed other than by an interrupt."""
    failures = instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    sources = [entry.dagster_event.step_failure_data.error_source for entry in failures if entry.dagster_event]
    return any(source is None or source.name != "INTERRUPT" for source in sources)


def _goes_on(instance: dg.DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    return run is not None and instance.run_retries_enabled and run.tags.get(_WILL_RETRY_TAG) == "true"


def _allow_one_more(instance: dg.DagsterInstance, run_id: str) -> None:
    """Let the run, and what repeats it, be repeated once more than before."""
    run = instance.get_run_by_id(run_id)
    if run is None:
        return
    allowed = instance.run_retries_max_retries
    with suppress(ValueError):  # a tag that a person wrote
        allowed = int(run.tags.get(_MAX_RETRIES_TAG, allowed))
    instance.add_run_tags(run_id, {_MAX_RETRIES_TAG: str(allowed + 1)})


def _message(instance: dg.DagsterInstance) -> str:
    then = (
        "It goes on at the next start."
        if instance.run_retries_enabled
        else "run_retries is off in dagster.yaml: start it again in the UI, or with `ml-pipeline score`."
    )
    return f"ml-pipeline dev was stopped during this run. Finished checkpoints are kept. {then}"


def _answers(code_server: str | None) -> bool:
    """Whether somebody still listens where Dagster found the code server: another `dagster dev` of this project."""
    try:
        place = json.loads(code_server or "{}")
        if path := place.get("socket"):
            with socket.socket(socket.AF_UNIX) as tried:
                tried.settimeout(_CONNECT_TIMEOUT_S)
                tried.connect(path)
            return True
        if port := place.get("port"):
            socket.create_connection((place.get("host") or "localhost", int(port)), _CONNECT_TIMEOUT_S).close()
            return True
    except (OSError, ValueError):
        pass
    return False


def _time_of(note: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(float(note.read_text(encoding="ascii")), UTC)
    except FileNotFoundError:
        return None
    except (ValueError, OverflowError):  # cut off by a full disk or a power cut: then the file's own time
        return datetime.fromtimestamp(note.stat().st_mtime, UTC)

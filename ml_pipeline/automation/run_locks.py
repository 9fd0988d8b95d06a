"""Tells a scoring run that goes on from one whose process died.

A run holds a lock on a file of its own; the system frees the lock when the process ends, however it ends. A run that
Dagster believes to be going on while its lock is free is dead: it is reported as failed, so that its unfinished
checkpoints can be scored again, and the model it had claimed is free for others.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from ml_pipeline.automation.native_crashes import UnderWay, crash_of, crashed_runs, forget_crash, work_of
from ml_pipeline.files import lock_file, make_folder

_GOING_ON = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
_CRASHED_TAG, _DETAILS_TAG = "ml_pipeline/native_crash", "ml_pipeline/native_crash_details"
_CRASHED_RUNS = 50
_OURS: set[Path] = set()
"""The locks that this process holds."""


@dataclass(frozen=True, slots=True)
class RecordedCrash:
    """A crash of the process of a run: at what, and in a sentence how."""

    work: UnderWay
    why: str

    def is_of(self, key: str, version: str = "") -> bool:
        """Whether it was at this checkpoint or file, in this version: one that was overwritten since is another."""
        return self.work == UnderWay(key, version)


@contextmanager
def run_lock(folder: Path, run_id: str) -> Iterator[None]:
    """Hold the lock of a run for as long as the context lasts.

    The command line holds it from before Dagster knows of the run until after its end, so that there is no moment in
    which its death goes unnoticed; the op within has it then already.
    """
    path = folder / f"{run_id}.lock"
    if path in _OURS:
        yield
        return
    make_folder(folder)
    with os.fdopen(lock_file(path), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _OURS.add(path)
        try:
            yield
        finally:
            _OURS.remove(path)
            path.unlink(missing_ok=True)


def report_dead_runs(folder: Path, instance: dg.DagsterInstance) -> list[str]:
    """Report every run as failed that claims to go on but whose process is gone; return their ids."""
    dead = []
    for run in instance.get_runs(dg.RunsFilter(statuses=_GOING_ON)):
        path = folder / f"{run.run_id}.lock"
        if path.is_file() and _is_free(path):
            instance.report_run_failed(run, how_it_ended(folder, run.run_id))
            path.unlink(missing_ok=True)
            dead.append(run.run_id)
    record_crashes(folder, instance)
    for run_id in instance.event_log_storage.get_concurrency_run_ids():
        run_or_none = instance.get_run_by_id(run_id)
        if run_or_none is None or run_or_none.is_finished:
            instance.event_log_storage.free_concurrency_slots_for_run(run_id)
    return dead


def record_crashes(folder: Path, instance: dg.DagsterInstance) -> None:
    """Write onto the records of runs whose process crashed how it did; `recorded_crash` reads it."""
    for run_id in crashed_runs(folder):
        if is_held(folder, run_id):
            continue
        crash, run = crash_of(folder, run_id), instance.get_run_by_id(run_id)
        if crash is not None and run is not None:
            instance.report_engine_event(str(crash), run)
            work = crash.work or UnderWay("")
            details = json.dumps({"checkpoint": work.key, "version": work.version, "why": str(crash)})
            instance.add_run_tags(run_id, {_CRASHED_TAG: "yes", _DETAILS_TAG: details})
        forget_crash(folder, run_id)
        (folder / f"{run_id}.lock").unlink(missing_ok=True)


def recorded_crash(run: dg.DagsterRun | None) -> RecordedCrash | None:
    """How the process of this run crashed, and at what; None where it did not, or was at nothing in particular."""
    if run is None or _DETAILS_TAG not in run.tags:
        return None
    details = json.loads(run.tags[_DETAILS_TAG])
    if not details["checkpoint"]:
        return None
    return RecordedCrash(UnderWay(details["checkpoint"], details.get("version", "")), details["why"])


def recorded_crashes(instance: dg.DagsterInstance) -> list[RecordedCrash]:
    """The crashes of the processes of runs, newest first."""
    runs = instance.get_runs(dg.RunsFilter(tags={_CRASHED_TAG: "yes"}), limit=_CRASHED_RUNS)
    return [crash for crash in map(recorded_crash, runs) if crash is not None]


def run_that_holds(pool: str, instance: dg.DagsterInstance) -> str | None:
    """The id of a run that has claimed this pool, if one has."""
    return next(iter(instance.event_log_storage.get_concurrency_info(pool).active_run_ids), None)


def how_it_ended(folder: Path, run_id: str) -> str:
    """What the record of a run whose process is gone says."""
    crash = crash_of(folder, run_id)
    if crash is not None:
        how = f"was ended by {crash.signal}"
    elif work := work_of(folder, run_id):
        how = (
            f"ended without a word {work}. It may have been killed (SIGKILL), as the system does when memory runs out, "
            "or the machine was switched off"
        )
    else:
        how = "ended without a word"
    return f"The process of this run {how}. Finished checkpoints are kept."


def is_held(folder: Path, run_id: str) -> bool:
    """Whether a process that lives holds the lock of this run."""
    path = folder / f"{run_id}.lock"
    return path.is_file() and not _is_free(path)


def _is_free(path: Path) -> bool:
    with path.open("r") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

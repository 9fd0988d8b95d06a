"""Tells a scoring run that goes on from one whose process died.

A run holds a lock on a file of its own; the system frees the lock when the process ends, however it ends. A run that
Dagster believes to be going on while its lock is free is dead: it is reported as failed, so that its unfinished
checkpoints can be scored again, and the model it had claimed is free for others.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

PROCESS_LOST = "The process of this run ended without a word. Finished checkpoints are kept."
_GOING_ON = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
_OURS: set[Path] = set()
"""The locks that this process holds."""


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
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
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
            instance.report_run_failed(run, PROCESS_LOST)
            path.unlink(missing_ok=True)
            dead.append(run.run_id)
    for run_id in instance.event_log_storage.get_concurrency_run_ids():
        run_or_none = instance.get_run_by_id(run_id)
        if run_or_none is None or run_or_none.is_finished:
            instance.event_log_storage.free_concurrency_slots_for_run(run_id)
    return dead


def run_that_holds(pool: str, instance: dg.DagsterInstance) -> str | None:
    """The id of a run that has claimed this pool, if one has."""
    return next(iter(instance.event_log_storage.get_concurrency_info(pool).active_run_ids), None)


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

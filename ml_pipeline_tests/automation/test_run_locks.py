"""A run whose process was killed is found and reported; one that goes on is left alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from ml_pipeline.automation.run_locks import report_dead_runs, run_lock

HOLDER = """
import sys, time
from pathlib import Path
from ml_pipeline.automation.run_locks import run_lock
with run_lock(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    time.sleep(60)
"""


def new_run(instance: dg.DagsterInstance) -> dg.DagsterRun:
    @dg.job
    def empty() -> None: ...

    return instance.create_run_for_job(empty)


def started_run(instance: dg.DagsterInstance) -> dg.DagsterRun:
    run = new_run(instance)
    started = dg.DagsterEvent(event_type_value=dg.DagsterEventType.RUN_START.value, job_name=run.job_name)
    instance.report_dagster_event(started, run.run_id)
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.status == dg.DagsterRunStatus.STARTED
    return found


def status(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


@pytest.mark.parametrize("make", [new_run, started_run])
def test_a_killed_run_is_reported_as_failed_and_a_living_one_is_not(
    tmp_path: Path, make: Callable[[dg.DagsterInstance], dg.DagsterRun]
) -> None:
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        run, locks = make(instance), tmp_path / "locks"
        process = subprocess.Popen([sys.executable, "-c", HOLDER, locks, run.run_id], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert report_dead_runs(locks, instance) == []
        process.kill()
        process.wait()
        process.stdout.close()
        assert report_dead_runs(locks, instance) == [run.run_id]
        assert status(instance, run) == dg.DagsterRunStatus.FAILURE
        assert report_dead_runs(locks, instance) == []


def test_a_run_without_a_lock_is_left_to_dagster(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        run = started_run(instance)
        assert report_dead_runs(tmp_path / "locks", instance) == []
        assert status(instance, run) == dg.DagsterRunStatus.STARTED


def test_the_lock_is_gone_after_the_run_whatever_ended_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="boom"), run_lock(tmp_path, "r"):
        raise ValueError("boom")
    assert list(tmp_path.iterdir()) == []


def test_whoever_holds_the_lock_of_a_run_may_ask_for_it_again(tmp_path: Path) -> None:
    with run_lock(tmp_path, "r"):
        with run_lock(tmp_path, "r"):
            pass
        assert (tmp_path / "r.lock").exists()
    assert list(tmp_path.iterdir()) == []

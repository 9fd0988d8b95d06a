"""Runs that a stop cut short go on at the next start, however often that happens; others are left alone."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from ml_pipeline.automation.interrupted_runs import report_interrupted_runs
from ml_pipeline.automation.run_locks import run_lock
from ml_pipeline_tests.project import REPOSITORY

RETRIES_OF_DAGSTER_YAML = 2
NOT_INHERITED = {"dagster/will_retry", "dagster/auto_retry_run_id", "dagster/failure_reason"}


@dg.job
def empty() -> None: ...


@dg.op
def interrupted() -> None:
    raise KeyboardInterrupt


@dg.op
def broken() -> None:
    raise ValueError("boom")


class Lab:
    """An instance with the shipped dagster.yaml, and what a stop of `ml-pipeline dev` leaves."""

    def __init__(self, instance: dg.DagsterInstance, folder: Path) -> None:
        self.instance = instance
        self.note = folder / "stopped_at"
        self.locks = folder / "locks"
        self.socket = folder / "code_server"

    def stop(self) -> None:
        self.note.write_text(repr(time.time()))

    def mark(self) -> list[str]:
        """Mark what was cut short; return the runs that are said to go on."""
        marked = report_interrupted_runs(self.note, self.locks, self.instance)
        for run_id, goes_on in marked.items():
            run = self.instance.get_run_by_id(run_id)
            assert run is not None
            assert goes_on == self.will_retry(run)
        return [run_id for run_id, goes_on in marked.items() if goes_on]

    def run(
        self,
        status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED,
        parent: dg.DagsterRun | None = None,
        *,
        launched: bool = True,
    ) -> dg.DagsterRun:
        """A run that a daemon launched, or the repetition of one as Dagster's daemon makes it."""
        tags = {".dagster/grpc_info": json.dumps({"host": "localhost", "socket": str(self.socket)})} if launched else {}
        if parent is not None:
            tags = {key: value for key, value in self.again(parent).tags.items() if key not in NOT_INHERITED}
            tags["dagster/parent_run_id"] = parent.run_id
            tags["dagster/root_run_id"] = parent.root_run_id or parent.run_id
        run = self.instance.create_run_for_job(
            empty,
            tags=tags,
            parent_run_id=parent.run_id if parent else None,
            root_run_id=(parent.root_run_id or parent.run_id) if parent else None,
            status=status,
        )
        return self.again(run)

    def again(self, run: dg.DagsterRun) -> dg.DagsterRun:
        found = self.instance.get_run_by_id(run.run_id)
        assert found is not None
        return found

    def executed(self, op: dg.OpDefinition) -> dg.DagsterRun:
        """A run of one op, as the daemon's process leaves it when it ends by itself."""

        @dg.job
        def one() -> None:
            op()

        run = one.execute_in_process(instance=self.instance, raise_on_error=False).dagster_run
        self.instance.add_run_tags(run.run_id, {".dagster/grpc_info": json.dumps({"socket": str(self.socket)})})
        assert self.again(run).status == dg.DagsterRunStatus.FAILURE
        return self.again(run)

    def will_retry(self, run: dg.DagsterRun) -> bool:
        """What Dagster's daemon goes by; Dagster sets it itself whenever a failure is reported."""
        return self.again(run).tags.get("dagster/will_retry") == "true"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    (tmp_path / "dagster.yaml").write_text((REPOSITORY / "dagster.yaml").read_text())
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with dg.DagsterInstance.get() as instance:
        yield Lab(instance, tmp_path)


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED])
def test_a_run_that_was_ended_is_failed_says_why_and_will_be_repeated(lab: Lab, status: dg.DagsterRunStatus) -> None:
    run = lab.run(status)
    lab.stop()
    assert lab.mark() == [run.run_id]
    assert lab.again(run).status == dg.DagsterRunStatus.FAILURE
    assert lab.will_retry(run)
    (failure,) = lab.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert "ml-pipeline dev was stopped during this run" in failure.message
    assert "goes on at the next start" in failure.message
    assert not lab.note.exists()
    assert lab.mark() == []


def test_any_number_of_stops_leaves_the_retries_after_a_crash(lab: Lab) -> None:
    run = lab.run()
    for _ in range(7):
        lab.stop()
        assert lab.mark() == [run.run_id]
        assert lab.will_retry(run)
        run = lab.run(parent=run)
    for _ in range(RETRIES_OF_DAGSTER_YAML):
        lab.instance.report_run_failed(run, "crashed")
        assert lab.will_retry(run)
        run = lab.run(parent=run)
    lab.instance.report_run_failed(run, "crashed")
    assert not lab.will_retry(run), "a run that crashes is not repeated for ever"


def test_without_a_note_it_counts_as_a_crash(lab: Lab) -> None:
    """The machine lost power: nobody asked the processes to end."""
    run = lab.run()
    for _ in range(RETRIES_OF_DAGSTER_YAML):
        assert lab.mark() == [run.run_id]
        assert lab.will_retry(run)
        run = lab.run(parent=run)
    assert lab.mark() == []
    assert lab.again(run).status == dg.DagsterRunStatus.FAILURE
    assert not lab.will_retry(run)


def test_a_run_whose_process_still_reported_the_interrupt_is_reported_once_more(lab: Lab) -> None:
    """The daemon may have passed that event before it ended, and follows only newer ones."""
    lab.stop()
    run = lab.executed(interrupted)
    newest = max(record.storage_id for record in _failures(lab, run))
    assert lab.mark() == [run.run_id]
    assert lab.will_retry(run)
    assert max(record.storage_id for record in _failures(lab, run)) > newest


def test_a_run_that_the_daemon_repeats_already_is_not_repeated_twice(lab: Lab) -> None:
    lab.stop()
    run = lab.executed(interrupted)
    retry = lab.run(dg.DagsterRunStatus.SUCCESS, parent=run)
    lab.instance.add_run_tags(run.run_id, {"dagster/auto_retry_run_id": retry.run_id})
    failures = len(_failures(lab, run))
    assert lab.mark() == []
    assert len(_failures(lab, run)) == failures
    assert lab.again(retry).tags["dagster/max_retries"] == str(RETRIES_OF_DAGSTER_YAML + 1)
    assert lab.again(retry).status == dg.DagsterRunStatus.SUCCESS


def test_what_failed_by_itself_or_before_the_stop_is_left_alone(lab: Lab) -> None:
    before = lab.executed(interrupted)
    time.sleep(0.01)
    lab.stop()
    after = lab.executed(broken)
    tags = [lab.again(run).tags for run in (before, after)]
    assert lab.mark() == []
    assert [lab.again(run).tags for run in (before, after)] == tags


def test_a_run_of_the_command_line_a_held_one_and_another_dagsters_are_left_alone(lab: Lab) -> None:
    by_hand = lab.run(launched=False)
    held = lab.run()
    lab.stop()
    with run_lock(lab.locks, held.run_id):
        assert lab.mark() == []
    lab.socket.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(lab.socket))
        server.listen()
        lab.stop()
        assert lab.mark() == []
    for run in (by_hand, held):
        assert lab.again(run).status == dg.DagsterRunStatus.STARTED


def test_a_run_that_was_being_cancelled_is_cancelled(lab: Lab) -> None:
    run = lab.run(dg.DagsterRunStatus.CANCELING)
    lab.stop()
    assert lab.mark() == []
    assert lab.again(run).status == dg.DagsterRunStatus.CANCELED


@pytest.mark.parametrize("words", ["", "1e999", "yesterday"])
def test_a_note_that_was_cut_off_counts_from_when_it_was_written(lab: Lab, words: str) -> None:
    run = lab.run()
    lab.note.write_text(words)
    assert lab.mark() == [run.run_id]
    assert lab.again(run).tags["dagster/max_retries"] == str(RETRIES_OF_DAGSTER_YAML + 1)


def test_where_retries_are_off_nobody_is_promised_one(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text("run_retries: {enabled: false}")
    with dg.DagsterInstance.get() as instance:
        off = Lab(instance, tmp_path)
        run = off.run()
        off.stop()
        assert off.mark() == []
        assert off.again(run).status == dg.DagsterRunStatus.FAILURE
        assert not off.will_retry(run)
        (failure,) = _failures(off, run)
    message = failure.event_log_entry.message
    assert "run_retries is off" in message
    assert "next start" not in message


def _failures(lab: Lab, run: dg.DagsterRun) -> list[dg.EventLogRecord]:
    return list(lab.instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE).records)

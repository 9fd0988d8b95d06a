"""`ml-pipeline dev` as a service manager runs it: told to end while it scores, started again, killed."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import httpx
import pytest

from ml_pipeline.assets.specs import CHECKPOINT_SPECS
from ml_pipeline.automation.jobs import score_checkpoints_job
from ml_pipeline.process_tree import Process, processes_of_proc
from ml_pipeline.settings_file import load_settings
from ml_pipeline_tests.agreement import assert_stores_agree
from ml_pipeline_tests.project import Project, make_project, sample_iterations

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
LONGEST_END_S = 10
WORKSPACE = "load_from: [{python_module: {module_name: ml_pipeline.definitions, location_name: ml_pipeline}}]\n"
CHECKPOINTS = 1 + sum(len(sample_iterations(run)) for run in ("reasoning", "hot"))
"""The base among them: more than are scored while the stop takes effect."""
ASSETS = {spec.key for spec in CHECKPOINT_SPECS}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    project = make_project(tmp_path / "project")
    project.configure(discovery={"interval_s": 5})
    (project.root / "workspace.yaml").write_text(WORKSPACE)
    for run in ("reasoning", "hot"):
        for iteration in sample_iterations(run):
            project.add(run, iteration)
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("DAGSTER_HOME", str(project.root))
    return project


class Dev:
    """A running `ml-pipeline dev`."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self.process = process
        self.url = url

    def descendants(self) -> set[Process]:
        parents, found = processes_of_proc(), {self.process.pid}
        while more := {child.pid for child, parent in parents.items() if parent in found} - found:
            found |= more
        return {process for process in parents if process.pid in found - {self.process.pid}}

    def seconds_to_the_end(self, number: signal.Signals) -> float:
        """Send the signal; how long it takes until the last of those that are there now has ended."""
        there = self.descendants()
        assert len(there) >= 5, "the keeper, dagster dev, its daemon, its web server and its code server"
        began = time.monotonic()
        self.process.send_signal(number)
        while left := there & processes_of_proc().keys():
            assert time.monotonic() - began < 60, left
            time.sleep(0.05)
        return time.monotonic() - began

    def serves(self) -> bool:
        try:
            return httpx.get(self.url, timeout=5).status_code == 200
        except httpx.HTTPError:
            return False


@contextmanager
def running(project: Project, log: Path) -> Iterator[Dev]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with log.open("ab") as output:
        command = project.command("dev", "--port", str(port))
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    dev = Dev(process, f"http://127.0.0.1:{port}/server_info")
    try:
        yield dev
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
        print(log.read_text()[-5000:])


def wait_for(what: str, condition: Callable[[], bool], timeout_s: float = 400) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what}"
        time.sleep(1)


def score_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """The scoring runs, oldest first."""
    return list(instance.get_runs(dg.RunsFilter(job_name=score_checkpoints_job.name))[::-1])


def is_published(instance: dg.DagsterInstance) -> bool:
    """Whether the report is newer than the newest scores."""
    report, scores = (
        instance.get_latest_materialization_event(dg.AssetKey(name)) for name in ("score_report", "checkpoint_scores")
    )
    return report is not None and scores is not None and report.timestamp > scores.timestamp


def finished_in(instance: dg.DagsterInstance, run: dg.DagsterRun) -> set[str]:
    """The checkpoints for which the run has recorded every asset."""
    recorded: Counter[str] = Counter()
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
        assert entry.dagster_event is not None
        assert entry.dagster_event.partition is not None
        recorded[entry.dagster_event.partition] += 1
    assert max(recorded.values(), default=0) <= len(ASSETS)
    return {key for key, count in recorded.items() if count == len(ASSETS)}


def test_a_run_goes_on_after_a_stop_and_nothing_outlives_it(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, took = tmp_path / "dev.log", []
    with running(project, log) as dev, dg.DagsterInstance.get() as instance:
        wait_for(
            "two scored checkpoints", lambda: any(len(finished_in(instance, r)) >= 2 for r in score_runs(instance))
        )
        took.append(dev.seconds_to_the_end(signal.SIGTERM))
        assert dev.process.wait(20) == 0
        (cut_short,) = score_runs(instance)
        before = finished_in(instance, cut_short)
        assert 2 <= len(before) < CHECKPOINTS
        assert cut_short.status == dg.DagsterRunStatus.FAILURE
        assert cut_short.tags["dagster/will_retry"] == "true"
        assert instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])) == []
    words = " ".join(log.read_text().split())
    assert f"Run {cut_short.run_id} was interrupted, and goes on when Dagster starts." in words

    with running(project, log) as dev, dg.DagsterInstance.get() as instance:
        wait_for(
            "the rest, and the report",
            lambda: (
                len(score_runs(instance)) == 2
                and all(run.is_finished for run in instance.get_runs())
                and is_published(instance)
            ),
        )
        _, repeated = score_runs(instance)
        assert repeated.is_success
        assert repeated.parent_run_id == cut_short.run_id
        after = finished_in(instance, repeated)
        assert before | after == set(instance.get_dynamic_partitions("checkpoint"))
        assert not before & after, "scored twice"
        assert len(before | after) == CHECKPOINTS
        took.append(dev.seconds_to_the_end(signal.SIGINT))
        assert dev.process.wait(20) == 130
    assert_stores_agree(load_settings(project.root / "pipeline.yaml", environ={}))

    with running(project, log) as dev:
        wait_for("the UI", dev.serves)
        second = subprocess.run(project.command("dev"), capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 1
        assert f"runs already: process {dev.process.pid}" in second.stderr
        took.append(dev.seconds_to_the_end(signal.SIGKILL))
        assert dev.process.wait(20) == -signal.SIGKILL
    assert max(took) < LONGEST_END_S
    with capsys.disabled():
        print(f"\nended after {', '.join(f'{seconds:.1f}' for seconds in took)} s (SIGTERM, SIGINT, SIGKILL)")


def test_a_taken_port_is_told_and_starts_nothing(project: Project) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = project.run("dev", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert "the UI cannot be served at 127.0.0.1" in done.stderr
    (project.root / "workspace.yaml").unlink()
    done = project.run("dev")
    assert done.returncode == 2
    assert "Write into it" in done.stderr

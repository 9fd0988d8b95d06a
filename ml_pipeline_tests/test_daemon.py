"""`dagster dev` as a user leaves it running: the sensor scores what is new; a backfill asked for as in the UI."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest

from ml_pipeline.automation.jobs import score_checkpoints_job
from ml_pipeline.settings_file import load_settings
from ml_pipeline_tests.agreement import assert_stores_agree
from ml_pipeline_tests.project import Project, make_project, sample_iterations

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
BACKFILL = """
mutation Backfill($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""


class Server:
    """A running `dagster dev` of a project."""

    def __init__(self, project: Project, port: int) -> None:
        self.project = project
        self.url = f"http://127.0.0.1:{port}/graphql"

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = httpx.post(self.url, json={"query": query, "variables": variables}, timeout=60).json()
        assert "errors" not in answer, answer
        return dict(answer["data"])

    def score_runs(self) -> list[dg.DagsterRun]:
        """The scoring runs so far, newest first."""
        with self.instance() as instance:
            runs = instance.get_runs()
        return [run for run in runs if run.job_name == score_checkpoints_job.name or "dagster/backfill" in run.tags]

    def model_loads(self, run: dg.DagsterRun) -> int:
        with self.instance() as instance:
            return sum("Loading smollm2-135m here for" in entry.user_message for entry in instance.all_logs(run.run_id))

    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.get()


def wait_for(what: str, condition: Callable[[], bool], timeout_s: float = 400) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what}"
        time.sleep(2)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    checkpoints = {run: sample_iterations(run)[:4] for run in ("reasoning", "hot")}
    with running_server(tmp_path, monkeypatch, checkpoints) as server:
        yield server


@contextmanager
def running_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: Mapping[str, Sequence[int]], **sections: Any
) -> Iterator[Server]:
    """`dagster dev` over a project that has these iterations of these sample runs, and these sections of settings."""
    project = make_project(tmp_path / "project")
    project.configure(**sections)
    project.configure(discovery={"interval_s": 5})
    (project.root / "workspace.yaml").write_text(
        "load_from: [{python_module: {module_name: ml_pipeline.definitions, location_name: ml_pipeline}}]\n"
    )
    for run, iterations in checkpoints.items():
        for iteration in iterations:
            project.add(run, iteration)
    assert project.run("status").returncode == 0  # makes Dagster's database, as `make dev` does first
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("DAGSTER_HOME", str(project.root))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (tmp_path / "dev.log").open("w") as log:
        process = subprocess.Popen(
            [
                str(Path(sys.executable).with_name("dagster")),
                "dev",
                "-w",
                "workspace.yaml",
                "-h",
                "127.0.0.1",
                "-p",
                str(port),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield Server(project, port)
        finally:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            print((tmp_path / "dev.log").read_text()[-5000:])


def test_new_checkpoints_are_scored_without_a_click_and_a_backfill_scores_them_again(server: Server) -> None:
    def finished(count: int) -> bool:
        runs = server.score_runs()
        return len(runs) >= count and all(run.is_finished for run in runs)

    wait_for("the sensor's run", lambda: finished(1))
    (run,) = server.score_runs()
    assert run.is_success
    assert server.model_loads(run) == 1
    with server.instance() as instance:
        keys = list(instance.get_dynamic_partitions("checkpoint"))
        assert len(keys) == 9
        assert set(instance.get_materialized_partitions(dg.AssetKey("checkpoint_scores"))) == set(keys)
    settings = load_settings(server.project.root / "pipeline.yaml", environ={})
    wait_for("the report", settings.report_path.exists)

    eight = [key for key in keys if not key.startswith("base.")]
    assets = ["adapter", "converted_adapter", "responses", "probe_results", "checkpoint_scores"]
    answer = server.ask(
        BACKFILL, params={"assetSelection": [{"path": [name]} for name in assets], "partitionNames": eight}
    )["launchPartitionBackfill"]
    assert answer["__typename"] == "LaunchBackfillSuccess", answer
    wait_for("the backfill", lambda: finished(2))
    again, _ = server.score_runs()
    assert again.is_success
    assert again.tags["dagster/backfill"] == answer["backfillId"]
    assert server.model_loads(again) == 1
    with server.instance() as instance:
        scored_again = {
            entry.dagster_event.partition
            for entry in instance.all_logs(again.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
            if entry.dagster_event and entry.dagster_event.asset_key == dg.AssetKey("checkpoint_scores")
        }
    assert scored_again == set(eight)

    server.project.add("reasoning", sample_iterations("reasoning")[-1])
    wait_for("a dropped checkpoint's run", lambda: finished(3))
    wait_for("publishing", lambda: _published(server))
    assert_stores_agree(settings)


def _published(server: Server) -> bool:
    """Whether the report is newer than the newest score and nothing is running."""
    with server.instance() as instance:
        runs = instance.get_runs()
        report = instance.get_latest_materialization_event(dg.AssetKey("score_report"))
        scores = instance.get_latest_materialization_event(dg.AssetKey("checkpoint_scores"))
    return (
        all(run.is_finished for run in runs)
        and report is not None
        and scores is not None
        and report.timestamp > scores.timestamp
    )

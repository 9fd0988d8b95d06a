"""A native crash under the daemon: the run is started again, without the checkpoint at which its process died."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import duckdb
import pytest

from ml_pipeline_tests.backends.crashing import Crashes
from ml_pipeline_tests.project import sample_iterations
from ml_pipeline_tests.test_daemon import Server, running_server, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
RUN = "reasoning"


def test_a_native_crash_costs_one_checkpoint_and_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    iterations = sample_iterations(RUN)[:3]
    keys = [f"mac.smollm2-135m-{RUN}@{iteration}" for iteration in iterations]
    folder = tmp_path / "crashing"
    folder.mkdir()
    # The second adapter crashes whenever it is loaded.
    Crashes(folder, monkeypatch).at_adapter(1)
    with running_server(tmp_path, monkeypatch, {RUN: iterations}, judge={"backend": "none"}) as server:

        def over() -> bool:
            runs = server.score_runs()
            return len(runs) == 2 and all(run.is_finished for run in runs)

        wait_for("the run that crashes, and the one that repeats it", over, timeout_s=900)
        again, first = server.score_runs()
        assert again.parent_run_id == first.run_id
        assert (first.status, again.status) == (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.FAILURE)
        assert scored(server) == {"base.smollm2-135m@0", keys[0], keys[2]}
        sentence = (
            f"the process of run {first.run_id} was ended by SIGSEGV (Segmentation fault) while it scored {keys[1]}"
        )
        with server.instance() as instance:
            for run in (first, again):
                events = [entry.dagster_event for entry in instance.all_logs(run.run_id)]
                failures = [event.message or "" for event in events if event is not None]
                described = [
                    str(event.step_failure_data.user_failure_data)
                    for event in events
                    if event is not None and event.is_step_failure
                ]
                assert sentence in " ".join(failures + described)
        status = server.project.run("status")
        assert sentence in " ".join(status.stdout.split())


def scored(server: Server) -> set[str]:
    with duckdb.connect(str(server.project.root / "data" / "scores.duckdb"), read_only=True) as connected:
        return {key for (key,) in connected.execute("SELECT DISTINCT partition_key FROM checkpoint_scores").fetchall()}

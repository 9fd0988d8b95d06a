"""The response-file sensor on a real folder with a real instance, and the runs that it asks for."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_pipeline.assets.response_scores import response_judgements, response_scores
from ml_pipeline.assets.specs import response_files
from ml_pipeline.automation.jobs import judge_responses_job, score_responses_job
from ml_pipeline.automation.native_crashes import UnderWay, crashed_runs, work_of
from ml_pipeline.automation.response_file_sensor import build_response_file_sensor
from ml_pipeline.resources import PipelineResource, build_resources
from ml_pipeline.responses.scorer import ResponseScorer
from ml_pipeline.settings_file import load_settings
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline_tests.servers import free_port

SCORES = dg.AssetKey("response_scores")


@dataclass
class Lab:
    """A project ticked as the daemon does it."""

    root: Path
    instance: dg.DagsterInstance
    cursor: str | None = None

    def configure(self, **sections: Any) -> None:
        settings = {"sources": {"mac": {"type": "local", "path": "runs"}}, "base_models": {"big": {}}}
        (self.root / "pipeline.yaml").write_text(json.dumps(settings | sections))

    def put(self, name: str, *rows: Any, age_s: float = 3600) -> None:
        path = self.root / "data" / "responses" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
        then = time.time() - age_s
        os.utime(path, (then, then))

    def tick(self) -> list[dg.RunRequest]:
        """The runs that a tick asks for."""
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            resources={"pipeline": PipelineResource(config_path=str(self.root / "pipeline.yaml"))},
        )
        result = build_response_file_sensor(5)(context)
        if isinstance(result, dg.SkipReason):
            return []
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        for request in result.dynamic_partitions_requests or ():
            self.instance.add_dynamic_partitions("response_file", list(request.partition_keys))
        return list(result.run_requests or ())

    def execute(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        config = self.root / "pipeline.yaml"
        definitions = dg.Definitions(
            assets=[response_files, response_scores, response_judgements],
            jobs=[score_responses_job, judge_responses_job],
            resources=build_resources(config, load_settings(config, environ={})),
        )
        assert request.job_name is not None
        return definitions.resolve_job_def(request.job_name).execute_in_process(
            instance=self.instance, partition_key=request.partition_key, raise_on_error=False
        )

    def rows(self, sql: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = DuckDBStore(self.root / "data" / "scores.duckdb").query(sql).to_pylist()
        return rows


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    (tmp_path / "instance").mkdir()
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path / "instance")) as instance:
        lab = Lab(tmp_path, instance)
        lab.configure()
        yield lab


def response(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": number, "model": "m", "response": "The answer is 4."} | fields


def asked(requests: list[dg.RunRequest]) -> list[tuple[str | None, str | None]]:
    return [(request.job_name, request.partition_key) for request in requests]


def test_a_dropped_file_is_scored_once_and_a_changed_one_again(lab: Lab) -> None:
    assert lab.tick() == []
    lab.put("my answers.jsonl", response(1, correct_answer=4), response(2, correct_answer=5), "junk")
    lab.put("growing.jsonl", response(1), age_s=1)
    (request,) = lab.tick()
    assert asked([request]) == [("score_responses_job", "my=20answers")]
    assert lab.tick() == []
    result = lab.execute(request)
    assert result.success
    (event,) = [event for event in result.all_events if event.is_step_materialization]
    metadata = {name: value.value for name, value in event.materialization.metadata.items()}
    assert event.partition == "my=20answers"
    assert (metadata["responses"], metadata["bad_lines"], metadata["dagster/row_count"]) == (2, 1, 2)
    assert "my answers.jsonl:3: not JSON" in str(metadata["problems"])
    assert "| m | exact | passed | 0.5 |" in str(metadata["averages"])
    assert lab.instance.get_materialized_partitions(SCORES) == {"my=20answers"}
    lab.put("my answers.jsonl", response(1), response(2), response(3), age_s=1800)
    (again,) = lab.tick()
    assert again.run_key != request.run_key
    assert lab.execute(again).success
    assert lab.rows("SELECT count(*) AS n FROM response_scores") == [{"n": 3}]


def test_a_reset_sensor_asks_by_the_same_name(lab: Lab) -> None:
    lab.put("a.jsonl", response(1))
    (first,) = lab.tick()
    for cursor in (None, "no JSON", "[1]"):
        lab.cursor = cursor
        assert [request.run_key for request in lab.tick()] == [first.run_key]


def test_a_bad_file_fails_alone(lab: Lab) -> None:
    lab.put("bad.jsonl", "junk")
    lab.put("good.jsonl", response(1))
    bad, good = (lab.execute(request) for request in lab.tick())
    assert (bad.success, good.success) == (False, True)
    (failure,) = [event for event in bad.all_events if event.is_step_failure]
    reason = failure.step_failure_data.user_failure_data
    assert reason is not None
    assert "bad.jsonl:1: not JSON" in str(reason.metadata["bad"].value)
    assert lab.rows("SELECT partition_key FROM response_files") == [{"partition_key": "good"}]


def test_a_judge_that_is_away_fails_its_own_run_only(lab: Lab) -> None:
    lab.configure(
        base_models={"big": {"backend": "box"}},
        backends={"box": {"type": "http", "url": f"http://127.0.0.1:{free_port()}", "attempts": 1, "model": "big"}},
        judge={"backend": "big"},
    )
    lab.put("a.jsonl", response(1, best_answer="4"))
    requests = lab.tick()
    assert asked(requests) == [("score_responses_job", "a"), ("judge_responses_job", "a")]
    scored, judged = (lab.execute(request) for request in requests)
    assert (scored.success, judged.success) == (True, False)
    assert lab.rows("SELECT count(*) AS n FROM response_scores") == [{"n": 1}]
    assert lab.rows("SELECT count(*) AS n FROM response_judgements") == [{"n": 0}]
    (failure,) = [event for event in judged.all_events if event.is_step_failure]
    reason = failure.step_failure_data.user_failure_data
    assert reason is not None
    assert "127.0.0.1" in str(reason.metadata["a"].value)


def test_a_crash_at_judging_is_written_down_and_a_repeated_run_leaves_the_file_out(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.configure(
        base_models={"big": {"backend": "box"}},
        backends={"box": {"type": "http", "url": f"http://127.0.0.1:{free_port()}", "attempts": 1, "model": "big"}},
        judge={"backend": "big"},
    )
    locks = load_settings(lab.root / "pipeline.yaml", environ={}).run_locks_path
    lab.put("a.jsonl", response(1, best_answer="4"))
    _, request = lab.tick()
    at_work: list[UnderWay | None] = []
    judge = ResponseScorer.judge

    def judging(self: ResponseScorer, key: str, judges: Any) -> Any:
        (run_id,) = crashed_runs(locks)
        at_work.append(work_of(locks, run_id))
        return judge(self, key, judges)

    monkeypatch.setattr(ResponseScorer, "judge", judging)
    first = lab.execute(request)
    assert at_work == [UnderWay("a")]
    assert crashed_runs(locks) == []
    # What the process leaves when a native library crashes in it; see test_native_crashes.py.
    (locks / f"{first.run_id}.fault").write_text("Fatal Python error: Segmentation fault\n")
    (locks / f"{first.run_id}.checkpoint").write_text(json.dumps(["a", ""]))
    create = lab.instance.create_run_for_job
    monkeypatch.setattr(
        lab.instance,
        "create_run_for_job",
        lambda **options: create(**options, parent_run_id=first.run_id, root_run_id=first.run_id),
    )
    repeated = lab.execute(request)
    assert len(at_work) == 1
    (failure,) = [event for event in repeated.all_events if event.is_step_failure]
    reason = failure.step_failure_data.user_failure_data
    assert reason is not None
    assert (
        f"the process of run {first.run_id} was ended by SIGSEGV (Segmentation fault) while it judged a. A native "
        "library crashed. When the run is repeated by itself, this file is left out."
    ) in str(reason.metadata["a"].value)

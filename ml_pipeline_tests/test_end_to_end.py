"""The command as a user runs it, on real checkpoints with the real sample model: scoring, failing, resuming."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ml_pipeline.settings_file import load_settings
from ml_pipeline_tests.agreement import assert_stores_agree
from ml_pipeline_tests.project import Project, make_project, rewrite_config, sample_iterations
from ml_pipeline_tests.victoria_metrics import stored

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
GOOD, BAD = "reasoning", "hot"
FIRST, LAST = sample_iterations(GOOD)[0], sample_iterations(GOOD)[-1]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path / "project")


def scored(project: Project) -> set[str]:
    with duckdb.connect(str(project.root / "data" / "scores.duckdb"), read_only=True) as connection:
        return {key for (key,) in connection.sql("SELECT DISTINCT partition_key FROM checkpoint_scores").fetchall()}


def failures(project: Project) -> set[str]:
    with duckdb.connect(str(project.root / "data" / "scores.duckdb"), read_only=True) as connection:
        return {key for (key,) in connection.sql("SELECT partition_key FROM failures").fetchall()}


def agree(project: Project) -> None:
    assert_stores_agree(load_settings(project.root / "pipeline.yaml", environ={}))


def key(run: str, iteration: int) -> str:
    return f"mac.smollm2-135m-{run}@{iteration}"


def test_checkpoints_are_scored_once_and_bad_ones_hold_nobody_up(project: Project) -> None:
    project.add(GOOD, FIRST)
    truncated = project.add(GOOD, LAST)
    whole = truncated.read_bytes()
    truncated.write_bytes(whole[:-100])
    os.utime(truncated, ns=(1, 1))
    other_shape = project.add(BAD, sample_iterations(BAD)[0])
    tensors = load_file(other_shape)
    name = next(name for name in tensors if name.endswith("lora_a"))
    save_file({**tensors, name: np.zeros((100, tensors[name].shape[1]), np.float32)}, other_shape)
    foreign = project.runs / "adapters-smollm2-135m-foreign"
    foreign.mkdir()
    save_file({"weight": np.zeros(3, np.float32)}, foreign / "1_adapters.safetensors")
    rewrite = project.runs / "adapters-1b-gemma"
    rewrite.mkdir()
    for file in (foreign / "1_adapters.safetensors", truncated.parent / "adapter_config.json"):
        (rewrite / file.name).write_bytes(file.read_bytes())
    (foreign / "adapter_config.json").write_bytes((truncated.parent / "adapter_config.json").read_bytes())

    first = project.run("score")
    assert first.returncode == 1, first.stderr
    assert "4 of 6 failed" in first.stderr
    for failed, reason in (
        (key(GOOD, LAST), "safetensors"),
        (key(BAD, sample_iterations(BAD)[0]), name.removesuffix(".lora_a")),
        ("mac.smollm2-135m-foreign@1", "lora"),
        ("mac.1b-gemma@1", "base_models.gemma-3-1b.gguf"),
    ):
        message = re.search(rf"failed: {re.escape(failed)}: (.*?)(?=\nfailed: |\n\d+ of|\Z)", first.stderr, re.DOTALL)
        assert message, failed
        assert reason in message.group(1)
    assert scored(project) == {"base.smollm2-135m@0", key(GOOD, FIRST)}
    agree(project)
    broken = {key(GOOD, LAST), key(BAD, sample_iterations(BAD)[0]), "mac.smollm2-135m-foreign@1", "mac.1b-gemma@1"}
    assert failures(project) == broken
    report = (project.root / "data" / "report.html").read_text()
    for shown in (first.stdout, project.run("top").stdout, report):
        assert "base_models.gemma-3-1b.gguf" in shown
        assert f"smollm2-135m-{GOOD} @{LAST}" in shown
    assert {one["partition_key"] for one in json.loads(project.run("top", "--json").stdout)["failures"]} == broken

    status = project.run("status")
    assert status.returncode == 0
    assert len(re.findall(r"\bfailed\b", status.stdout)) >= 4
    assert "base_models.gemma-3-1b.gguf" in status.stdout

    truncated.write_bytes(whole)
    dry = project.run("score", "--dry-run", "--filter", "mac.smollm2-135m-reasoning*")
    assert "1 to score" in dry.stdout
    assert key(GOOD, LAST) in dry.stdout
    again = project.run("score", "--filter", "mac.smollm2-135m-reasoning*")
    assert again.returncode == 0, again.stderr
    assert scored(project) == {"base.smollm2-135m@0", key(GOOD, FIRST), key(GOOD, LAST)}
    assert failures(project) == broken - {key(GOOD, LAST)}
    agree(project)
    nothing = project.run("score", "--filter", "mac.smollm2-135m-reasoning*")
    assert nothing.returncode == 0
    assert "Nothing new to score" in nothing.stdout

    (project.root / "data" / "scores.duckdb").unlink()
    rebuilt = project.run("rebuild")
    assert rebuilt.returncode == 0, rebuilt.stderr
    agree(project)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_run_that_is_stopped_goes_on_where_it_stopped(project: Project, sent: signal.Signals, code: int) -> None:
    project.add(GOOD, FIRST)
    project.add(GOOD, LAST)
    environment = {**os.environ, **project.environment}
    with subprocess.Popen(
        project.command("score"), cwd=project.root, env=environment, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if line.startswith("1 of 3:"):
                break
        time.sleep(0.3)
        running.send_signal(sent)
        running.stdout.read()
    assert running.returncode == code
    done = scored(project)
    assert "base.smollm2-135m@0" in done
    resumed = project.run("score")
    assert resumed.returncode == 0, resumed.stderr
    assert f"{3 - len(done)} to score" in resumed.stdout or "2 to score" in resumed.stdout
    assert scored(project) == {"base.smollm2-135m@0", key(GOOD, FIRST), key(GOOD, LAST)}
    agree(project)


def test_a_locked_database_fails_with_its_holder_and_nothing_is_lost(project: Project) -> None:
    project.add(GOOD, FIRST)
    project.configure(stores={"duckdb_lock_timeout_s": 1})
    assert project.run("score", "--limit", "1").returncode == 0
    with duckdb.connect(str(project.root / "data" / "scores.duckdb")):
        locked = project.run("score")
        assert locked.returncode == 1
        assert str(os.getpid()) in locked.stderr
    assert project.run("score").returncode == 0
    assert scored(project) == {"base.smollm2-135m@0", key(GOOD, FIRST)}
    agree(project)


def test_a_full_disk_fails_clearly_and_the_next_run_goes_on(project: Project) -> None:
    project.add(GOOD, FIRST)
    assert project.run("score", "--limit", "1").returncode == 0
    limited = subprocess.run(
        ["bash", "-c", 'ulimit -f 8; exec "$@"', "limited", *project.command("score")],
        cwd=project.root,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert limited.returncode != 0
    assert project.run("score").returncode == 0
    assert scored(project) == {"base.smollm2-135m@0", key(GOOD, FIRST)}
    agree(project)


def test_a_forced_score_repeats_the_same_rows(project: Project) -> None:
    project.add(GOOD, FIRST)
    assert project.run("score").returncode == 0
    before = _results(project)
    assert project.run("score", "--force").returncode == 0
    assert _results(project) == before
    agree(project)


def test_points_wait_for_a_server_and_then_reach_it(project: Project, victoria_metrics: str) -> None:
    project.configure(suites={"enabled": ["short"]}, judge={"backend": "none"})
    project.add(GOOD, FIRST)
    assert project.run("score").returncode == 0
    assert project.run("replay").returncode == 2
    project.configure(stores={"influx": {"url": f"{victoria_metrics}/influx"}})
    flushed = project.run("replay")
    assert flushed.returncode == 0, flushed.stderr
    assert re.search(r"^[1-9]\d* points sent, 0 wait", flushed.stdout, re.MULTILINE)
    project.add(GOOD, LAST)
    assert project.run("score").returncode == 0
    assert "0 points wait" in project.run("status").stdout
    with duckdb.connect(str(project.root / "data" / "scores.duckdb"), read_only=True) as connection:
        rows = connection.sql(
            "SELECT label, accuracy * 100 FROM checkpoint_scores WHERE category = 'overall' AND iteration > 0"
        ).fetchall()
    assert len(rows) == 2
    arrived = {
        label: samples[-1][1]
        for names, samples in stored(victoria_metrics, "capability_score_accuracy").items()
        for label, _ in rows
        if label in names and "overall" in names
    }
    assert arrived == pytest.approx(dict(rows))


def test_an_overwritten_checkpoint_is_scored_again_and_its_old_scores_are_kept(project: Project) -> None:
    weights = project.add(GOOD, FIRST)
    assert project.run("score").returncode == 0
    shutil.copy(weights.parent / project.add(GOOD, LAST).name, weights)
    (weights.parent / f"{LAST:07d}_adapters.safetensors").unlink()
    assert re.search(rf"{re.escape(key(GOOD, FIRST))} .*\bchanged\b", project.run("status").stdout)
    before = _results(project)
    again = project.run("score")
    assert again.returncode == 0, again.stderr
    assert "1 to score" in again.stdout
    assert _results(project) != before
    kept = (project.root / "data" / "parquet" / "_superseded").rglob("*.parquet")
    assert any("responses" in str(path) for path in kept)
    agree(project)


def test_marking_again_needs_no_model(project: Project) -> None:
    project.add(GOOD, FIRST)
    assert project.run("score").returncode == 0
    before = _results(project)
    command = [str(Path(sys.executable).with_name("dagster")), "asset", "materialize", "-m", "ml_pipeline.definitions"]
    again = subprocess.run(
        [*command, "--select", "probe_results", "--partition", key(GOOD, FIRST)],
        cwd=project.root,
        env={**os.environ, "DAGSTER_HOME": str(project.root)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    log = again.stdout + again.stderr
    assert again.returncode == 0, log
    assert "Materialized value probe_results" in log
    assert "Loading" not in log
    assert _results(project) == before


def test_wrong_use_is_told_with_exit_code_2(project: Project) -> None:
    empty = project.run("score")
    assert empty.returncode == 2
    assert "no checkpoint" in empty.stderr
    project.add(GOOD, FIRST)
    unknown = project.run("score", "--filter", "nothing*")
    assert unknown.returncode == 2
    assert "--filter 'nothing*'" in unknown.stderr
    project.configure(suites={"enabled": ["shrt"]})
    typo = project.run("score")
    assert typo.returncode == 2
    assert "shrt" in typo.stderr
    assert "short" in typo.stderr
    (project.root / "pipeline.yaml").write_text("sources: [")
    assert project.run("config", "check").returncode == 2


def _results(project: Project) -> str:
    with duckdb.connect(str(project.root / "data" / "scores.duckdb"), read_only=True) as connection:
        rows = connection.sql(
            "SELECT partition_key, probe_id, passed, response, evaluation_id FROM probe_results ORDER BY ALL"
        ).fetchall()
    return json.dumps(rows)


def test_the_configuration_of_an_adapter_is_checked_before_it_is_used(project: Project) -> None:
    weights = project.add(GOOD, FIRST)
    rewrite_config(weights, lora_parameters={"rank": "four", "scale": None})
    failed = project.run("score")
    assert failed.returncode == 1
    assert "rank" in failed.stderr
    assert "scale" in failed.stderr
    assert scored(project) == {"base.smollm2-135m@0"}

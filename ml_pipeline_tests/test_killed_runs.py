"""`ml-pipeline score` killed at any moment, with a real model and a real InfluxDB: the same command goes on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from ml_pipeline.settings_file import load_settings
from ml_pipeline.stores.tables import CHECKPOINT_TABLES
from ml_pipeline_tests.agreement import assert_stores_agree
from ml_pipeline_tests.backends.crashing import Crashes
from ml_pipeline_tests.influxd import DATABASE, LOGIN, Influxd
from ml_pipeline_tests.project import REPOSITORY, Project, make_project, sample_iterations

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
RUN = "reasoning"
KILLS = 4
KILLED = """
import os, signal, sys
step = sys.argv.pop(1)
def enter(frame, event, argument):
    if f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}" == step:
        os.kill(os.getpid(), signal.SIGKILL)
sys.settrace(enter)
from ml_pipeline.cli.program import run
run()
"""
STEPS = (
    # Dagster has the run as started, and the model is claimed for it.
    "ml_pipeline.assets.checkpoint_assets.score_checkpoints",
    "ml_pipeline.assets.published.score_report",
)


@pytest.fixture
def project(tmp_path: Path, influxd: Influxd) -> Project:
    project = make_project(tmp_path / "project")
    project.environment["INFLUX_TOKEN"] = LOGIN
    project.configure(
        judge={"backend": "none"}, stores={"influx": {"url": influxd.url, "api": "v1", "bucket": DATABASE}}
    )
    return project


def agree(project: Project, influxd: Influxd) -> None:
    """All stores have the same, and no checkpoint has scores of two versions of its file."""
    assert_stores_agree(load_settings(project.root / "pipeline.yaml", environ={}), influxd)
    tables = [table.name for table in CHECKPOINT_TABLES]
    rows = " UNION ALL ".join(f"SELECT partition_key, suite, evaluation_id FROM {name}" for name in tables)
    with duckdb.connect(str(project.root / "data" / "scores.duckdb"), read_only=True) as connected:
        mixed = (
            f"SELECT partition_key FROM ({rows}) GROUP BY partition_key, suite HAVING count(DISTINCT evaluation_id) > 1"
        )
        assert connected.sql(mixed).fetchall() == []


def test_kills_of_the_command_lose_and_double_nothing(
    project: Project, influxd: Influxd, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every killed run finds a new checkpoint, and what the runs before it left."""
    chance, iterations = random.Random(6), iter(sample_iterations(RUN))
    project.add(RUN, next(iterations))
    began = time.monotonic()
    first = project.run("score")
    span = time.monotonic() - began
    assert first.returncode == 0, first.stderr
    moments = []
    for _ in range(KILLS):
        project.add(RUN, next(iterations))
        moments.append(chance.uniform(0.3, 1) * span)
        kill_after(project, moments[-1])
    last = project.run("score")
    assert last.returncode == 0, last.stderr
    agree(project, influxd)
    with duckdb.connect(str(project.root / "data" / "scores.duckdb"), read_only=True) as connected:
        assert connected.execute("SELECT count(*) FROM evaluations").fetchall() == [(KILLS + 2,)]
    with capsys.disabled():
        print(f"\nkilled after {', '.join(f'{moment:.1f}' for moment in moments)} s of about {span:.1f} s")


def kill_after(project: Project, seconds: float) -> None:
    environment = {**os.environ, **project.environment}
    with subprocess.Popen(
        project.command("score"), cwd=project.root, env=environment, stdout=subprocess.DEVNULL
    ) as running:
        try:
            running.wait(seconds)
        except subprocess.TimeoutExpired:
            running.kill()


def test_a_native_crash_costs_one_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said when it happens, left out by the next run, and scored when it is asked for by name."""
    project = make_project(tmp_path / "project")
    project.configure(judge={"backend": "none"})
    iterations = sample_iterations(RUN)[:3]
    files = [project.add(RUN, iteration) for iteration in iterations]
    keys = [f"mac.smollm2-135m-{RUN}@{iteration}" for iteration in iterations]
    folder = tmp_path / "crashing"
    folder.mkdir()
    crashes = Crashes(folder, monkeypatch)
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("DAGSTER_HOME", str(project.root))
    crashes.at_adapter(1)
    # And, whatever the adapter, with repacked weights: a child process finds out.
    crashes.when("extra_buffers", signal.SIGILL)
    first = project.run("score")
    assert first.returncode == -signal.SIGSEGV
    assert "llama.cpp runs without repacked weights (extra buffers): in a trial as usual" in " ".join(
        first.stdout.split()
    )
    metadata = newest_metadata("responses", keys[0])
    assert "was ended by SIGILL (Illegal instruction) while decoding a prompt" in metadata["remarks"]
    assert metadata["backend"].endswith("kv f16, without repacked weights (extra buffers)")
    sentence = f"was ended by SIGSEGV (Segmentation fault) while it scored {keys[1]}"
    assert sentence in " ".join(first.stderr.split())
    # The adapter crashes whenever it is loaded: this run must not touch it.
    second = project.run("score")
    assert second.returncode == 1, second.stderr
    assert f"failed: {keys[1]}: the process of run" in " ".join(second.stderr.split())
    assert "1 left out after a crash" in second.stderr
    assert scored(project) == {"base.smollm2-135m@0", keys[0], keys[2]}
    top = project.run("top", "--json")
    assert sentence in top.stdout
    status = project.run("status")
    assert sentence in " ".join(status.stdout.split())
    crashes.stop()
    planned = project.run("score", "--dry-run", "--limit", "1")
    assert planned.returncode == 0, planned.stderr
    assert "4 checkpoints, 0 to score, 1 left out after a crash" in planned.stdout
    assert f"  {keys[1]}  (left out after a crash)" in planned.stdout
    again = project.run("score")
    assert again.returncode == 1
    assert "Nothing new to score" not in again.stdout
    named = project.run("score", "--filter", keys[1])
    assert named.returncode == 0, named.stderr
    assert scored(project) == {"base.smollm2-135m@0", *keys}
    # Training overwrites it: that is another checkpoint than the one at which the process crashed.
    os.utime(files[1], (time.time() - 600,) * 2)
    overwritten = project.run("score", "--dry-run")
    assert f"  {keys[1]}  (changed)" in overwritten.stdout
    last = project.run("score")
    assert last.returncode == 0, last.stderr
    assert "1 to score" in last.stdout


def newest_metadata(asset: str, key: str) -> dict[str, str]:
    """What Dagster shows beside the newest materialisation of a partition."""
    with dg.DagsterInstance.get() as instance:
        records = instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[key]), limit=1
        ).records
    found = records[0].asset_materialization
    assert found is not None
    return {name: str(value.value) for name, value in found.metadata.items()}


def scored(project: Project) -> set[str]:
    with duckdb.connect(str(project.root / "data" / "scores.duckdb"), read_only=True) as connected:
        return {key for (key,) in connected.execute("SELECT DISTINCT partition_key FROM checkpoint_scores").fetchall()}


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_an_unlucky_moment_of_dagsters_blocks_nobody(project: Project, influxd: Influxd, step: str) -> None:
    project.add(RUN, sample_iterations(RUN)[0])
    environment = {**os.environ, **project.environment, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", KILLED, step, "score"]
    killed = subprocess.run(command, cwd=project.root, env=environment, timeout=240, check=False)
    assert killed.returncode == -signal.SIGKILL
    again = project.run("score")
    assert again.returncode == 0, again.stderr
    agree(project, influxd)

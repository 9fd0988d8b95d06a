"""Dagster's daemon as a user leaves it running: a training log is read without a click, and again as it grows."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import dagster as dg
import pytest

from ml_pipeline_tests.servers import running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
REPOSITORY = Path(__file__).parents[1]
SAMPLE = REPOSITORY / "data" / "sample" / "checkpoints" / "adapters-smollm2-135m-hot" / "training.log"
KEY = "mac.smollm2-135m-hot"


def test_a_log_is_read_by_the_daemon_as_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        "sources": {"mac": {"type": "local", "path": "runs"}},
        "base_models": {"smollm2-135m": {}},
        "families": [{"prefix": "smollm2-135m", "model": "smollm2-135m", "short": "S135"}],
        "discovery": {"training_log_interval_s": 5},
    }
    (tmp_path / "pipeline.yaml").write_text(json.dumps(settings))
    shutil.copy(REPOSITORY / "dagster.yaml", tmp_path)
    (tmp_path / "runs" / SAMPLE.parent.name).mkdir(parents=True)
    log = Path(shutil.copy(SAMPLE, tmp_path / "runs" / SAMPLE.parent.name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))

    with dg.DagsterInstance.get() as instance:  # before the daemon: two must not make Dagster's database at once

        def read_rows() -> list[object]:
            """The number of rows of each read that was recorded, newest first."""
            records = instance.fetch_materializations(dg.AssetKey("training_loss"), limit=10).records
            found = [record.asset_materialization for record in records]
            assert {made.partition for made in found if made} <= {KEY}
            return [made.metadata["dagster/row_count"].value for made in found if made]

        def grew_and_was_read() -> bool:
            rows = read_rows()
            if len(rows) == 1 and log.stat().st_size == SAMPLE.stat().st_size:
                with log.open("a") as file:
                    file.write("    65    4.000 ▼        7      4.2k\n")
            return rows == [18, 17] and all(run.is_success for run in instance.get_runs())

        daemon = str(Path(sys.executable).with_name("dagster-daemon"))
        with running(
            [daemon, "run", "-m", "ml_pipeline.definitions"], tmp_path / "daemon.log", grew_and_was_read, timeout_s=180
        ):
            assert [run.job_name for run in instance.get_runs()] == ["read_training_logs_job"] * 2

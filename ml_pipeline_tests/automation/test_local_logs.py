"""What the command line reads of training logs where no sensor runs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import dagster as dg
import pytest
import yaml

from ml_pipeline.automation.local_logs import read_logs
from ml_pipeline.automation.local_runs import project_instance
from ml_pipeline.checkpoints.catalogue import Catalogue
from ml_pipeline.cli.shared import definitions
from ml_pipeline.settings import Settings
from ml_pipeline.settings_file import load_settings
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline_tests.project import REPOSITORY, SAMPLES


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    shipped = yaml.safe_load((REPOSITORY / "pipeline.yaml").read_text())
    kept = {name: shipped[name] for name in ("families", "base_models")}
    (tmp_path / "pipeline.yaml").write_text(
        yaml.safe_dump({"sources": {"mac": {"type": "local", "path": "runs"}}, **kept})
    )
    shutil.copy(REPOSITORY / "dagster.yaml", tmp_path)
    for log in SAMPLES.glob("*/training.log"):
        folder = tmp_path / "runs" / log.parent.name
        folder.mkdir(parents=True)
        shutil.copy(log, folder)
    monkeypatch.setenv("ML_PIPELINE_CONFIG", str(tmp_path / "pipeline.yaml"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return load_settings(tmp_path / "pipeline.yaml", environ={})


def read(instance: dg.DagsterInstance, settings: Settings) -> list[str]:
    return read_logs(definitions(), instance, settings, Catalogue(settings))


def losses(settings: Settings) -> int:
    rows = DuckDBStore(settings.duckdb_path).query("SELECT count(*) AS rows FROM training_loss").to_pylist()
    return int(rows[0]["rows"])


def test_only_logs_that_have_grown_are_read(settings: Settings) -> None:
    with project_instance(settings) as instance:
        assert read(instance, settings) == []
        before = losses(settings)
        assert before > 20
        assert read(instance, settings) == []
        assert len(instance.get_runs()) == 1, "nothing was added, so nothing is run"
        log = next(settings.root.glob("runs/*-hot/training.log"))
        with log.open("a") as file:
            file.write("Iter 9990: Train loss 1.234, Learning Rate 1.000e-05, It/sec 1.0, Tokens/sec 1.0\n")
        os.utime(log, ns=(1, 10**18))
        assert read(instance, settings) == []
        assert losses(settings) == before + 1


def test_what_cannot_be_stored_is_told_and_read_again(settings: Settings) -> None:
    in_the_way = Path(settings.parquet_path) / "training_loss"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("no folder")
    with project_instance(settings) as instance:
        problems = read(instance, settings)
        assert [problem.split(":")[0] for problem in problems] == ["mac.smollm2-135m-hot", "mac.smollm2-135m-reasoning"]
        assert all(str(in_the_way) in problem for problem in problems)
        in_the_way.unlink()
        assert read(instance, settings) == []
    assert losses(settings) > 20

"""`ml-pipeline import`: what it says, and what `score` and `status` know afterwards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ml_pipeline.cli import main
from ml_pipeline_tests.checkpoints.files import write_checkpoint
from ml_pipeline_tests.history.original import buffered, database, lines
from ml_pipeline_tests.project import REPOSITORY, Project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    settings = {
        "sources": {"mac": {"type": "local", "path": "runs"}},
        "families": [{"prefix": "1b-", "model": "gemma-3-1b", "short": "G1"}],
        "base_models": {"gemma-3-1b": {"gguf": "base.gguf"}},
    }
    (tmp_path / "base.gguf").write_bytes(b"GGUF")
    (tmp_path / "pipeline.yaml").write_text(json.dumps(settings))
    shutil.copy(REPOSITORY / "dagster.yaml", tmp_path)
    for iteration in (100, 200):
        name = f"{iteration:07d}_adapters.safetensors"
        write_checkpoint(tmp_path / "runs" / "adapters-1b-lek", name, mtime_ns=1)
    monkeypatch.setenv("ML_PIPELINE_CONFIG", str(tmp_path / "pipeline.yaml"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def state_of(output: str, key: str) -> str:
    (line,) = [line for line in output.splitlines() if line.startswith(key)]
    return line.split()[-1]


def test_imported_checkpoints_are_not_scored_again(project: Path) -> None:
    database(project / "lem.duckdb", {100: [True, False]})
    lines(project / "bad.jsonl", [buffered(300), "{"])
    done = run("import", "lem.duckdb")
    assert done.exit_code == 0, done.output
    assert (
        "lem.duckdb: 1 of checkpoint scores, 2 of probe results: 3 new, 0 replaced, 0 known before; "
        "1 checkpoints changed, 0 bad lines." in done.output
    )
    partly = run("import", "bad.jsonl", "absent", "lem.duckdb")
    assert partly.exit_code == 1
    assert "bad.jsonl:2: not JSON" in partly.output
    assert "absent cannot be read" in partly.output
    assert "0 new, 0 replaced, 3 known before" in partly.output
    status = run("status", "--all")
    assert state_of(status.output, "mac.1b-lek@100") == "imported"
    assert state_of(status.output, "mac.1b-lek@200") == "new"
    chosen = Project(project).run("score", "--dry-run")
    assert "3 checkpoints (1 known by imported scores), 2 to score" in chosen.stdout
    assert "mac.1b-lek@100" not in chosen.stdout
    assert "mac.1b-lek@100" in Project(project).run("score", "--dry-run", "--force").stdout


def test_the_report_shows_imported_curves(project: Path) -> None:
    run("import", str(database(project / "lem.duckdb", {100: [True, False], 200: [True, True]})))
    judged = {"label": "LEK @200", "aggregates": {"truth_telling": 5.5}, "probes": {}}
    lines(project / "content.jsonl", [judged])
    assert run("import", "content.jsonl", "--run", "1b-lek", "--model", "gemma-3-1b").exit_code == 0
    report = run("report")
    assert report.exit_code == 0, report.output
    assert "imported/1b-lek [capability, base gemma-3-1b]" in report.output
    page = (project / "data" / "report.html").read_text()
    assert "not measured by this program" in page
    assert "imported/1b-lek" in page


def test_training_data_is_made_parquet(project: Path) -> None:
    lines(project / "train.jsonl", [{"messages": [{"role": "user", "content": "a"}]}])
    done = run("import", "--training", "train.jsonl")
    assert done.exit_code == 0
    assert "1 conversations, 0 bad lines" in done.output
    assert (project / "data" / "training_data" / "train.parquet").is_file()

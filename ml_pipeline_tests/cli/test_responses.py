"""`ml-pipeline responses`: files scored in this process, and compared."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ml_pipeline.cli import main
from ml_pipeline_tests.project import REPOSITORY
from ml_pipeline_tests.responses.lab import Lab


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["responses", *arguments])


def test_files_are_scored_once_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(tmp_path)
    shutil.copy(REPOSITORY / "dagster.yaml", tmp_path)
    monkeypatch.setenv("ML_PIPELINE_CONFIG", str(tmp_path / "pipeline.yaml"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    lab.put("base run", [{"id": i, "response": str(i % 2), "correct_answer": 1} for i in range(8)])
    lab.put("new", [{"id": i, "response": "1", "correct_answer": 1, "model": "tuned"} for i in range(8)])
    lab.put("bad", ["junk"])
    first = run("score")
    assert first.exit_code == 1
    assert "3 files" in first.output
    assert "3 to score" in first.output
    assert "bad.jsonl:1: not JSON" in first.output
    again = run("score")
    assert "1 to score" in again.output
    compared = run("compare", "base run.jsonl", str(tmp_path / "data" / "responses" / "new.jsonl"))
    assert compared.exit_code == 0
    assert "unknown -> tuned" in compared.output
    (line,) = [line for line in compared.output.splitlines() if " passed " in line]
    for cell in ("0.500", "1.000", "+0.500", "8 pairs"):
        assert cell in line
    missing = run("compare", "new", "bad")
    assert missing.exit_code == 1
    assert "'bad' is no scored file of responses" in missing.output

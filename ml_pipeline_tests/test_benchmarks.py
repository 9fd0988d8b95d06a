"""The benchmarks run, on little work, and print what they promise; what they measure is not looked at."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ml_pipeline_tests.project import REPOSITORY
from ml_pipeline_tests.servers import require_binary

LITTLE_WORK = {
    "classify": ["--sentences", "4", "--sequences", "4", "--repeats", "1"],
    "duckdb": ["--checkpoints", "100", "--repeats", "1"],
    "exact": ["--repeats", "1"],
    "heuristic": ["--repeats", "1"],
    "influx": ["--checkpoints", "5", "--repeats", "1"],
    "judge": ["--answers", "50", "--rows", "100", "200", "--repeats", "1"],
    "report": ["--checkpoints", "6", "--probes", "20", "--runs", "2", "--repeats", "1"],
    "tick": ["--checkpoints", "1000", "--repeats", "1"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LITTLE_WORK)
def test_a_benchmark_prints_ours_beside_the_others(name: str) -> None:
    if name == "influx":
        require_binary("victoria-metrics", "victoria-metrics")
    command = [sys.executable, "-m", f"ml_pipeline_tests.benchmarks.{name}", "--json", *LITTLE_WORK[name]]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        result = json.loads(line)
        assert result["name"].startswith(name)
        assert result["ours"] > 0
        assert result["others"].keys() == result["ratio"].keys() != set()
        assert all(ratio > 0 for ratio in result["ratio"].values())
        assert isinstance(result["unit"], str)
        assert isinstance(result["context"], dict)
    assert done.stdout

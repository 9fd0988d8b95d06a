"""`ml-pipeline score` with every backend that runs here, on the real model and a trained checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from ml_pipeline.adapters.mlx_base import write_mlx_base
from ml_pipeline_tests.backends.conftest import THREADS, find_smollm2
from ml_pipeline_tests.backends.llama_servers import require_llama_server
from ml_pipeline_tests.benchmarks.generate import llama_server
from ml_pipeline_tests.project import Project, make_project, sample_iterations

pytestmark = pytest.mark.slow

RUN, MODEL = "reasoning", "smollm2-135m"
LAST = sample_iterations(RUN)[-1]
KEY = f"mac.{MODEL}-{RUN}@{LAST}"


@pytest.fixture
def smollm2(project: Project) -> Path:
    found = find_smollm2()
    assert found is not None, "the project needs it as well"
    return found


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = make_project(tmp_path / "project")
    made.add(RUN, LAST)
    made.configure(discovery={"settle_s": 0})
    return made


def rows(project: Project, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(project.root / "data" / "scores.duckdb", read_only=True) as database:
        return database.execute(query).fetchall()


def require_scored(project: Project, backend: str) -> None:
    done = project.run("score")
    assert done.returncode == 0, done.stdout + done.stderr
    found = rows(project, "SELECT partition_key, backend, adapter_effect FROM evaluations ORDER BY partition_key")
    assert [(key, name) for key, name, _ in found] == [(f"base.{MODEL}@0", backend), (KEY, backend)]
    assert found[1][2] > 0.1
    assert rows(project, "SELECT count(*) FROM responses WHERE error IS NOT NULL") == [(0,)]


def test_llama_server(project: Project) -> None:
    require_llama_server()
    project.configure(backend={"type": "llama_server", "sequences": 4, "context_tokens": 512, "threads": THREADS})
    require_scored(project, "llama_server")
    (judged,) = rows(project, "SELECT count(score), count(*) FROM judgements")
    assert judged[0] == judged[1] > 0, "it holds the judge to its form"


def test_mlx(project: Project, smollm2: Path) -> None:
    folder = write_mlx_base(smollm2, project.root / "models" / "smollm2", dtype="float32")
    project.configure(
        base_models={MODEL: {"mlx": str(folder.relative_to(project.root))}},
        families=[{"prefix": MODEL, "model": MODEL, "short": "S"}],
        backend={"type": "mlx", "sequences": 4, "context_tokens": 512},
        judge={"backend": "none"},  # reading its long prompts takes mlx minutes on a CPU
    )
    require_scored(project, "mlx")


def test_a_server_without_adapters_answers_for_the_base_alone(project: Project, smollm2: Path) -> None:
    with llama_server(require_llama_server(), smollm2, THREADS, ["--alias", "small"]) as address:
        project.configure(backend={"type": "http", "url": address, "model": "small"})
        check = project.run("config", "check")
        assert f"small of {address}" in check.stdout
        done = project.run("score")
    assert done.returncode == 1
    assert "has no path for adapters. Set `adapters` of the http backend" in " ".join(
        (done.stdout + done.stderr).split()
    )
    assert rows(project, "SELECT partition_key, backend FROM evaluations") == [(f"base.{MODEL}@0", "http")]

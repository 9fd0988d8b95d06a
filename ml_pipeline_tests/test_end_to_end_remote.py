"""Checkpoints scored on the machine where they were trained: a real sshd, a real mlx_lm.server, nothing copied."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import duckdb
import pytest

from ml_pipeline_tests.backends.tiny_mlx import gone_within, server_processes, write_checkpoint, write_model
from ml_pipeline_tests.project import Project, make_project
from ml_pipeline_tests.sshd import Sshd, running_sshd

pytestmark = pytest.mark.slow
ITERATIONS = (10, 20)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tmp_path / "training machine" / "model"


@pytest.fixture
def remote(tmp_path: Path, model: Path) -> Project:
    """A project whose base model has no GGUF file, and two checkpoints of it beside the model."""
    project = make_project(tmp_path / "project")
    base = write_model(model)
    for iteration, strength in zip(ITERATIONS, (0.05, 0.1), strict=True):
        write_checkpoint(base, project.runs / "adapters-tiny-run", iteration, strength=strength)
    project.configure(
        base_models={"tiny": {"mlx": str(model)}},
        families=[{"prefix": "tiny", "model": "tiny", "short": "T"}],
        backend={"type": "mlx_server", "python": [sys.executable], "start_timeout_s": 120, "lost_after_s": 5},
    )
    return project


def over_ssh(project: Project, sshd: Sshd) -> None:
    there = sshd.settings(project.runs).model_dump(mode="json", exclude_defaults=True)
    project.configure(sources={"mac": there})


def scored(project: Project) -> list[tuple[str, str, float | None]]:
    with duckdb.connect(project.root / "data" / "scores.duckdb", read_only=True) as database:
        return database.execute(
            "SELECT partition_key, backend, adapter_effect FROM evaluations ORDER BY partition_key"
        ).fetchall()


def require_all_scored(project: Project, model: Path) -> None:
    rows = scored(project)
    assert [key for key, _, _ in rows] == ["base.tiny@0", "mac.tiny-run@10", "mac.tiny-run@20"]
    assert {backend for _, backend, _ in rows} == {"mlx_server"}
    assert rows[0][2] is None
    assert all(effect is not None and effect > 0 for _, _, effect in rows[1:])
    assert not list((project.root / "data" / "cache").glob("fetched/*.safetensors")), "nothing is copied"
    assert gone_within(model, timeout_s=20), f"servers linger: {server_processes(model)}"


def test_checkpoints_are_scored_on_the_host_of_their_source(tmp_path: Path, remote: Project, model: Path) -> None:
    with running_sshd(tmp_path / "sshd") as sshd:
        over_ssh(remote, sshd)
        check = remote.run("config", "check")
        assert "by mlx_lm.server where the checkpoints are" in check.stdout, check.stdout + check.stderr
        done = remote.run("score")
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("on the host of source mac") == 1, "one load of the model for base and checkpoints"
        require_all_scored(remote, model)
        again = remote.run("score")
        assert again.returncode == 0
        assert "on the host of source mac" not in again.stdout
    with duckdb.connect(remote.root / "data" / "scores.duckdb", read_only=True) as database:
        judged = database.execute(
            "SELECT count(*) FILTER (score IS NULL AND unscored_reason IS NULL), count(*) FROM judgements"
        ).fetchone()
    assert judged is not None
    assert judged[0] == 0, "a figure is there, or the reason why not"
    assert judged[1] > 0


def test_a_local_source_is_served_by_this_machine(remote: Project, model: Path) -> None:
    done = remote.run("score")
    assert done.returncode == 0, done.stdout + done.stderr
    require_all_scored(remote, model)


def test_a_truncated_adapter_fails_alone_and_says_why(remote: Project, model: Path) -> None:
    folder = remote.runs / "adapters-tiny-run"
    weights = folder / "0000020_adapters.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    remote.configure(discovery={"settle_s": 0})
    done = remote.run("score")
    assert done.returncode == 1
    assert "mac.tiny-run@20" in done.stdout + done.stderr
    assert [key for key, _, _ in scored(remote)] == ["base.tiny@0", "mac.tiny-run@10"]
    assert gone_within(model, timeout_s=20)


def test_a_model_that_is_not_there_says_so(remote: Project, model: Path) -> None:
    shutil.rmtree(model)
    done = remote.run("score")
    assert done.returncode == 1
    assert str(model) in done.stdout.replace("\n", "") + done.stderr.replace("\n", "")
    assert gone_within(model, timeout_s=20)


def test_object_storage_cannot_run_a_model(remote: Project) -> None:
    remote.configure(sources={"store": {"type": "fsspec", "url": f"file://{remote.runs}"}})
    done = remote.run("score")
    assert done.returncode == 1
    assert "is no host that can" in " ".join((done.stdout + done.stderr).split())

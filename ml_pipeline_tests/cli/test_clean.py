"""`ml-pipeline clean`: superseded answers go when asked to, and nothing else ever does."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from ml_pipeline.cli import main
from ml_pipeline.stores.tables import RESPONSES, TABLES
from ml_pipeline_tests.history.original import stores
from ml_pipeline_tests.stores.samples import identity, key, partition


def clean(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["clean", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_only_old_superseded_answers_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        "sources": {"lab": {"type": "local", "path": "runs"}},
        "base_models": {"gemma-1b": {}},
        "stores": {"parquet": "parquet", "duckdb": "scores.duckdb"},
    }
    (tmp_path / "pipeline.yaml").write_text(json.dumps(settings))
    monkeypatch.setenv("ML_PIPELINE_CONFIG", str(tmp_path / "pipeline.yaml"))
    assert "No superseded answers" in clean()
    store = stores(tmp_path)
    for version in ("e1", "e2", "e3"):
        tables = partition(identity(version=version), a=True)
        store.write_partition(key(), {name: rows for name, rows in tables.items() if rows})
    old, recent = (Path(file.place) for file in store.parquet.superseded(RESPONSES, key()))
    os.utime(old, (1, 1))
    before = set(tmp_path.rglob("*.parquet"))
    listed = clean()
    assert str(old) in listed
    assert str(recent) not in listed
    assert "1 files" in listed
    assert set(tmp_path.rglob("*.parquet")) == before
    assert "Deleted: 1 files" in clean("--delete")
    assert before - set(tmp_path.rglob("*.parquet")) == {old}
    assert "Deleted: 1 files" in clean("--older-than", "0", "--delete")
    assert before - set(tmp_path.rglob("*.parquet")) == {old, recent}
    assert not old.parent.exists()
    last = clean("--delete")
    assert last.startswith("Deleted: 0 files")
    kept = [file for name in TABLES for file in store.parquet.superseded(TABLES[name], key())]
    assert len(kept) == 6
    assert f"Superseded scores stay: 6 files, {sum(file.size_bytes for file in kept):,} bytes" in last
